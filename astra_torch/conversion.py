"""From any form of a trained model to any other: run folder, .pth, .safetensors."""

import dataclasses
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from astra_jax.atomic import replacing
from astra_jax.config import DatasetName, DtypeName, ModelConfig, Preset
from astra_jax.corpus import CorpusRecord, load_corpus
from astra_jax.datasets import corpus_vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments import import_model, restore_model
from astra_jax.model import GRULanguageModel, parameters
from astra_jax.presets import CUSTOM_NAMES, PRESETS, override, same_shape
from astra_jax.runs import Run
from astra_jax.vocabulary import Vocabulary, published_vocabulary
from astra_torch import files
from astra_torch.files import WeightFile
from astra_torch.weights import (
    ASTRA_CLASS,
    Arrays,
    Layout,
    check,
    entries,
    find_layout,
    to_arrays,
    to_model,
)

READERS = {
    ".pth": files.read_pth,
    ".pt": files.read_pth,
    ".safetensors": files.read_safetensors,
}


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model apart from its framework and its file.

    Attributes:
        arrays: its weights by their torch names.
        preset: its shape, and the recipe of the preset that it is or comes from.
        vocabulary: its characters.
        corpus: what is known of the text that it was trained on.
    """

    arrays: Arrays
    preset: Preset
    vocabulary: Vocabulary
    corpus: CorpusRecord

    @property
    def layout(self) -> Layout:
        """How its arrays are named."""
        return find_layout(self.preset.model, self.preset.data.dataset)

    def to_model(self) -> GRULanguageModel:
        """Returns it as a Flax module."""
        return to_model(self.arrays, self.preset.model, self.layout, self.preset.train.dtype)


def read(source: Path, *, corpus: str | None = None, trust_shapes: bool = False) -> TrainedModel:
    """Reads a model in any form.

    Args:
        source: a run folder, or a file named .pth or .safetensors.
        corpus: the text whose characters are the model's, where the file holds no vocabulary;
            None takes those of the study that the model is of.
        trust_shapes: go by the arrays' shapes where a label of the file contradicts them.

    Raises:
        InputError: the source cannot be read, is damaged, or its labels contradict its arrays.
    """
    if source.is_dir():
        if corpus is not None:
            raise InputError(f"{source} has a vocabulary of its own: leave out --corpus")
        return _from_run(Run.open(source))
    reader = READERS.get(source.suffix)
    if reader is None:
        raise InputError(
            f"{source} is neither a run folder nor a file named .pth or .safetensors: give one"
        )
    weights = reader(source)
    layout, model = check(weights.arrays, str(source))
    contradictions = _contradictions(layout, model, weights.metadata, source.name)
    if contradictions and not trust_shapes:
        raise InputError(
            f"{source} is mislabelled: {'; '.join(contradictions)}. The shapes of the arrays are "
            "the truth; to go by them pass --trust-shapes"
        )
    return _from_file(weights, layout, model, source, corpus)


def write(trained: TrainedModel, destination: Path) -> None:
    """Writes a model in the form that the destination's name asks for.

    Args:
        trained: the model.
        destination: a new file named .pth or .safetensors, or, without a suffix, a new folder.

    Raises:
        InputError: the destination exists, cannot be written, or is of no known form.
    """
    if destination.suffix not in (*READERS, ""):
        raise InputError(
            f"{destination} must end in .pth or .safetensors, or have no suffix for a run folder"
        )
    if destination.suffix == "":
        run = Run.create(destination, trained.preset, trained.vocabulary, trained.corpus)
        import_model(run, trained.to_model())
        return
    try:
        if destination.suffix == ".safetensors":
            files.write_safetensors(destination, _safetensors_file(trained))
        else:
            files.write_pth(destination, notebook_file(trained, version=1))
    except FileExistsError as error:
        raise InputError(f"{destination} exists already: choose another name") from error
    except OSError as error:
        raise InputError(f"cannot write {destination}: {error.strerror or error}") from error


def write_notebook_files(trained: TrainedModel, folder: Path) -> list[Path]:
    """Writes `{base_name}_v{n}.pth`, n one above the largest there, and its `_latest` copy.

    Raises:
        InputError: the folder cannot be written.
    """
    base = trained.preset.base_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [
            int(match[1])
            for path in folder.iterdir()
            if (match := re.fullmatch(rf"{base}_v(\d+)\.pth", path.name))
        ]
        path = _write_next(trained, folder / base, 1 + max(taken, default=0))
        latest = folder / f"{base}_latest.pth"
        with replacing(latest) as temporary:
            shutil.copyfile(path, temporary)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return [path, latest]


def _write_next(trained: TrainedModel, base: Path, version: int) -> Path:
    """Writes the first version from `version` on that no other export has taken meanwhile."""
    path = base.with_name(f"{base.name}_v{version}.pth")
    try:
        files.write_pth(path, notebook_file(trained, version))
    except FileExistsError:
        return _write_next(trained, base, version + 1)
    return path


def notebook_file(trained: TrainedModel, version: int) -> WeightFile:
    """Returns the checkpoint as the notebook of the model's study writes it."""
    model = trained.preset.model
    sizes = dict(
        n_classes=model.vocab_size, embd_dim=model.embedding_dim, hidden_dim=model.hidden_dim
    )
    metadata: dict[str, Any] = {"model_class": trained.layout.class_name, **sizes}
    if trained.layout.class_name == ASTRA_CLASS:
        metadata = {
            "model_class": ASTRA_CLASS,
            "model_name": trained.preset.title,
            **sizes,
            "dropout": model.dropout,
            "vocab_size": model.vocab_size,
            "num_layers": model.num_layers,
        }
    metadata |= {"timestamp": datetime.now().strftime("%Y-%m-%d %H:%M:%S"), "version": version}
    return WeightFile(trained.arrays, metadata)


