"""How runs begin, and go on later."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from astra_jax.config import Preset, StrPath, differences
from astra_jax.data.corpus import BUILTIN, DATA_DIR_VARIABLE, CorpusRecord, load_corpus
from astra_jax.data.splits import Split, corpus_vocabulary, split_by_keys
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments.groups import Group, seeded
from astra_jax.machine import processes
from astra_jax.presets import override
from astra_jax.runs.folder import Run
from astra_jax.training.fitting import steps_in_epoch
from astra_jax.training.options import FitOptions
from astra_jax.training.sizing import require_memory
from astra_jax.training.trainer import Keys

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def builtin_warning(*, chosen: bool = False) -> str:
    """Returns what is to be known of losses on the built-in text, and how to have another.

    Args:
        chosen: whether that is the text that is meant, so that nobody wants another.
    """
    known = (
        "warning: the text is the project's built-in one, not a published corpus, so no loss here "
        "can be held against a published one"
    )
    if chosen:
        return known
    told = os.environ.get(DATA_DIR_VARIABLE)
    where = f"correct {DATA_DIR_VARIABLE}={told}" if told else f"set {DATA_DIR_VARIABLE}"
    return (
        f"{known}. For the real corpus connect to the network, {where} to its folder, or pass "
        "--corpus FILE"
    )


def begin(
    preset: Preset,
    corpus_source: StrPath | None = None,
    folder: StrPath | None = None,
    options: FitOptions | None = None,
) -> tuple[Run, Split]:
    """Makes a new run folder for a preset and a corpus, whose vocabulary sizes the model.

    Args:
        preset: what to train, and how.
        corpus_source: see `load_corpus`.
        folder: see `Run.create`.
        options: that it is to be trained with.

    Returns:
        The run, and its corpus as `fit` takes it. `Run.uses_builtin_text` tells whether the
        published text was out of reach.

    Raises:
        InputError: the corpus, the folder or the recipe cannot be used, or the training does not
            fit into the machine's memory.
    """
    with processes.all_or_none():
        if folder is None and jax.process_count() > 1:
            raise InputError("several processes must know one folder: give --out to each")
        (preset,), corpus, (split,) = prepare(preset, corpus_source, options)
    processes.require_same("recipe or corpus", (preset, corpus.sha256))
    run = None
    with processes.all_or_none():
        if processes.is_primary():
            run = Run.create(folder, preset, split.vocabulary, corpus)
    with processes.all_or_none():
        if run is None:
            assert folder is not None
            run = Run.open(folder)
    return run, split


def begin_group(
    preset: Preset,
    corpus_source: str | None,
    folder: Path | None,
    num_seeds: int,
    options: FitOptions | None = None,
) -> tuple[Group, list[Split]]:
    """Makes a new folder of runs that differ in their seed, from the preset's own on.

    Args:
        preset: see `begin`, and so the next; their corpus is the same, and shared.
        corpus_source: see `load_corpus`.
        folder: see `Group.create`.
        num_seeds: how many runs.
        options: that they are to be trained with.

    Raises:
        InputError: as `begin` and `prepare` do.
    """
    presets, corpus, splits = prepare(preset, corpus_source, options, num_seeds)
    return Group.create(folder, presets, splits[0].vocabulary, corpus), splits


class Prepared(NamedTuple):
    """All that is known of a training before anything is written.

    Attributes:
        presets: of its run, or of its runs, which differ in their seed alone.
        corpus: what their text is.
        splits: how each run divides it.
    """

    presets: list[Preset]
    corpus: CorpusRecord
    splits: list[Split]


def prepare(
    preset: Preset,
    corpus_source: StrPath | None,
    options: FitOptions | None = None,
    num_seeds: int | None = None,
) -> Prepared:
    """Finds a preset's corpus and sizes the model by it; writes nothing but the user's cache.

    Args:
        preset: what to train, and how.
        corpus_source: see `load_corpus`.
        options: that it is to be trained with.
        num_seeds: how many runs, from the preset's seed on; None is one run of that seed.

    Raises:
        InputError: the corpus, the recipe or the options cannot be used, the training does not
            fit into the machine's memory, so many seeds cannot be, or there are several processes
            for them.
    """
    presets, options = [preset], options or FitOptions()
    if num_seeds is not None:
        _require_one_process()
        presets = seeded(preset, num_seeds)
    # Once before a corpus is fetched, once with its own vocabulary.
    _require_room(preset, len(presets), options)
    corpus = load_corpus(preset.data.dataset, corpus_source, preset.data.level)
    keys = [Keys.from_seed(each.train.seed).split for each in presets]
    splits = split_by_keys(corpus.content, preset.data, keys)
    presets = [override(each, vocab_size=len(splits[0].vocabulary)) for each in presets]
    steps_in_epoch(preset, splits[0].train)
    _require_room(presets[0], len(presets), options)
    return Prepared(presets, corpus.record, splits)


def _require_one_process() -> None:
    if jax.process_count() > 1:
        raise InputError("runs of several seeds train in one process: leave out --coordinator")


def _require_room(
    preset: Preset, num_runs: int, options: FitOptions, *, begun: bool = False
) -> None:
    """Refuses a training that cannot fit into memory."""
    require_memory(options.memory(preset, num_runs), begun=begun, remat=options.remat)


def fit_vocabulary(preset: Preset, corpus_source: str | None) -> Preset:
    """Returns the preset with the vocabulary size of a corpus; raises as `load_corpus` does.

    No text needs to be read to know the characters of the studies', or all bytes.
    """
    dataset, level = preset.data.dataset, preset.data.level
    if corpus_source is None and level == "byte":
        return override(preset, vocab_size=len(Vocabulary.of_bytes()))
    if corpus_source is None:
        return preset
    corpus = load_corpus(dataset, corpus_source, level)
    vocabulary = corpus_vocabulary(corpus.content, dataset)
    return override(preset, vocab_size=len(vocabulary))


def resume(
    folder: StrPath,
    corpus_source: StrPath | None = None,
    expected: Mapping[str, Any] = _NOTHING,
    options: FitOptions | None = None,
) -> tuple[Run, Split]:
    """Opens a run folder and finds its corpus again.

    Args:
        folder: of an earlier run.
        corpus_source: where the corpus is now, if it is not where it was.
        expected: fields of its preset that the caller takes it to have.
        options: that it is to be trained with; None leaves open whether it fits into memory.

    Raises:
        InputError: the folder is no run, has other fields than expected, the corpus is not the
            one it began with, or the training does not fit into the machine's memory.
    """
    with processes.all_or_none():
        (run,), (split,) = _resume([Run.open(folder)], corpus_source, expected, options)
    processes.require_same("run", (run.preset, run.corpus.sha256))
    return run, split


def resume_group(
    folder: Path,
    corpus_source: str | None = None,
    expected: Mapping[str, Any] = _NOTHING,
    options: FitOptions | None = None,
) -> tuple[Group, list[Split]]:
    """Opens a folder of runs and finds their corpus again; as `resume`, of `begin_group`."""
    _require_one_process()
    group = Group.open(folder)
    runs, splits = _resume(group.runs, corpus_source, expected, options)
    return dataclasses.replace(group, runs=tuple(runs)), splits


def _resume(
    runs: Sequence[Run],
    corpus_source: StrPath | None,
    expected: Mapping[str, Any],
    options: FitOptions | None,
) -> tuple[list[Run], list[Split]]:
    """Does what `resume` does, for runs that differ in their seed."""
    first = runs[0]
    others = differences(first.preset.to_dict(), override(first.preset, **expected).to_dict())
    if others:
        raise InputError(
            f"{first.folder} cannot go on as another run than it began: {'; '.join(others)}; leave "
            "these flags out, or begin a new run"
        )
    if options is not None:
        _require_room(first.preset, len(runs), options, begun=True)
    record, splits = find_corpus(runs, corpus_source)
    # The text may have moved, and that of imported weights was not known.
    found = corpus_source is not None or first.corpus.sha256 is None
    return [run.with_corpus(record) if found else run for run in runs], splits


def find_corpus(
    runs: Sequence[Run], corpus_source: StrPath | None = None
) -> tuple[CorpusRecord, list[Split]]:
    """Finds the text that runs were begun on; writes nothing but the user's cache.

    Args:
        runs: at least one; several differ in their seed alone.
        corpus_source: where it is now, if it is not where it was.

    Returns:
        What it is, and how each run divides it.

    Raises:
        InputError: it is not there, or is not what the runs began with.
    """
    first = runs[0]
    known, data = first.corpus, first.preset.data
    source = corpus_source or (BUILTIN if known.origin == "built-in" else known.path)
    if not corpus_source and known.path is not None and not Path(known.path).exists():
        raise InputError(
            f"{first.folder} was begun on {known.path}, which is not there: give the text by "
            "--corpus FILE"
        )
    corpus = load_corpus(data.dataset, source, data.level)
    if known.sha256 is None and source is None and corpus.record.origin == "built-in":
        raise InputError(
            f"{first.folder} does not tell what text it was trained on, and the published one is "
            f"out of reach: give one by --corpus FILE, or the built-in one by --corpus {BUILTIN}"
        )
    for run in runs:
        _require_same_text(run, corpus.record)
    keys = [Keys.from_seed(run.preset.train.seed).split for run in runs]
    splits = split_by_keys(corpus.content, data, keys)
    for run in runs:
        if splits[0].vocabulary != run.vocabulary:
            raise InputError(
                f"{corpus.record.name} has other characters than {run.folder} was begun with: "
                f"{splits[0].vocabulary.describe()}, expected {run.vocabulary.describe()}"
            )
    return corpus.record, splits


def _require_same_text(run: Run, found: CorpusRecord) -> None:
    known = run.corpus
    if known.sha256 not in (None, found.sha256):
        raise InputError(
            f"{run.folder} was begun on {known.name} (sha256 {known.sha256[:12]}…), found "
            f"{found.name} ({str(found.sha256)[:12]}…): give the former by --corpus"
        )
