"""Training what is missing of a row, and writing down what has become of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from astra_jax.config import Preset
from astra_jax.data.corpus import DATA_DIR_VARIABLE, CorpusRecord, load_corpus
from astra_jax.data.splits import Split
from astra_jax.errors import TIME_IS_UP, InputError, StoppedError
from astra_jax.experiments import lifecycle
from astra_jax.experiments.samples import write_samples
from astra_jax.presets import FIELDS
from astra_jax.report.figures import draw_losses
from astra_jax.report.scorecards import trained_chars
from astra_jax.runs.checkpoints import Checkpoints
from astra_jax.runs.folder import CONFIG, SAMPLES, Run
from astra_jax.training.fitting import FitOptions, fit_together, steps_in_epoch
from astra_jax.training.progress import Progress
from astra_jax.training.saving import SavePolicy
from study import measures, records
from study.plan import Row, presets_of
from study.records import RunRecord

OPERATIONS_BETWEEN_SAVES = 2e13
"""FLOPs of matrix products between two checkpoints inside an epoch: a few minutes of a few
cores."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where the study works, and for how long.

    Attributes:
        runs: folder of the run folders.
        out: folder of the results.
        corpus: see `load_corpus`; None is the published one of each row.
        again: whether records that there are do not count.
        deadline: on the clock `time.monotonic`, when trainings are to stop; None is never.
        tell: is told in a line what goes on.
    """

    runs: Path
    out: Path
    corpus: str | None = None
    again: bool = False
    deadline: float | None = None
    tell: Callable[[str], None] = print

    @property
    def is_over(self) -> bool:
        """Whether there is no time left to train."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def folder(self, row: Row, seed: int) -> Path:
        """Returns the run folder of one seed of a row."""
        return self.runs / row.stem / f"seed-{seed}"

    def known(self, row: Row, preset: Preset) -> RunRecord | None:
        """Returns the record that counts of a run, if there is one; raises as `records.find`."""
        return None if self.again else records.find(self.out, row, preset)


def advance(row: Row, work: Work, progress: Progress) -> None:
    """Trains what is missing of a row, as far as there is time, and records where it stands.

    Raises:
        StoppedError: a signal came; what was trained is saved.
        InputError: a folder or record cannot be used, or is of something else; and as
            `fitting.fit` does, like the other errors.
    """
    presets = presets_of(row)
    known = [work.known(row, preset) for preset in presets]
    missing = [
        preset
        for preset, record in zip(presets, known, strict=True)
        if not _is_done(record, work.folder(row, preset.train.seed))
    ]
    if work.is_over:  # What is there may have been trained by a call that was ended before this.
        missing = [each for each in missing if _has_begun(work.folder(row, each.train.seed))]
    if not missing:
        return
    runs, splits = _open(row, missing, work)
    _require_one_corpus(runs[0], [record for record in known if record])
    together = _train(runs, splits, work, progress)
    # All are written down before any is measured, which may take minutes: after an interruption
    # nothing else would tell how many were trained together.
    standing = [
        _write_down(row, run, split, together, work)
        for run, split in zip(runs, splits, strict=True)
    ]
    for run, split, record in zip(runs, splits, standing, strict=True):
        if record is not None and not record.is_measured:
            _measure(run, split, record, work)


def _is_done(record: RunRecord | None, folder: Path) -> bool:
    """Whether nothing is to be done for a record; what has no run folder cannot be measured."""
    if record is None or not record.is_complete:
        return False
    return record.is_measured or not _has_begun(folder)


