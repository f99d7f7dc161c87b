"""A folder of runs that differ in their seed alone, and what they come to together.

group.json        the seeds
seed-0/ …         a run folder each, as a single run of that seed would have left it
summary.json      mean, deviation, lowest and highest of their losses, after every epoch
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from astra_jax.config import Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.splits import Split
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.presets import override
from astra_jax.runs.folder import GROUP, Run, claim_folder
from astra_jax.runs.metrics import EpochMetrics, Spread
from astra_jax.storage import strict_json
from astra_jax.storage.atomic import write_text
from astra_jax.training.fitting import FitOptions, fit_together
from astra_jax.training.progress import Progress, Several, Snapshot

FORMAT = 1
SUMMARY = "summary.json"

MAX_SEEDS = 1024
"""Of a group: a stranger's file may ask for more folders than there can be."""

_SUMMED_UP = ("train_loss_nats", "val_estimate_nats", "val_loss_nats", "grad_norm")


def seeded(preset: Preset, num_seeds: int) -> list[Preset]:
    """Returns a preset with its own seed and those that follow it.

    Raises:
        InputError: they are too few or too many, or the last seed is too large.
    """
    if not 2 <= num_seeds <= MAX_SEEDS:
        raise InputError(
            f"--seeds must be from 2 to {MAX_SEEDS}, got {num_seeds}: one run has its --seed"
        )
    return [override(preset, seed=preset.train.seed + number) for number in range(num_seeds)]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A folder on disk and the runs in it.

    Attributes:
        folder: where it is.
        runs: at least two, by their seeds.
    """

    folder: Path
    runs: tuple[Run, ...]

    @classmethod
    def create(
        cls,
        folder: Path | None,
        presets: Sequence[Preset],
        vocabulary: Vocabulary,
        corpus: CorpusRecord,
    ) -> Self:
        """Makes a new folder with a run folder for each preset.

        Args:
            folder: where; None is the next free `runs/<dataset>-<model>-seeds-<number>`.
            presets: as `seeded` returns them.
            vocabulary: of their corpus.
            corpus: what it is.

        Raises:
            InputError: a folder cannot be made, or holds something already.
        """
        first = presets[0]
        folder = claim_folder(folder, f"{first.data.dataset}-{first.name}-seeds")
        seeds = [preset.train.seed for preset in presets]
        text = json.dumps({"format": FORMAT, "seeds": seeds}) + "\n"
        try:
            write_text(folder / GROUP, text, overwrite=False)
        except FileExistsError:
            raise InputError(f"{folder} has just been taken by another run") from None
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror}") from error
        try:
            runs = tuple(
                Run.create(_folder_of(folder, seed), preset, vocabulary, corpus)
                for seed, preset in zip(seeds, presets, strict=True)
            )
        except BaseException:  # Without all of its runs it could be neither begun nor opened.
            for seed in seeds:
                shutil.rmtree(_folder_of(folder, seed), ignore_errors=True)
            (folder / GROUP).unlink()
            raise
        return cls(folder=folder, runs=runs)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads an existing folder.

        Raises:
            InputError: it is no folder of runs, or one of them is damaged or of another recipe.
        """
        seeds = _seeds(folder / GROUP)
        runs = tuple(Run.open(_folder_of(folder, seed)) for seed in seeds)
        for run, seed in zip(runs, seeds, strict=True):
            if run.preset != override(runs[0].preset, seed=seed):
                raise InputError(
                    f"{run.folder} is not of the recipe of {runs[0].folder} with seed {seed}: put "
                    "back what was there, or train it alone"
                )
        return cls(folder=folder, runs=runs)

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder is one of runs."""
        return (folder / GROUP).is_file()

    @property
    def uses_builtin_text(self) -> bool:
        """Whether the project's own text was trained on."""
        return self.runs[0].uses_builtin_text

    def describe(self) -> str:
        """Returns in one line what is trained on what."""
        first, last = (self.runs[place].preset.train.seed for place in (0, -1))
        return f"{self.runs[0].describe()}, seeds {first} to {last}"

    def summary(self) -> dict[str, Any]:
        """Returns what the runs come to together, JSON-ready, in the epochs that all have done.

        Raises:
            InputError: a run's metrics are damaged.
        """
        together = list(zip(*(run.metrics() for run in self.runs), strict=False))
        summary = {
            "format": FORMAT,
            "seeds": [run.preset.train.seed for run in self.runs],
            "epochs": [_sum_up(lines) for lines in together],
        }
        if together:
            best = [min(values) for values in zip(*map(_val_losses, together), strict=True)]
            summary["best_val_loss_nats"] = Spread.of(best).to_dict()
        return summary

    def write_summary(self) -> None:
        """Writes the summary into its file."""
        write_text(self.folder / SUMMARY, json.dumps(self.summary(), indent=1) + "\n")


def runs_at(folder: Path) -> tuple[Run, ...]:
    """Returns the run of a run folder, or those of a folder of runs.

    Raises:
        InputError: it is neither, or is damaged.
    """
    return Group.open(folder).runs if Group.is_at(folder) else (Run.open(folder),)


def fit_group(
    group: Group,
    splits: Sequence[Split],
    progress: Progress,
    options: FitOptions | None = None,
) -> None:
    """Trains a group's runs by one program, and sums up what they come to after every epoch.

    Args:
        group: what to train.
        splits: the data of each run, from `splits.split_by_keys`.
        progress: is told of all of them.
        options: see `fitting.fit`, and for what may be raised.
    """
    fit_together(group.runs, splits, Several([_SummaryProgress(group), progress]), options)
    group.write_summary()  # It may have been lost, and no epoch may have been left to do.


class _SummaryProgress:
    """Keeps a group's summary up to date."""

    def __init__(self, group: Group):
        self._group = group

    def steps(self, snapshot: Snapshot) -> None:
        """Steps are not summed up."""

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        """Writes the summary anew."""
        del lines
        self._group.write_summary()


def _folder_of(group: Path, seed: int) -> Path:
    return group / f"seed-{seed}"


def _sum_up(lines: Sequence[EpochMetrics]) -> dict[str, Any]:
    """Returns an epoch of several runs as one."""
    first = lines[0]
    known = {"epoch": first.epoch, "step": first.step, "learning_rate": first.learning_rate}
    spreads = {name: [getattr(line, name) for line in lines] for name in _SUMMED_UP}
    return known | {name: Spread.of(values).to_dict() for name, values in spreads.items()}


def _val_losses(lines: Sequence[EpochMetrics]) -> list[float]:
    return [line.val_loss_nats for line in lines]


def _seeds(path: Path) -> list[int]:
    """Reads the seeds of a group; raises `InputError` where they cannot be."""
    config = strict_json.read(path)
    seeds = config.get("seeds") if isinstance(config, dict) else None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not of format {FORMAT}, which this version reads")
    if not isinstance(seeds, list) or not 2 <= len(seeds) <= MAX_SEEDS:
        raise InputError(f"{path}: seeds must be a list of 2 to {MAX_SEEDS} whole numbers")
    if any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"{path}: seeds must be different whole numbers, got {seeds}")
    return seeds
