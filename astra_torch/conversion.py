"""From any form of a trained model to any other: run folder, .pth, .safetensors; to .onnx."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, TypeVar

from astra_jax.config import DtypeName, ModelConfig, Preset
from astra_jax.data.corpus import CorpusRecord, load_corpus
from astra_jax.data.splits import corpus_vocabulary
from astra_jax.data.vocabulary import BYTES, Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments.restoring import import_state, restore_state
from astra_jax.presets import CUSTOM_NAMES, override, same_shape
from astra_jax.runs.folder import Run
from astra_torch import files, notebook_files, onnx_models
from astra_torch.files import WeightFile
from astra_torch.labels import find_contradictions, nearest_preset, said_dropout
from astra_torch.trained_model import TrainedModel
from astra_torch.training_state import OptimizerState, from_jax
from astra_torch.weights import (
    ASTRA_CLASS,
    Layout,
    check,
    entries,
    find_layout,
    to_arrays,
)

Parsed = TypeVar("Parsed", Preset, Vocabulary, CorpusRecord)

READERS = {
    ".pth": files.read_pth,
    ".pt": files.read_pth,
    ".safetensors": files.read_safetensors,
}


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
        corpus: the text whose characters are the model's; None takes the file's, or where it
            holds no vocabulary those of the study that the model is of.
        trust_shapes: go by the arrays' shapes where a label of the file contradicts them.
        weights_only: leave the optimizer's state alone, whatever it is.
        best: take a run's checkpoint of the lowest validation loss, not the newest.

    Raises:
        InputError: the source cannot be read, is damaged, has other characters than the corpus, or
            its labels contradict its arrays.
    """
    if source.is_dir():
        if corpus is not None:
            raise InputError(f"{source} has a vocabulary of its own: leave out --corpus")
        return _from_run(Run.open(source), weights_only, best)
    if best:
        raise InputError(f"{source} is no run folder, which alone has a best checkpoint")
    suffix = source.suffix.lower()
    reader = READERS.get(suffix)
    if suffix == ".onnx":
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

    optimizer = torch_state.from_file(weights, trained.preset, str(source))
    return dataclasses.replace(trained, optimizer=optimizer)


def write(trained: TrainedModel, destination: Path, *, weights_only: bool = False) -> None:
    """Writes a model in the form that the destination's name asks for.

    Args:
        trained: the model.
        destination: a new file named .pth, .safetensors or .onnx, or, without such a suffix, a
            new folder.
        weights_only: write a .pth as the notebook does, without what else is known of the model.

    Raises:
        InputError: the destination exists, cannot be written, or is of no known form; or a .pth
            cannot say where in its schedule the optimizer is.
    """
    suffix = destination.suffix.lower()
    is_file = suffix in (*READERS, ".onnx")
    if is_file and destination.is_dir():
        raise InputError(f"{destination} is a folder: choose another name")
    # What follows the dot of runs/v1.2 is no type of file.
    if suffix[1:2].isdecimal() or suffix == "" or destination.is_dir():
        _write_run(trained, destination)
        return
    if not is_file:
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
            bare = notebook_files.checkpoint(trained, version=1)
            files.write_pth(destination, bare if weights_only else _with_all_known(trained, bare))
    except FileExistsError as error:
        raise InputError(f"{destination} exists already: choose another name") from error
    except OSError as error:
        raise InputError(f"cannot write {destination}: {error.strerror or error}") from error


def caveats(trained: TrainedModel, destination: Path) -> list[str]:
    """Returns what is to be known of what `write` makes of a model."""
    found = [trained.assumed] if trained.assumed else []
    if READERS.get(destination.suffix.lower()) == files.read_pth:
        found += notebook_files.caveats(trained)
    optimizer = trained.optimizer
    if optimizer is not None and destination.suffix.lower() not in (".safetensors", ".onnx"):
        found += _caveats_of_training(optimizer)
    return found


def _caveats_of_training(optimizer: OptimizerState) -> list[str]:
    steps = optimizer.steps_per_epoch
    if steps is None:  # Of an epoch through all data, before the first one's end.
        return [
            f"its training stands at step {optimizer.step}, of epochs whose length no file says: "
            "scripts/train.py goes on from it only if that is the end of an epoch"
        ]
    epoch, rest = divmod(optimizer.step, steps)
    if not rest:
        return []
    return [
        f"its training stands at {rest} of {steps} steps of epoch {epoch + 1}: scripts/train.py "
        "goes on from a file only where it was written at the end of an epoch"
    ]


def _write_run(trained: TrainedModel, folder: Path) -> None:
    optimizer, state = trained.optimizer, trained.to_state()
    run = Run.create(
        folder,
        trained.preset,
        trained.vocabulary,
        trained.corpus,
        imported_step=optimizer.step if optimizer else 0,
        imported_steps_per_epoch=optimizer.steps_per_epoch if optimizer else None,
    )
    try:
        import_state(run, state)
    except BaseException:  # Else what is left could be trained on, from random weights.
        shutil.rmtree(folder)
        raise