def _has_begun(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _open(row: Row, presets: Sequence[Preset], work: Work) -> tuple[list[Run], list[Split]]:
    """Begins or goes on with a run for each preset."""
    require_no_fallback(load_corpus(row.dataset, work.corpus).record, work.corpus)
    opened = []
    for preset in presets:
        folder = work.folder(row, preset.train.seed)
        if _has_begun(folder):
            opened.append(lifecycle.resume(folder, work.corpus, fields_of(preset)))
        else:
            opened.append(lifecycle.begin(preset, work.corpus, folder))
    runs, splits = zip(*opened, strict=True)
    return list(runs), list(splits)


def require_no_fallback(found: CorpusRecord, source: str | None) -> None:
    """Refuses the built-in text where nobody asked for it: results are held against published ones.

    Args:
        found: what `load_corpus` has found.
        source: what it was told.

    Raises:
        InputError: it has found none of the published corpora.
    """
    if found.origin == "built-in" and source is None:
        raise InputError(
            "the study needs the published corpora: connect to the network, set "
            f"{DATA_DIR_VARIABLE} to their folder, or pass --corpus FILE"
        )


def fields_of(preset: Preset) -> dict[str, object]:
    """Returns all that a run must agree with its preset in; the vocabulary is the corpus's."""
    parts = (preset.model, preset.data, preset.train)
    values = {name: value for part in parts for name, value in part.to_dict().items()}
    return {name: values[name] for name in FIELDS if name != "vocab_size"}


def _require_one_corpus(run: Run, known: Sequence[RunRecord]) -> None:
    for record in known:
        if record.corpus.sha256 != run.corpus.sha256:
            raise InputError(
                f"{record.file_name} is of {record.corpus.name}, and {run.folder} of "
                f"{run.corpus.name}: give the former by --corpus, or another folder by --out"
            )


def _train(runs: list[Run], splits: list[Split], work: Work, progress: Progress) -> int:
    """Trains in one program those that are not at their end; returns how many they are.

    Where all are, and no record says how many there were, they count as trained together.
    """
    pairs = zip(runs, splits, strict=True)
    left = [(run, split) for run, split in pairs if len(run.metrics()) < run.preset.train.epochs]
    if not left or work.is_over:
        return len(left) or len(runs)
    runs, splits = map(list, zip(*left, strict=True))
    seeds = ", ".join(str(run.preset.train.seed) for run in runs)
    work.tell(f"{runs[0].describe()}; seeds {seeds}")
    saving = SavePolicy(checkpoint_every=_save_every(runs[0].preset))
    options = FitOptions(saving=saving, deadline=work.deadline)
    try:
        fit_together(runs, splits, progress, options)
    except StoppedError as stop:
        if stop.number != TIME_IS_UP:
            raise
        work.tell(str(stop))
    return len(runs)


def _save_every(preset: Preset) -> int | None:
    """Returns the steps between two checkpoints inside an epoch; None is none there."""
    if jax.devices()[0].platform != "cpu":
        return None  # An accelerator's epochs are short.
    chars = preset.data.batch_size * preset.data.seq_len
    # Forward and backward, six operations for each parameter and character, or nearly so.
    return max(1, round(OPERATIONS_BETWEEN_SAVES / (6 * preset.model.num_parameters * chars)))


def _write_down(row: Row, run: Run, split: Split, together: int, work: Work) -> RunRecord | None:
    """Writes down where a run stands; returns the record, if it is one to be kept."""
    before = records.read_if_any(work.out, row, run.preset.train.seed)
    record = _standing(row, run, split, before, together)
    if record is None:
        return None
    if before is not None and before.stands_where(record) and not work.again:
        measured = before.evaluation, before.samplers
        record = replace(record, evaluation=measured[0], samplers=measured[1])
    return record if records.keep(work.out, record) else None


def _measure(run: Run, split: Split, record: RunRecord, work: Work) -> None:
    """Writes down what a run's model comes to where it stands."""
    work.tell(f"{run.preset.title}, seed {record.seed}: what the model comes to, and its texts")
    record = replace(
        record,
        evaluation=record.evaluation or measures.evaluate(run, split),
        samplers=record.samplers or measures.compare_samplers(run, split),
    )
    records.keep(work.out, record)
    if record.is_complete and not (run.folder / SAMPLES).exists():
        write_samples(run)
        draw_losses(run)


def _standing(
    row: Row, run: Run, split: Split, before: RunRecord | None, together: int
) -> RunRecord | None:
    """Returns how far a run is; None where it has no steps behind it."""
    with Checkpoints(run.checkpoints) as checkpoints:  # It may be training.
        steps_done = checkpoints.latest_step
    if not steps_done:
        return None
    epochs, steps = tuple(run.metrics()), steps_in_epoch(run.preset, split.train)
    return RunRecord(
        recipe=row.recipe,
        preset=run.preset,
        corpus=records.without_path(run.corpus),
        environment=run.environment,
        epochs=epochs,
        runs_together=records.continued(before, epochs, together),
        steps_done=steps_done,
        steps_planned=steps * run.preset.train.epochs,
        training_chars=trained_chars(run.preset, split, steps_done),
    )
