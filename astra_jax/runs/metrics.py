"""What a training has told: a record for every epoch, and for the one that it is in."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from astra_jax.config import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics(Record):
    """One line of metrics.jsonl.

    Attributes:
        epoch: counted from 1.
        step: optimiser steps done since the beginning.
        learning_rate: mean over this epoch's steps.
        train_loss_nats: mean of the epoch's batch losses, dropout on.
        val_estimate_nats: the notebook's validation: of text, one random batch; of words, the
            mean of the batch means.
        val_loss_nats: mean over every character of the validation part, each counted once.
        grad_norm: mean global norm of the epoch's gradients, before clipping.
        chars_per_s: padded characters trained on, for each of `train_seconds`.
        train_seconds: time of the epoch's steps, the first epoch's compilation included.
        eval_seconds: time of both validations.
    """

    epoch: int
    step: int
    learning_rate: float
    train_loss_nats: float
    val_estimate_nats: float
    val_loss_nats: float
    grad_norm: float
    chars_per_s: float
    train_seconds: float
    eval_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread(Record):
    """What values of several runs are, taken together.

    Attributes:
        mean: of them.
        std: their sample standard deviation (n - 1); 0 for a single value.
        lowest: of them.
        highest: of them.
    """

    mean: float
    std: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Returns the spread of at least one value."""
        return cls(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if len(values) > 1 else 0.0,
            lowest=min(values),
            highest=max(values),
        )

    def describe(self) -> str:
        """Returns mean and standard deviation with four places; the one alone where all agree."""
        spread = f" ± {self.std:.4f}" if self.highest > self.lowest else ""
        return f"{self.mean:.4f}{spread}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSoFar(Record):
    """Sums over the steps done of an epoch.

    Attributes:
        steps: how many are done.
        loss_nats: sum of their losses.
        grad_norm: sum of the norms of their gradients.
        seconds: time that they took, interruptions left out.
    """

    steps: int = 0
    loss_nats: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0

    def add(self, loss_nats: np.ndarray, grad_norm: np.ndarray, seconds: float = 0.0) -> Self:
        """Returns the sums with further steps in them."""
        return type(self)(
            steps=self.steps + len(loss_nats),
            loss_nats=_add_in_order(self.loss_nats, loss_nats),
            grad_norm=_add_in_order(self.grad_norm, grad_norm),
            seconds=self.seconds + seconds,
        )


def _add_in_order(total: float, values: np.ndarray) -> float:
    # One after the other, unlike numpy's own sum: wherever an interruption cuts the steps in
    # two, the sum is the same to the last bit.
    return float(np.cumsum([total, *values], dtype=np.float64)[-1])


@dataclass(frozen=True, kw_only=True)
class History:
    """All that a training has told so far.

    Attributes:
        epochs: those that are done.
        current: the steps done since.
    """

    epochs: tuple[EpochMetrics, ...] = ()
    current: EpochSoFar = field(default_factory=EpochSoFar)

    def finish(self, epoch: EpochMetrics) -> Self:
        """Returns the history with the current epoch done."""
        return type(self)(epochs=(*self.epochs, epoch))

    def line(self, epoch: int) -> EpochMetrics:
        """Returns what an epoch told that has been finished here."""
        return next(line for line in self.epochs if line.epoch == epoch)

    @property
    def best(self) -> EpochMetrics | None:
        """The epoch of the lowest loss over the whole validation part, the first of several."""
        return min(self.epochs, key=lambda line: line.val_loss_nats, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Returns the history as a JSON-ready dictionary."""
        return {
            "epochs": [line.to_dict() for line in self.epochs],
            "current": self.current.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Builds the history from what `to_dict` returned; raises `InputError` as `Record` does."""
        lines = tuple(EpochMetrics.from_dict(line) for line in values["epochs"])
        return cls(epochs=lines, current=EpochSoFar.from_dict(values["current"]))