def _safetensors_file(trained: TrainedModel) -> WeightFile:
    metadata = {
        "preset": trained.preset.to_dict(),
        "vocabulary": trained.vocabulary.to_dict(),
        # Where the text lay is nobody's business but its owner's.
        "corpus": dataclasses.replace(trained.corpus, path=None).to_dict(),
    }
    return WeightFile(trained.arrays, metadata)


def _from_run(run: Run) -> TrainedModel:
    layout = find_layout(run.preset.model, run.preset.data.dataset)
    return TrainedModel(
        arrays=to_arrays(parameters(restore_model(run)), layout),
        preset=run.preset,
        vocabulary=run.vocabulary,
        corpus=run.corpus,
    )


def _from_file(
    weights: WeightFile, layout: Layout, model: ModelConfig, source: Path, corpus: str | None
) -> TrainedModel:
    preset = _preset_of(weights, layout, model)
    if corpus is not None:
        text = load_corpus(preset.data.dataset, corpus).text
        vocabulary = corpus_vocabulary(text, preset.data.dataset)
    elif "vocabulary" in weights.metadata:
        vocabulary = Vocabulary.from_dict(weights.metadata["vocabulary"])
    else:
        vocabulary = published_vocabulary(preset.data.dataset)
    if len(vocabulary) != model.vocab_size:
        raise InputError(
            f"{source} has {model.vocab_size} classes, the vocabulary of "
            f"{corpus or 'its study'} has {len(vocabulary)}: pass --corpus FILE with the text "
            "that it was trained on"
        )
    record = CorpusRecord.unknown(source.name)
    if "corpus" in weights.metadata:
        record = CorpusRecord.from_dict(weights.metadata["corpus"])
    # A file may keep its arrays in an order of its own.
    arrays = {entry.name: weights.arrays[entry.name] for entry in entries(layout)}
    return TrainedModel(arrays=arrays, preset=preset, vocabulary=vocabulary, corpus=record)


def _preset_of(weights: WeightFile, layout: Layout, model: ModelConfig) -> Preset:
    """Returns the preset that the arrays are of: the file's own, a published, or a custom one."""
    metadata = weights.metadata
    if "preset" in metadata:
        own = Preset.from_dict(metadata["preset"])
        if same_shape(own.model, model) and find_layout(model, own.data.dataset) == layout:
            return override(own, dtype=_dtype_of(weights, own.train.dtype))
    is_custom_names = metadata.get("model_name") == CUSTOM_NAMES["names"]["title"]
    dataset = "names" if layout.class_name != ASTRA_CLASS or is_custom_names else "shakespeare"
    nearest = _published(model, dataset) or PRESETS[dataset, "alpha"]
    fields = dataclasses.asdict(model) | {"dropout": nearest.model.dropout}
    if isinstance(metadata.get("dropout"), int | float):
        fields["dropout"] = float(metadata["dropout"])
    return override(nearest, **fields, dtype=_dtype_of(weights, "float32"))


def _dtype_of(weights: WeightFile, wanted: DtypeName) -> DtypeName:
    """Returns the type to compute in: float64 where the arrays are, and only there."""
    if weights.arrays["embedding.weight"].dtype == "float64":
        return "float64"
    return "float32" if wanted == "float64" else wanted


def _published(model: ModelConfig, dataset: DatasetName | None = None) -> Preset | None:
    """Returns the published preset of a shape, of one study or of either."""
    for (owner, _), preset in PRESETS.items():
        if dataset in (None, owner) and same_shape(preset.model, model):
            return preset
    return None


def _contradictions(
    layout: Layout, model: ModelConfig, metadata: dict[str, Any], file_name: str
) -> list[str]:
    """Returns what a file says of itself that its arrays say otherwise."""
    true = dict(
        model_class=layout.class_name,
        n_classes=model.vocab_size,
        vocab_size=model.vocab_size,
        embd_dim=model.embedding_dim,
        hidden_dim=model.hidden_dim,
        num_layers=model.num_layers,
    )
    found = [
        f"it says {name} = {metadata[name]!r}, its arrays have {value!r}"
        for name, value in true.items()
        if name in metadata and metadata[name] != value
    ]
    if "preset" in metadata:
        preset = Preset.from_dict(metadata["preset"])
        found += _mislabelled("its preset says", preset, model)
    for preset in PRESETS.values():
        if metadata.get("model_name") == preset.title:
            found += _mislabelled(f"its model_name {preset.title} means", preset, model)
        if re.fullmatch(rf"{preset.base_name}_(v\d+|latest)", Path(file_name).stem):
            found += _mislabelled(f"its file name means {preset.title} with", preset, model)
    return found


def _mislabelled(label: str, preset: Preset, model: ModelConfig) -> list[str]:
    """Returns, in at most one sentence, where a label's preset differs from the arrays."""
    if same_shape(preset.model, model):
        return []
    fields = ("embedding_dim", "hidden_dim", "num_layers", "layer_norm")
    pairs = {name: (getattr(preset.model, name), getattr(model, name)) for name in fields}
    parts = [f"{name} {said}, not {true}" for name, (said, true) in pairs.items() if said != true]
    owner = _published(model)
    return [f"{label} {', '.join(parts)}" + (f" (they are {owner.title}'s)" if owner else "")]
