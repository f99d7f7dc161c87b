"""From any form of a trained model to any other: run folder, .pth, .safetensors; to .onnx."""

import dataclasses
import itertools
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from astra_jax.atomic import replacing
from astra_jax.config import DtypeName, ModelConfig, Preset
from astra_jax.corpus import CorpusRecord, load_corpus
from astra_jax.datasets import corpus_vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments import import_state, restore_state
from astra_jax.model import GRULanguageModel, parameters
from astra_jax.presets import CUSTOM_NAMES, PRESETS, override, same_shape
from astra_jax.runs import Run
from astra_jax.training import TrainState
from astra_jax.vocabulary import BYTES, Vocabulary, published_vocabulary
from astra_torch import files, onnx_models, sidecars
from astra_torch.files import WeightFile
from astra_torch.labels import find_contradictions, published_preset
from astra_torch.training_state import OptimizerState, from_jax, to_jax
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
        optimizer: what its training goes on from; None where that is not known, or not wanted.
    """

    arrays: Arrays
    preset: Preset
    vocabulary: Vocabulary
    corpus: CorpusRecord
    optimizer: OptimizerState | None = None

    @property
    def layout(self) -> Layout:
        """How its arrays are named."""
        return find_layout(self.preset.model, self.preset.data.dataset)

    def to_model(self) -> GRULanguageModel:
        """Returns it as a Flax module."""
        return to_model(self.arrays, self.preset.model, self.layout, self.preset.train.dtype)

    def to_state(self) -> TrainState:
        """Returns it as the state that JAX goes on training from."""
        return to_jax(parameters(self.to_model()), self.optimizer, self.preset, self.layout)


def read(
    source: Path,
    *,
    corpus: str | None = None,
    trust_shapes: bool = False,
    weights_only: bool = False,
    best: bool = False,
) -> TrainedModel:
    """Reads a model in any form.

    Args:
        source: a run folder, or a file named .pth or .safetensors.
        corpus: the text whose characters are the model's, where the file holds no vocabulary;
            None takes those of the study that the model is of.
        trust_shapes: go by the arrays' shapes where a label of the file contradicts them.
        weights_only: leave the optimizer's state alone, whatever it is.
        best: take a run's checkpoint of the lowest validation loss, not the newest.

    Raises:
        InputError: the source cannot be read, is damaged, or its labels contradict its arrays.
    """
    if source.is_dir():
        if corpus is not None:
            raise InputError(f"{source} has a vocabulary of its own: leave out --corpus")
        return _from_run(Run.open(source), weights_only, best)
    if best:
        raise InputError(f"{source} is no run folder, which alone has a best checkpoint")
    reader = READERS.get(source.suffix)
    if source.suffix == ".onnx":
        raise InputError(
            f"{source}: a .onnx file is made for other programs, and is not read back: give the "
            "run folder, .pth or .safetensors that it was made of"
        )
    if reader is None:
        raise InputError(
            f"{source} is neither a run folder nor a file named .pth or .safetensors: give one"
        )
    weights = reader(source)
    layout, model = check(weights.arrays, str(source))
    contradictions = find_contradictions(layout, model, weights.metadata, source.name)
    if contradictions and not trust_shapes:
        raise InputError(
            f"{source} is mislabelled: {'; '.join(contradictions)}. The shapes of the arrays are "
            "the truth; to go by them pass --trust-shapes"
        )
    trained = _from_file(weights, layout, model, source, corpus)
    if weights_only or not weights.training:
        return trained
    from astra_torch import torch_state  # The slow import, which .safetensors files do without.

    optimizer = torch_state.from_file(weights, layout, trained.preset, str(source))
    return dataclasses.replace(trained, optimizer=optimizer)


def write(trained: TrainedModel, destination: Path) -> None:
    """Writes a model in the form that the destination's name asks for.

    Args:
        trained: the model.
        destination: a new file named .pth, .safetensors or .onnx, or, without such a suffix, a
            new folder.

    Raises:
        InputError: the destination exists, cannot be written, or is of no known form; or a .pth
            cannot say where in its schedule the optimizer is.
    """
    suffix = destination.suffix
    # What follows the dot of runs/v1.2 is no type of file.
    if suffix[1:2].isdecimal() or suffix == "" or destination.is_dir():
        _write_run(trained, destination)
        return
    if suffix not in (*READERS, ".onnx"):
        raise InputError(
            f"{destination} must end in .pth or .safetensors, in .onnx for onnxruntime, or have no "
            "suffix for a run folder"
        )
    try:
        if suffix == ".safetensors":
            files.write_safetensors(destination, WeightFile(trained.arrays, _own_metadata(trained)))
        elif suffix == ".onnx":
            file = WeightFile(trained.arrays, _own_metadata(trained))
            onnx_models.write_onnx(destination, file, trained.preset.model, trained.layout)
        else:
            files.write_pth(destination, _checkpoint_file(trained))
    except FileExistsError as error:
        raise InputError(f"{destination} exists already: choose another name") from error
    except OSError as error:
        raise InputError(f"cannot write {destination}: {error.strerror or error}") from error


def _write_run(trained: TrainedModel, folder: Path) -> None:
    step = trained.optimizer.step if trained.optimizer else 0
    run = Run.create(folder, trained.preset, trained.vocabulary, trained.corpus, step)
    import_state(run, trained.to_state())


def write_notebook_files(trained: TrainedModel, folder: Path) -> list[Path]:
    """Writes `{base_name}_v{n}.pth`, n one above the largest there, and its `_latest` copy.

    They hold the weights and no optimizer's state, as the notebooks' own do, and their hashes
    stand beside them. Of several processes each takes a number of its own, and the copy is of
    one of their files.

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
        # Without a hash the file is good, with that of the one before it is not.
        sidecars.path_of(latest).unlink(missing_ok=True)
        with replacing(latest) as temporary:
            shutil.copyfile(path, temporary)
        sidecars.write(latest)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return [path, latest]


