"""The comparisons go red: every single fault is found at the level at which it must show."""

import dataclasses
import functools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from astra_jax.presets import override
from astra_torch.parity import JaxSide, Name, ParityReport, TorchSide, check, compare
from astra_torch.parity.quantities import LEVELS
from astra_torch.tolerances import norms
from parity_tests.faults import FAULTS, Fault, FaultLevel, Study
from parity_tests.kill_table import STEPS, compare_at, make_case

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


@pytest.mark.parametrize("study", ["astra", "names"])
@pytest.mark.parametrize("level", [*LEVELS, "texts", "onnx"])
def test_without_a_fault_all_agrees(study: Study, level: FaultLevel):
    assert not any(compare_at(level, study, dtypes=["float64"]).values())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch):
    fault.inject(monkeypatch)
    found = compare_at(fault.level, fault.study, dtypes=["float64"], new_data=fault.in_data)
    assert any(found.values())


def agrees(ours: np.ndarray, reference: np.ndarray, bound: float = 1.0) -> bool:
    name = Name("x")
    (one,) = compare({name: ours}, {name: reference}, {name: bound})
    return one.ok


def test_nothing_nan_or_dead_or_empty_counts_as_agreement():
    some, nan, infinite = np.ones(3), np.array([1.0, np.nan, 1.0]), np.array([1.0, np.inf, 1.0])
    assert agrees(some, some)
    assert not agrees(nan, nan)
    assert not agrees(infinite, infinite)
    assert not agrees(np.zeros(3), np.zeros(3))
    assert not agrees(some[:2], some)
    assert not agrees(some[:0], some[:0])
    assert not agrees(some, some, bound=np.inf)
    # Weights may be zero, if they are so on both sides to the bit.
    assert agrees(np.zeros(3), np.zeros(3), bound=0.0)
    assert not agrees(np.full(3, 1e-300), np.zeros(3), bound=0.0)


def test_both_float32_results_overflowing_is_no_agreement():
    case = make_case("astra")
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    arrays["fc.linear_projection.weight"][:] = 3e38
    huge = dataclasses.replace(case, arrays=arrays, twin_arrays=arrays)
    report = check(huge, "logits", dtypes=["float32"])["float32"]
    assert not report.ok
    assert any(not one.ok for one in report.comparisons if one.name == Name("logits"))


def test_a_quantity_that_one_side_lacks_is_an_error():
    some = np.ones(3)
    with pytest.raises(ValueError, match="only one side has"):
        compare({Name("x"): some}, {Name("y"): some}, {Name("y"): 1.0})


def report(**changes: Any) -> ParityReport:
    name = Name("x")
    found = compare({name: np.ones(3)}, {name: np.ones(3)}, {name: 1e-12})
    values = dict(dtype="float64", comparisons=tuple(found), num_steps=1, num_values=3, gaps=())
    values |= dict(num_clipped=0, num_rates=0, largest={})
    return ParityReport(**{**values, "drift": {}, "reference_drift": {}, **changes})


def test_a_report_with_nothing_in_it_or_a_gap_is_no_agreement():
    assert report().ok
    assert not report(comparisons=()).ok
    assert not report(gaps=("not compared: y",)).ok


def test_a_norm_is_that_of_its_quantity_and_the_largest_is_told_beside_it():
    names = Name("parameter", "x"), Name("loss")
    reference = dict.fromkeys(names, np.full(100, 2.0))
    ours = dict.fromkeys(names, np.array([2.0] * 99 + [3.0]))
    found = compare(ours, reference, dict.fromkeys(names, 0.1), norms=norms("float64", "training"))
    assert [one.relative for one in found] == pytest.approx([0.05, 0.5])
    assert [one.largest for one in found] == [0.5, 0.5]
    assert [one.ok for one in found] == [True, False]


def test_a_quantity_that_both_sides_lack_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    def without_loss(side, inputs, right):
        return {
            name: value for name, value in right(side, inputs).items() if name.quantity != "loss"
        }

    for side in (JaxSide, TorchSide):
        lacking = functools.partialmethod(without_loss, right=side.logits)
        monkeypatch.setattr(side, "logits", lacking)
    reports = check(make_case("astra"), "logits")
    for one in reports.values():
        assert not one.ok
        assert one.gaps == ("not compared: loss",)


@pytest.mark.parametrize(("steps", "gap"), [(0, "0 of 0 steps"), (1, "the loss did not move")])
def test_a_training_of_no_or_one_step_says_nothing(steps: int, gap: str):
    reports = check(make_case("astra"), "training", dtypes=["float64"], num_steps=steps)
    assert not reports["float64"].ok
    assert any(gap in line for line in reports["float64"].gaps)


def test_a_training_that_moves_nothing_says_nothing():
    case = make_case("astra")
    still = dataclasses.replace(case, preset=override(case.preset, learning_rate=1e-30))
    reports = check(still, "training", dtypes=["float64"], num_steps=2)
    assert any("embedding.weight moved by 0" in line for line in reports["float64"].gaps)


def test_the_clip_is_at_work_and_at_rest():
    # Were all gradients on one side of the limit, no comparison would say all of the clip.
    case = make_case("astra")
    side = TorchSide(case, "float64")
    norms = [side.training(case.draw_twin(step))[Name("gradient norm")] for step in range(STEPS)]
    assert case.preset.train.clip is not None
    assert min(norms) < case.preset.train.clip < max(norms)


def test_float32_bounds_are_not_met_by_results_of_fewer_bits():
    case = make_case("astra")
    inputs = case.draw(0)
    oracle = TorchSide(case, "float64").logits(inputs)
    computed = {name: value for name, value in oracle.items() if name.quantity != "weights"}
    coarse = {
        name: value.astype(ml_dtypes.bfloat16).astype(np.float32)
        for name, value in JaxSide(case, "float32").logits(inputs).items()
        if name in computed
    }
    exact = check(case, "logits", dtypes=["float32"])["float32"]
    bounds = {one.name: one.bound for one in exact.comparisons}
    assert not any(one.ok for one in compare(coarse, computed, bounds))
