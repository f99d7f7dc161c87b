"""Whether a published number could be one of ours."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri, stdtrit

from astra_jax.runs.metrics import EpochMetrics, Spread
from study.outcomes import Outcome

CONFIDENCE = 0.95
"""How often one further run of ours would be inside its interval."""

NORMAL = float(ndtri((1 + CONFIDENCE) / 2))
"""Half of the interval of a normal variable, in its standard deviations."""

Quantity = Literal["train", "validation"]
QUANTITIES: tuple[Quantity, ...] = ("train", "validation")
"""The columns of what was published: the mean loss of an epoch, the loss of one batch after it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A published number beside those of our runs; losses in nats.

    Attributes:
        epoch: after which both were taken.
        quantity: what they are.
        published: the number of the study's one run.
        ours: those of our runs.
        num_runs: how many these are.
        batch_std: how much the losses of single batches scatter around that of the whole part,
            where the quantity is the loss of one: a yardstick that needs one run only.
    """

    epoch: int
    quantity: Quantity
    published: float
    ours: Spread
    num_runs: int
    batch_std: float | None = None

    @property
    def difference(self) -> float:
        """The published number less our mean."""
        return self.published - self.ours.mean

    @property
    def half_width(self) -> float | None:
        """Half of the interval around our mean for one further run; None of a single run."""
        return half_width(self.num_runs) * self.ours.std if self.num_runs > 1 else None

    @property
    def is_inside(self) -> bool | None:
        """Whether the published number is inside the interval; None where there is none."""
        half = self.half_width
        return None if half is None else abs(self.difference) <= half

    @property
    def deviations(self) -> float | None:
        """The difference in standard deviations of our runs; None where they have none."""
        return self.difference / self.ours.std if self.num_runs > 1 and self.ours.std else None

    @property
    def batch_half_width(self) -> float | None:
        """Half of the interval that single batches alone would leave, runs being all alike.

        Normal, as `batch_std` is known from many batches: z · batch_std · sqrt(1 + 1/n).
        """
        if self.batch_std is None:
            return None
        return NORMAL * self.batch_std * math.sqrt(1 + 1 / self.num_runs)


def student(num_runs: int) -> float:
    """Returns half of the interval of a mean of at least two runs, in its standard errors."""
    return float(stdtrit(num_runs - 1, (1 + CONFIDENCE) / 2))


def half_width(num_runs: int) -> float:
    """Returns half of the interval for one further run, in standard deviations s of at least two.

    Student's t: mean ± t · s · sqrt(1 + 1/n), s with n - 1 degrees of freedom.
    """
    return student(num_runs) * math.sqrt(1 + 1 / num_runs)


def verdicts_of(outcome: Outcome) -> list[Verdict]:
    """Returns a verdict for each published number of a model whose epoch we have done.

    There is none unless model, recipe and corpus are the study's own.
    """
    published = outcome.published
    scatter = batch_std(outcome)
    return [
        _verdict(quantity, number, epoch, outcome.lines(epoch), scatter)
        for epoch in sorted(set(published) & set(outcome.epochs))
        for quantity, number in zip(QUANTITIES, published[epoch], strict=True)
        if number is not None
    ]


def batch_std(outcome: Outcome) -> float | None:
    """Returns how much the losses of single batches of the finished models scatter, in nats.

    The standard deviation, pooled over the runs. None where nothing is known of it, and of words,
    whose validation is not one batch.
    """
    found = outcome.evaluated("one_batch", "std")
    return math.sqrt(statistics.fmean(std**2 for std in found)) if found else None


def _verdict(
    quantity: Quantity,
    published: float,
    epoch: int,
    lines: Sequence[EpochMetrics],
    scatter: float | None,
) -> Verdict:
    train = quantity == "train"
    ours = [line.train_loss_nats if train else line.val_estimate_nats for line in lines]
    return Verdict(
        epoch=epoch,
        quantity=quantity,
        published=published,
        ours=Spread.of(ours),
        num_runs=len(lines),
        batch_std=None if train else scatter,
    )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Verdicts on one quantity of a model, taken together.

    Attributes:
        quantity: which.
        verdicts: at least one.
    """

    quantity: Quantity
    verdicts: tuple[Verdict, ...]

    @property
    def judged(self) -> int:
        """How many have an interval."""
        return sum(verdict.is_inside is not None for verdict in self.verdicts)

    @property
    def inside(self) -> int:
        """How many of these are inside."""
        return sum(verdict.is_inside is True for verdict in self.verdicts)

    @property
    def mean_difference(self) -> float:
        """In nats, published less ours, over all epochs."""
        return math.fsum(verdict.difference for verdict in self.verdicts) / len(self.verdicts)

    @property
    def farthest(self) -> Verdict:
        """The verdict of the largest difference in nats."""
        return max(self.verdicts, key=lambda verdict: abs(verdict.difference))


def tallies_of(verdicts: Sequence[Verdict]) -> list[Tally]:
    """Returns the verdicts of a model by their quantity."""
    tallies = []
    for quantity in QUANTITIES:
        found = tuple(verdict for verdict in verdicts if verdict.quantity == quantity)
        tallies += [Tally(quantity=quantity, verdicts=found)] if found else []
    return tallies