def _write_next(trained: TrainedModel, base: Path, version: int) -> Path:
    """Writes the first version from `version` on that no other export has taken meanwhile."""
    for number in itertools.count(version):
        path = base.with_name(f"{base.name}_v{number}.pth")
        try:
            files.write_pth(path, notebook_file(trained, number))
        except FileExistsError:
            continue
        return path
    raise AssertionError("itertools.count never ends")


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


def _checkpoint_file(trained: TrainedModel) -> WeightFile:
    """Returns the notebook's checkpoint, and what training goes on from if that is known."""
    weights = notebook_file(trained, version=1)
    optimizer = trained.optimizer
    if optimizer is None:
        return weights
    from astra_torch import torch_state  # As in `read`.

    trainer = torch_state.to_trainer(trained.arrays, optimizer, trained.preset)
    state = trainer.state_dict()
    training = {name: state[name] for name in files.TRAINING if state[name] is not None}
    metadata = weights.metadata | {"step": optimizer.step}
    if optimizer.steps_per_epoch is not None:
        metadata["steps_per_epoch"] = optimizer.steps_per_epoch
        metadata["epoch"] = optimizer.step // optimizer.steps_per_epoch
    # A training is more than its model: seed and recipe too must come back.
    metadata[files.OWN_METADATA] = files.to_text(_own_metadata(trained))
    return WeightFile(trained.arrays, metadata, training)


def _own_metadata(trained: TrainedModel) -> dict[str, Any]:
    """Returns what this project says of a model, for files that have a place for it."""
    return {
        "preset": trained.preset.to_dict(),
        "vocabulary": trained.vocabulary.to_dict(),
        # Where the text lay is nobody's business but its owner's.
        "corpus": dataclasses.replace(trained.corpus, path=None).to_dict(),
    }


def _from_run(run: Run, weights_only: bool, best: bool) -> TrainedModel:
    layout = find_layout(run.preset.model, run.preset.data.dataset)
    state = restore_state(run, best=best)
    return TrainedModel(
        arrays=to_arrays(state.params, layout),
        preset=run.preset,
        vocabulary=run.vocabulary,
        corpus=run.corpus,
        optimizer=None if weights_only else from_jax(state, layout, _steps_per_epoch(run)),
    )


def _steps_per_epoch(run: Run) -> int | None:
    """Returns a run's steps an epoch; None where it takes all batches and has done no epoch."""
    if run.preset.train.steps_per_epoch is not None:
        return run.preset.train.steps_per_epoch
    metrics = run.metrics()
    return metrics[-1].step // metrics[-1].epoch if metrics else None


def _from_file(
    weights: WeightFile, layout: Layout, model: ModelConfig, source: Path, corpus: str | None
) -> TrainedModel:
    preset = _preset_of(weights, layout, model)
    if corpus is not None:
        content = load_corpus(preset.data.dataset, corpus, preset.data.level).content
        vocabulary = corpus_vocabulary(content, preset.data.dataset)
    elif "vocabulary" in weights.metadata:
        vocabulary = Vocabulary.from_dict(weights.metadata["vocabulary"])
    else:
        vocabulary = published_vocabulary(preset.data.dataset)
        if vocabulary.end_id is None and model.vocab_size == len(BYTES):
            # Of running text, the one other vocabulary that is known without the text.
            vocabulary, preset = Vocabulary.of_bytes(), override(preset, level="byte")
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
    nearest = published_preset(model, dataset) or PRESETS[dataset, "alpha"]
    fields = dataclasses.asdict(model) | {"dropout": nearest.model.dropout}
    if isinstance(metadata.get("dropout"), int | float):
        fields["dropout"] = float(metadata["dropout"])
    return override(nearest, **fields, dtype=_dtype_of(weights, "float32"))


def _dtype_of(weights: WeightFile, wanted: DtypeName) -> DtypeName:
    """Returns the type to compute in: float64 where the arrays are, and only there."""
    if weights.arrays["embedding.weight"].dtype == "float64":
        return "float64"
    return "float32" if wanted == "float64" else wanted
