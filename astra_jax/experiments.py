"""How a run begins, goes on, takes weights in, and gives its model back."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from astra_jax import cluster
from astra_jax.checkpoints import Checkpoints
from astra_jax.config import Preset, differences
from astra_jax.corpus import BUILTIN, CorpusRecord, load_corpus
from astra_jax.datasets import Split, corpus_vocabulary, split_corpus
from astra_jax.errors import InputError
from astra_jax.fitting import steps_in_epoch
from astra_jax.metrics import History
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.presets import override
from astra_jax.runs import Run
from astra_jax.saving import SavePolicy, Saver, Training, read
from astra_jax.sizing import require_memory
from astra_jax.training import Keys, Trainer, TrainState

BUILTIN_WARNING = (
    "warning: the text is the project's built-in one, not a published corpus, so no loss here can "
    "be held against a published one. For the real corpus connect to the network, set "
    "ASTRA_DATA_DIR to its folder, or pass --corpus FILE"
)


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def begin(
    preset: Preset, corpus_source: str | None, folder: Path | None, *, remat: bool = False
) -> tuple[Run, Split]:
    """Makes a new run folder for a preset and a corpus, whose vocabulary sizes the model.

    Args:
        preset: what to train, and how.
        corpus_source: see `load_corpus`.
        folder: see `Run.create`.
        remat: whether it is to be trained in little memory.

    Raises:
        InputError: the corpus, the folder or the recipe cannot be used.
    """
    if folder is None and jax.process_count() > 1:
        raise InputError("several processes must know one folder: give --out to each")
    preset, corpus, split = prepare(preset, corpus_source, remat=remat)
    run = Run.create(folder, preset, split.vocabulary, corpus) if cluster.is_primary() else None
    cluster.wait_for_all("the run folder is made")
    if run is None:
        assert folder is not None
        run = Run.open(folder)
    return run, split


def prepare(
    preset: Preset, corpus_source: str | None, *, remat: bool = False
) -> tuple[Preset, CorpusRecord, Split]:
    """Finds a preset's corpus and sizes the model by it; allocates nothing else, writes nothing.

    Args:
        preset: what to train, and how.
        corpus_source: see `load_corpus`.
        remat: whether it is to be trained in little memory.

    Raises:
        InputError: the corpus or the recipe cannot be used, or the training does not fit into
            the machine's memory.
    """
    # Once before a corpus is fetched, once with its own vocabulary.
    require_memory(preset, remat=remat)
    corpus = load_corpus(preset.data.dataset, corpus_source, preset.data.level)
    split = split_corpus(corpus.content, preset.data, Keys.from_seed(preset.train.seed).split)
    preset = override(preset, vocab_size=len(split.vocabulary))
    steps_in_epoch(preset, split.train)
    require_memory(preset, remat=remat)
    return preset, corpus.record, split


def fit_vocabulary(preset: Preset, corpus_source: str) -> Preset:
    """Returns the preset with the vocabulary size of a corpus; raises as `load_corpus` does."""
    dataset = preset.data.dataset
    corpus = load_corpus(dataset, corpus_source, preset.data.level)
    vocabulary = corpus_vocabulary(corpus.content, dataset)
    return override(preset, vocab_size=len(vocabulary))


def resume(
    folder: Path, corpus_source: str | None = None, expected: Mapping[str, Any] = _NOTHING
) -> tuple[Run, Split]:
    """Opens a run folder and finds its corpus again.

    Args:
        folder: of an earlier run.
        corpus_source: where the corpus is now, if it is not where it was.
        expected: fields of its preset that the caller takes it to have.

    Raises:
        InputError: the folder is no run, has other fields than expected, or the corpus is not
            the one it began with.
    """
    run = Run.open(folder)
    others = differences(run.preset.to_dict(), override(run.preset, **expected).to_dict())
    if others:
        raise InputError(
            f"{folder} cannot go on as another run than it began: {'; '.join(others)}; leave "
            "these flags out, or begin a new run"
        )
    known = run.corpus
    source = corpus_source or (BUILTIN if known.origin == "built-in" else known.path)
    corpus = load_corpus(run.preset.data.dataset, source, run.preset.data.level)
    found = corpus.record
    if known.sha256 not in (None, found.sha256):
        raise InputError(
            f"{folder} was begun on {known.name} (sha256 {known.sha256[:12]}…), found {found.name} "
            f"({str(found.sha256)[:12]}…): give the former by --corpus"
        )
    split = split_corpus(
        corpus.content, run.preset.data, Keys.from_seed(run.preset.train.seed).split
    )
    if split.vocabulary != run.vocabulary:
        raise InputError(
            f"{found.name} has other characters than {folder} was begun with: "
            f"{split.vocabulary.describe()}, expected {run.vocabulary.describe()}"
        )
    # A run made of imported weights has now found the text that it goes on with.
    return run if known.sha256 else run.with_corpus(found), split


def restore_model(run: Run, *, best: bool = False) -> GRULanguageModel:
    """Returns the model of a run's newest checkpoint, or of its best.

    Raises:
        InputError: the run has no such checkpoint, or none that can be read.
    """
    state = restore_state(run, best=best)
    with arithmetic(run.preset.train.dtype):
        return nnx.merge(Trainer(run.preset, steps_per_epoch=1).graph, state.params)


def restore_state(run: Run, *, best: bool = False) -> TrainState:
    """Returns the training state of a run's checkpoint; raises as `restore_model` does."""
    folder = run.best if best else run.checkpoints
    if not folder.is_dir():  # Opening it would make it.
        raise InputError(f"{folder} holds no checkpoint: train first")
    # The update rule's state has the same structure whatever the length of an epoch.
    trainer = Trainer(run.preset, steps_per_epoch=1)
    with arithmetic(run.preset.train.dtype), Checkpoints(folder) as checkpoints:
        state = read(run, checkpoints, jax.eval_shape(trainer.init, jax.random.key(0))).state
        return jax.tree.map(jnp.asarray, state)


def import_state(run: Run, state: TrainState) -> None:
    """Makes a training state from elsewhere the first checkpoint of a new run."""
    with arithmetic(run.preset.train.dtype), Saver(run, SavePolicy()) as saver:
        saver.save(int(state.step), Training(state, History()))
