"""The two frameworks in lockstep: every step computed by both, held against each other, let go."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from astra_torch import tolerances
from astra_torch.parity.cases import Case
from astra_torch.parity.comparison import (
    Comparison,
    Drift,
    ParityReport,
    append_drift,
    compare,
    worst_of,
)
from astra_torch.parity.jax_side import JaxSide
from astra_torch.parity.quantities import Level, Name, ParityDtype, Results, expected_names
from astra_torch.parity.torch_side import TorchSide
from astra_torch.tolerances import Norm

DTYPES: tuple[ParityDtype, ...] = ("float64", "float32")


def check(
    case: Case,
    level: Level,
    *,
    dtypes: Sequence[ParityDtype] = DTYPES,
    num_steps: int = 1,
    on_step: Callable[[int], None] = lambda _: None,
) -> dict[ParityDtype, ParityReport]:
    """Compares JAX with PyTorch at one level.

    In float64 JAX is held against PyTorch. In float32 both are held against PyTorch in float64,
    and JAX must come as close as PyTorch does: see `tolerances`.

    Args:
        case: the inputs.
        level: how deep to look.
        dtypes: the types to compare in.
        num_steps: of a training; the other levels look at one batch.
        on_step: is told the number of steps done, after each.
    """
    oracle = TorchSide(case, "float64")
    pairs = [_PAIRS[dtype](case, level) for dtype in dtypes]
    for step in range(num_steps):
        expected = getattr(oracle, level)(case.draw_twin(step))
        for pair in pairs:
            pair.compare(step, expected)
        on_step(step + 1)
    return {pair.dtype: pair.report(num_steps) for pair in pairs}


class _Pair:
    """JAX against PyTorch in one type, and what has come of it so far."""

    dtype: ParityDtype

    def __init__(self, case: Case, level: Level):
        self.case = case
        self.level: Level = level
        self.norms = tolerances.norms(self.dtype, level)
        self.jax_side = JaxSide(case, self.dtype)
        self.worst: dict[Name, Comparison] = {}
        self.largest: dict[str, float] = {}
        self.drift: Drift = {}
        self.reference_drift: Drift = {}
        self.losses: list[float] = []
        self.rates: set[float] = set()
        self.num_clipped = 0
        self.last: Results = {}
        self.num_values = 0

    def hold(self, step: int, expected: Results) -> tuple[Results, dict[Name, float]]:
        """Returns what JAX's results of a step are held against, and how closely."""
        raise NotImplementedError

    def compare(self, step: int, expected: Results) -> None:
        """Computes a step and holds it against the oracle's."""
        ours = getattr(self.jax_side, self.level)(self.case.draw(step))
        target, bounds = self.hold(step, expected)
        found = compare(ours, target, bounds, norms=self.norms, dtype=self.dtype, step=step + 1)
        for one in found:
            self.worst[one.name] = worst_of([self.worst.get(one.name, one), one])
            self.num_values += one.size
            quantity = one.name.quantity
            self.largest[quantity] = max(one.largest, self.largest.get(quantity, 0.0))
        append_drift(self.drift, found)
        self.losses.append(float(expected.get(Name("loss"), np.nan)))
        self.last = expected
        if self.level == "training":
            norm, clipped = (expected[Name(f"{kind}gradient norm")] for kind in ("", "clipped "))
            self.num_clipped += bool(clipped < norm)
            self.rates.add(float(expected[Name("learning rate")]))

    def report(self, num_steps: int) -> ParityReport:
        """Returns all comparisons so far."""
        return ParityReport(
            dtype=self.dtype,
            comparisons=tuple(self.worst.values()),
            num_steps=len(self.losses),
            num_values=self.num_values,
            largest=self.largest,
            drift=self.drift,
            reference_drift=self.reference_drift,
            num_clipped=self.num_clipped,
            num_rates=len(self.rates),
            gaps=tuple(self._gaps(num_steps)),
        )

    def _gaps(self, num_steps: int) -> list[str]:
        missing = set(expected_names(self.case.preset, self.level)) - set(self.worst)
        gaps = [f"not compared: {name}" for name in sorted(missing)]
        if len(self.losses) < num_steps or not num_steps:
            gaps.append(f"{len(self.losses)} of {num_steps} steps were compared")
        if self.level == "training" and self.losses:
            gaps += self._unmoved()
        return gaps

    def _unmoved(self) -> list[str]:
        """Says what a training left where it was, so that agreeing on it means nothing."""
        gaps = []
        if len(self.losses) < 2 or max(self.losses) == min(self.losses):
            gaps.append("the loss did not move: more than one step is needed")
        for name, before in self.case.twin_arrays.items():
            parameter = Name("parameter", name)
            after, bound = self.last[parameter], self.worst[parameter].bound
            moved = float(np.abs(after - before).max() / np.abs(after).max())
            if not moved > bound:
                gaps.append(f"{name} moved by {moved:.3g}, no more than its bound")
        return gaps


