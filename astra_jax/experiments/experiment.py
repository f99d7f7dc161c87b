"""What one command trains: a run, or runs of several seeds in one program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from astra_jax.config import Preset
from astra_jax.data.splits import Split
from astra_jax.experiments import lifecycle
from astra_jax.experiments.groups import Group, fit_group
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import Spread
from astra_jax.training.fitting import FitOptions, fit
from astra_jax.training.progress import Progress


@dataclass(frozen=True)
class Experiment:
    """A run or a group of runs, made ready to be trained.

    Attributes:
        training: which; both have a `folder`, `describe` themselves, and tell whether the text is
            the built-in one.
        splits: the data of each run.
    """

    training: Run | Group
    splits: Sequence[Split]

    @classmethod
    def begin(
        cls,
        preset: Preset,
        corpus_source: str | None,
        folder: Path | None,
        options: FitOptions,
        num_seeds: int | None = None,
    ) -> Self:
        """Makes a new folder; None for `num_seeds` is one run. See `lifecycle.begin`."""
        where = preset, corpus_source, folder
        if num_seeds is not None:
            return cls(*lifecycle.begin_group(*where, num_seeds, options))
        run, split = lifecycle.begin(*where, options)
        return cls(run, [split])

    @classmethod
    def resume(
        cls,
        folder: Path,
        corpus_source: str | None,
        expected: Mapping[str, Any],
        options: FitOptions,
    ) -> Self:
        """Opens the folder of an earlier one. See `lifecycle.resume`."""
        what = folder, corpus_source, expected, options
        if Group.is_at(folder):
            return cls(*lifecycle.resume_group(*what))
        run, split = lifecycle.resume(*what)
        return cls(run, [split])

    @property
    def runs(self) -> Sequence[Run]:
        """The run alone, or each of the group."""
        return self.training.runs if isinstance(self.training, Group) else (self.training,)

    def fit(self, progress: Progress, options: FitOptions) -> None:
        """Trains to the end. See `fitting.fit`, also for what may be raised."""
        if isinstance(self.training, Group):
            fit_group(self.training, self.splits, progress, options)
        else:
            fit(self.training, self.splits[0], progress, options)

    def outcome(self) -> str:
        """Returns the validation loss after the last epoch, as a phrase."""
        last = [metrics[-1].val_loss_nats for run in self.runs if (metrics := run.metrics())]
        if not last:
            return "nothing was left to train after the imported weights, so no loss is known"
        loss = f"validation loss {Spread.of(last).describe()} nats per character"
        return loss + (f", of {len(last)} seeds" if len(last) > 1 else "")