def _with_all_known(trained: TrainedModel, bare: WeightFile) -> WeightFile:
    """Returns the notebook's checkpoint with what this project says, and training goes on from."""
    # A training is more than its model: vocabulary, seed and recipe too must come back.
    metadata = bare.metadata | {files.OWN_METADATA: files.to_text(_own_metadata(trained))}
    optimizer = trained.optimizer
    if optimizer is None:
        return WeightFile(trained.arrays, metadata)
    from astra_torch import torch_state  # As in `read`.

    trainer = torch_state.to_trainer(trained.arrays, optimizer, trained.preset)
    state = trainer.state_dict()
    training = {name: state[name] for name in files.TRAINING_KEYS if state[name] is not None}
    metadata["step"] = optimizer.step
    if optimizer.steps_per_epoch is not None:
        metadata["steps_per_epoch"] = optimizer.steps_per_epoch
        metadata["epoch"] = optimizer.step // optimizer.steps_per_epoch
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
    """Returns a run's steps an epoch; None where it takes all batches and no epoch is known of."""
    if run.preset.train.steps_per_epoch is not None:
        return run.preset.train.steps_per_epoch
    metrics = run.metrics()
    return metrics[-1].step // metrics[-1].epoch if metrics else run.imported_steps_per_epoch


def _from_file(
    weights: WeightFile, layout: Layout, model: ModelConfig, source: Path, corpus: str | None
) -> TrainedModel:
    preset, assumed = _preset_of(weights, layout, model, source)
    vocabulary, preset = _vocabulary_of(weights, preset, model, source, corpus)
    if vocabulary.is_bytes and corpus is None and "vocabulary" not in weights.metadata:
        assumed = "; ".join(
            filter(None, [assumed, "its 256 classes are taken for bytes (characters: --corpus)"])
        )
    record = CorpusRecord.unknown(source.name)
    if "corpus" in weights.metadata:
        record = _parsed(CorpusRecord, weights.metadata["corpus"], source)
    # A file may keep its arrays in an order of its own.
    arrays = {entry.name: weights.arrays[entry.name] for entry in entries(layout)}
    return TrainedModel(
        arrays=arrays, preset=preset, vocabulary=vocabulary, corpus=record, assumed=assumed
    )


def _vocabulary_of(
    weights: WeightFile, preset: Preset, model: ModelConfig, source: Path, corpus: str | None
) -> tuple[Vocabulary, Preset]:
    """Returns the vocabulary of the corpus, the file or the study, and the preset of its level."""
    said = weights.metadata.get("vocabulary")
    own = None if said is None else _parsed(Vocabulary, said, source)
    if corpus is not None:
        content = load_corpus(preset.data.dataset, corpus, preset.data.level).content
        vocabulary = corpus_vocabulary(content, preset.data.dataset)
    else:
        vocabulary = own or published_vocabulary(preset.data.dataset)
    others = own is None and len(vocabulary) != model.vocab_size and vocabulary.end_id is None
    if others and model.vocab_size == len(BYTES):
        # Of running text, the one other vocabulary that is known without the text.
        vocabulary, preset = Vocabulary.of_bytes(), override(preset, level="byte")
    if own not in (None, vocabulary):
        raise InputError(
            f"{source} has other characters than {corpus}, {own.describe()} rather than "
            f"{vocabulary.describe()}: leave out --corpus, or give the text that it was trained on"
        )
    if len(vocabulary) != model.vocab_size:
        whose = corpus or ("the file" if own else "its study")
        raise InputError(
            f"{source} has {model.vocab_size} classes, the vocabulary of {whose} has "
            f"{len(vocabulary)}: pass --corpus FILE with the text that it was trained on"
        )
    return vocabulary, preset


def _preset_of(
    weights: WeightFile, layout: Layout, model: ModelConfig, source: Path
) -> tuple[Preset, str]:
    """Returns the preset that the arrays are of, and in a sentence what had to be assumed.

    It is the file's own, or a published one, or else one whose recipe is the published one's of
    as many layers.
    """
    metadata = weights.metadata
    if "preset" in metadata:
        own = _parsed(Preset, metadata["preset"], source)
        if same_shape(own.model, model) and find_layout(model, own.data.dataset) == layout:
            return override(own, dtype=_dtype_of(weights, own.train.dtype)), ""
    is_custom_names = metadata.get("model_name") == CUSTOM_NAMES["names"]["title"]
    dataset = "names" if layout.class_name != ASTRA_CLASS or is_custom_names else "shakespeare"
    nearest, dropout = nearest_preset(model, dataset), said_dropout(metadata)
    assumed = ""
    if not same_shape(nearest.model, model):
        what = "recipe is" if dropout is not None else "recipe and dropout are"
        assumed = (
            f"{source} does not say how it was trained: its {what} taken from {nearest.title}, "
            "whose number of layers is nearest"
        )
    fields = dataclasses.asdict(model)
    fields["dropout"] = nearest.model.dropout if dropout is None else dropout
    return override(nearest, **fields, dtype=_dtype_of(weights, "float32")), assumed


def _parsed(kind: type[Parsed], said: Any, source: Path) -> Parsed:
    """Returns what a file says of itself; what is wrong with it is told with the file's name."""
    try:
        return kind.from_dict(said)
    except InputError as error:
        raise InputError(f"{source} is damaged: {error}") from error


def _dtype_of(weights: WeightFile, wanted: DtypeName) -> DtypeName:
    """Returns the type to compute in: float64 where the arrays are, and only there."""
    if weights.arrays["embedding.weight"].dtype == "float64":
        return "float64"
    return "float32" if wanted == "float64" else wanted
