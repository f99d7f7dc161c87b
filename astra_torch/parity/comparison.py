"""A comparison of two computations as a value."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from astra_torch.parity.quantities import Name, ParityDtype, Results
from astra_torch.tolerances import Norm

Drift = dict[str, list[float]]
"""For each quantity, the worst relative difference of its tensors, step by step."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One tensor of two computations.

    Attributes:
        name: which.
        step: of the training, counted from 1.
        max_abs: largest absolute difference; infinite where a value is not finite or the
            shapes differ.
        relative: norm of the difference over norm of the reference. Infinite where `max_abs` is,
            and where the reference is all zero, as the gradients of a dead network are.
        largest: `max_abs` over the reference's largest value, whatever the norm is.
        ulp: `max_abs` in units in the last place of the reference's largest value, in the type
            that was computed in.
        bound: on `relative`.
        size: number of values compared.
    """

    name: Name
    step: int
    max_abs: float
    relative: float
    largest: float
    ulp: float
    bound: float
    size: int

    @property
    def ok(self) -> bool:
        """Whether the two agree. A bound is infinite where the reference itself has failed."""
        return self.size > 0 and self.relative <= self.bound < math.inf

    @property
    def use(self) -> float:
        """The share of the bound that is used up; above 1 is out of bound."""
        if self.ok or 0.0 < self.bound < math.inf:
            return self.relative / (self.bound or 1.0)
        return math.inf

    def __str__(self) -> str:
        return (
            f"{self.name}, step {self.step}: off by {self.max_abs:.3g}, relative "
            f"{self.relative:.3g}, bound {self.bound:.3g}"
        )


def compare(
    ours: Results,
    reference: Results,
    bounds: Mapping[Name, float],
    *,
    norms: Mapping[str, Norm] = MappingProxyType({}),
    dtype: ParityDtype = "float64",
    step: int = 1,
) -> list[Comparison]:
    """Holds one computation against another.

    Args:
        ours: quantities by name.
        reference: the same by the other computation.
        bounds: the largest relative difference that each may have.
        norms: how the differences of a quantity are measured: by the largest where not given.
        dtype: the type that `ours` was computed in.
        step: of the training.

    Raises:
        ValueError: the two do not have the same quantities.
    """
    if set(ours) != set(reference):
        raise ValueError(f"only one side has {sorted(map(str, set(ours) ^ set(reference)))}")
    return [
        _compare(
            name,
            ours[name],
            reference[name],
            bounds[name],
            norms.get(name.quantity, "largest"),
            dtype,
            step,
        )
        for name in reference
    ]


def _compare(
    name: Name,
    ours: np.ndarray,
    reference: np.ndarray,
    bound: float,
    norm: Norm,
    dtype: ParityDtype,
    step: int,
) -> Comparison:
    max_abs = relative = largest = ulp = math.inf
    if ours.shape == reference.shape and ours.size:
        one, other = ours.astype(np.float64), reference.astype(np.float64)
        if np.isfinite(one).all() and np.isfinite(other).all():
            difference = one - other
            max_abs, scale = _norm(difference, "largest"), _norm(other, "largest")
            ulp = max_abs / float(np.spacing(np.dtype(dtype).type(scale)))
            if scale:
                relative = _norm(difference, norm) / _norm(other, norm)
                largest = max_abs / scale
            elif max_abs == bound == 0.0:  # Weights may be zero: they are moved, not computed.
                relative = largest = 0.0
    return Comparison(
        name=name,
        step=step,
        max_abs=max_abs,
        relative=relative,
        largest=largest,
        ulp=ulp,
        bound=bound,
        size=ours.size,
    )


def _norm(values: np.ndarray, norm: Norm) -> float:
    largest = float(np.abs(values).max())
    if norm == "largest" or largest == 0.0:
        return largest
    # Scaled, so that no square is too large or too small for a float64.
    return largest * math.sqrt(np.mean((values / largest) ** 2))


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """All comparisons of a case, over all its steps.

    Attributes:
        dtype: the type that the two were computed in.
        comparisons: the worst step of every tensor.
        num_steps: how many steps were compared.
        num_values: how many numbers were compared.
        largest: for each quantity, the worst difference of a single value at any step, over the
            largest value of its tensor; not bounded by itself where the norm is another.
        drift: how it came about.
        reference_drift: in float32 the same of PyTorch, against the same oracle; else empty.
        num_clipped: steps whose gradient the clip shortened, in PyTorch.
        num_rates: different learning rates among the steps.
        gaps: what keeps the comparison from saying anything: quantities not compared, weights or
            losses that did not move.
    """

    dtype: ParityDtype
    comparisons: tuple[Comparison, ...]
    num_steps: int
    num_values: int
    largest: Mapping[str, float]
    drift: Drift
    reference_drift: Drift
    num_clipped: int
    num_rates: int
    gaps: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all that should be was compared, and all of it agrees."""
        agreed = bool(self.comparisons) and all(one.ok for one in self.comparisons)
        return agreed and not self.gaps

    @property
    def worst(self) -> Comparison:
        """The comparison that uses up most of its bound."""
        return worst_of(self.comparisons)

    def by_quantity(self) -> dict[str, Comparison]:
        """Returns the worst tensor of each quantity."""
        groups: dict[str, list[Comparison]] = {}
        for one in self.comparisons:
            groups.setdefault(one.name.quantity, []).append(one)
        return {quantity: worst_of(group) for quantity, group in groups.items()}

    def describe(self) -> str:
        """Returns a line per fault, or else the worst that agrees."""
        faults = [*self.gaps, *(str(one) for one in self.comparisons if not one.ok)]
        return "\n".join(faults or [str(self.worst)])


def append_drift(drift: Drift, comparisons: Iterable[Comparison]) -> None:
    """Adds a step to a drift."""
    worst: dict[str, float] = {}
    for one in comparisons:
        worst[one.name.quantity] = max(worst.get(one.name.quantity, 0.0), one.relative)
    for quantity, relative in worst.items():
        drift.setdefault(quantity, []).append(relative)


def worst_of(comparisons: Iterable[Comparison]) -> Comparison:
    """Returns the comparison that uses up most of its bound, the larger difference of two such."""
    return max(comparisons, key=lambda one: (one.use, one.relative))