class _Float64(_Pair):
    dtype = "float64"

    def hold(self, step: int, expected: Results) -> tuple[Results, dict[Name, float]]:
        del step
        return expected, {name: tolerances.bound_float64(name.quantity) for name in expected}


class _Float32(_Pair):
    dtype = "float32"

    def __init__(self, case: Case, level: Level):
        super().__init__(case, level)
        self.torch_side = TorchSide(case, "float32")
        self.first_scatter = 0.0

    def hold(self, step: int, expected: Results) -> tuple[Results, dict[Name, float]]:
        reference = getattr(self.torch_side, self.level)(self.case.draw_twin(step))
        found = measure_float32(reference, expected, self.norms)
        append_drift(self.reference_drift, found)
        if self.level == "training" and step == 0:
            self.first_scatter = self._scatter_of_first_step(found, expected)
        worst = {quantity: max(errors) for quantity, errors in self.reference_drift.items()}
        if self.first_scatter:
            worst["parameter"] = max(worst["parameter"], self.first_scatter)
        bounds = float32_bounds(found, worst)
        rate = Name("learning rate")
        if rate in bounds:
            first = self.case.preset.train.learning_rate
            bounds[rate] = tolerances.float32_rate_bound(float(expected[rate]), first)
        # Weights are rounded to float32 on both sides, where they are not float32 already.
        exact = {name: reference[name] for name in expected if name.quantity in tolerances.EXACT}
        return expected | exact, bounds

    def _scatter_of_first_step(self, found: Sequence[Comparison], oracle: Results) -> float:
        """Returns what the typical error of PyTorch's gradients does to a parameter, at most."""
        return max(
            tolerances.adam_scatter(
                oracle[one.name],
                one.relative,
                oracle[Name("parameter", one.name.tensor)],
                self.case.preset.train.learning_rate,
            )
            for one in found
            if one.name.quantity == "first moment"
        )


def measure_float32(
    reference: Results, oracle: Results, norms: Mapping[str, Norm]
) -> list[Comparison]:
    """Returns how far PyTorch's float32 results are from the oracle, unbounded."""
    unbounded = dict.fromkeys(oracle, math.inf)
    return compare(reference, oracle, unbounded, norms=norms, dtype="float32")


def float32_bounds(
    reference: Sequence[Comparison], worst: Mapping[str, float]
) -> dict[Name, float]:
    """Returns what JAX's float32 results of a step are held to.

    Args:
        reference: how far PyTorch's are from the oracle.
        worst: the farthest of each quantity, in the steps up to this.
    """
    computed = [one for one in reference if one.name.quantity not in tolerances.EXACT]
    errors = [one.relative for one in computed]
    bounds = {one.name: 0.0 for one in reference}
    for one in computed:
        bounds[one.name] = tolerances.float32_bound(worst[one.name.quantity], errors)
    return bounds


_PAIRS: dict[ParityDtype, type[_Pair]] = {"float64": _Float64, "float32": _Float32}
