"""What a person sees while a model trains: a live bar on a terminal, plain lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from astra_jax.console import Console
from astra_jax.runs.metrics import EpochMetrics, Spread
from astra_jax.units import duration

LINE_SECONDS = 30.0
"""Shortest time between two plain lines about steps."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where training stands.

    Attributes:
        epoch: the current one, counted from 1, of `epochs`.
        epochs: how many there are in all.
        step: steps done in this epoch, of `steps`.
        steps: how many an epoch has.
        losses_nats: of the newest batch, of every run that is trained; None for one that waits.
        learning_rate: of the newest step.
        chars_per_s: padded characters trained on, a second, of late, by all runs.
        seconds_left: estimate until the last epoch's end.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    losses_nats: tuple[float | None, ...]
    learning_rate: float
    chars_per_s: float
    seconds_left: float

    @property
    def loss_nats(self) -> float:
        """The mean of the losses."""
        return statistics.fmean(loss for loss in self.losses_nats if loss is not None)

    def describe(self) -> str:
        """Returns the snapshot in one line."""
        return (
            f"epoch {self.epoch}/{self.epochs}  step {self.step}/{self.steps}  "
            f"loss {self.loss_nats:.4f}  lr {self.learning_rate:.2e}  "
            f"{self.chars_per_s:,.0f} chars/s  {duration(self.seconds_left)} left"
        )


class Progress(Protocol):
    """What a training reports to. Runs trained together are reported in one call."""

    def steps(self, snapshot: Snapshot) -> None:
        """Some more steps are done."""
        ...

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        """An epoch is done, evaluated and on disk: a line for every run."""
        ...


class Several:
    """Passes everything on to several."""

    def __init__(self, listeners: Sequence[Progress]):
        """Takes them in the order in which they are told."""
        self._listeners = tuple(listeners)

    def steps(self, snapshot: Snapshot) -> None:
        """Some more steps are done."""
        for listener in self._listeners:
            listener.steps(snapshot)

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        """An epoch is done, evaluated and on disk: a line for every run."""
        for listener in self._listeners:
            listener.epoch(lines)


class ConsoleProgress:
    """Writes to a console: live if it is a terminal, else a line now and then."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False):
        """Takes standard output unless a console is given; if quiet, says nothing there."""
        self._console = console or Console(
            file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet
        )
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,  # What is left of it would still tell of time that is left.
        )
        self._task = self._bar.add_task("compiling …", total=None)
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def steps(self, snapshot: Snapshot) -> None:
        """Moves the bar, or writes a line if the last one is long ago."""
        if self._console.is_terminal:
            self._bar.update(
                self._task,
                completed=snapshot.step,
                total=snapshot.steps,
                description=snapshot.describe(),
            )
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._print(snapshot.describe())

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        """Writes the epoch's line, above the bar if there is one; of several runs, their mean."""
        train, val, estimate = (
            Spread.of([getattr(line, name) for line in lines]).describe()
            for name in ("train_loss_nats", "val_loss_nats", "val_estimate_nats")
        )
        chars_per_s = sum(line.chars_per_s for line in lines)
        self._print(
            f"epoch {lines[0].epoch:3d}  train {train}  val {val}  (notebook's estimate "
            f"{estimate})  lr {lines[0].learning_rate:.2e}  {chars_per_s:,.0f} chars/s"
        )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)
        self._last_line = time.monotonic()
