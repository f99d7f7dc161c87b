"""The course of the study: row by row what is missing is trained, measured and written down."""

from collections.abc import Sequence
from pathlib import Path

from astra_jax.config import Preset
from astra_jax.runs.folder import METRICS, Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.training.progress import Progress
from astra_jax.units import duration
from study.page import write_page
from study.plan import Row, presets_of
from study.search import Search, conduct_search, is_known, read_trials
from study.search_log import write_log
from study.trainings import Work, advance


def conduct(
    rows: Sequence[Row], work: Work, progress: Progress, searches: Sequence[Search] = ()
) -> list[Path]:
    """Brings rows and searches as far as there is time for, and writes the pages.

    Returns:
        The files of the pages.

    Raises:
        StoppedError: a signal came; the next call goes on.
        InputError: as `trainings.advance` does, like the other errors.
    """
    for row in rows:
        advance(row, work, progress)
    for search in searches:
        conduct_search(search, work, progress)
    return [*write_log(work.out), *write_page(work.out)]


def outlook(rows: Sequence[Row], work: Work, searches: Sequence[Search] = ()) -> str:
    """Returns a line for each search and row: what is done, and how long a row's rest may take.

    Raises:
        InputError: a record or a run folder is damaged, or of another recipe.
    """
    lines = [(f"search {search.name}", _trials_done(search, work)) for search in searches]
    lines += [(row.name, _outlook(row, work)) for row in rows]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:{width}} {line}" for name, line in lines)


def _trials_done(search: Search, work: Work) -> str:
    known = read_trials(work.out, search)
    done = sum(is_known(search, trial, known) for trial in search.trials)
    return f"{done} of {len(search.trials)} trials done, of {search.epochs} epochs each"


def _outlook(row: Row, work: Work) -> str:
    presets = presets_of(row)
    done = [_epochs_done(row, preset, work) for preset in presets]
    planned = presets[0].train.epochs
    whole = sum(count == planned for count, _ in done)
    line = (
        f"{presets[0].title}, {row.recipe}: {whole} of {row.seeds} seeds done, "
        f"{sum(count for count, _ in done)} of {row.seeds * planned} epochs"
    )
    left = row.seeds * planned - sum(count for count, _ in done)
    seconds = [value for _, values in done for value in values]
    if not left:
        return line
    if not seconds:
        return f"{line}; how long an epoch takes is not known yet"
    return f"{line}; about {duration(left * sum(seconds) / len(seconds))} left"


def _epochs_done(row: Row, preset: Preset, work: Work) -> tuple[int, list[float]]:
    """Returns how many epochs a run has done, and the seconds of those whose time is known."""
    record = work.known(row, preset)
    folder = work.folder(row, preset.train.seed)
    lines: list[EpochMetrics] = []
    if (folder / METRICS).is_file():
        lines = Run.open(folder).metrics()
    if record is not None and len(record.epochs) >= len(lines):
        shares = zip(record.epochs, record.runs_together, strict=True)
        return len(record.epochs), [_seconds(line) / number for line, number in shares]
    # Where no record says it, all runs of the row are taken to train together.
    return len(lines), [_seconds(line) / row.seeds for line in lines]


def _seconds(line: EpochMetrics) -> float:
    return line.train_seconds + line.eval_seconds
