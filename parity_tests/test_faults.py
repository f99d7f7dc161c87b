"""The comparison goes red: single faults, each put into the JAX side, each found in float32 too."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from astra_jax import gru as gru_package
from astra_jax import losses, model, optimizers, training
from astra_jax.gru import scan
from astra_jax.presets import PRESETS, override
from astra_torch import parity
from astra_torch.parity import Case, check_float32, check_float64, compare, random_case

SMALL = dict(embedding_dim=9, hidden_dim=12)
NAMES = random_case(override(PRESETS["names", "gamma"], **SMALL), num_steps=12)
ASTRA = random_case(
    override(PRESETS["shakespeare", "beta"], epochs=4, clip=0.05, **SMALL),
    num_steps=12,
    steps_per_epoch=3,
)

Patch = pytest.MonkeyPatch


def _gru_of(change: Callable) -> Callable[[Patch], None]:
    """A fault in what a layer is given, or gives back."""

    def inject(patch: Patch) -> None:
        def faulty(weights, inputs, h_0, keep, dropout, dtype):
            arguments = dict(
                weights=weights, inputs=inputs, h_0=h_0, keep=keep, dropout=dropout, dtype=dtype
            )
            return scan.scan_gru(**{**arguments, **change(arguments)})

        patch.setitem(gru_package.BACKENDS, "scan", faulty)

    return inject


def _swap_gates(a):
    swapped = jnp.array([1, 0, 2])
    return {"weights": a["weights"]._replace(kernel_hh=a["weights"].kernel_hh[swapped])}


def _transpose(a):
    return {"weights": a["weights"]._replace(kernel_hh=a["weights"].kernel_hh.swapaxes(1, 2))}


def _drop_bias(a):
    return {"weights": a["weights"]._replace(bias_hh=jnp.zeros_like(a["weights"].bias_hh))}


def _no_dropout_scale(a):
    return {"dropout": 0.0}


def _no_dropout(a):
    return {"keep": None}


def _nonzero_start(a):
    return {"h_0": a["h_0"] + 1e-4}


def _ignore_counts(patch: Patch) -> None:
    def mean_of_all(logits, targets):
        total, _ = losses.cross_entropy_sum(logits, targets)
        return total / targets.size

    patch.setattr(training, "cross_entropy", mean_of_all)


def _clip_epsilon_gone(patch: Patch) -> None:
    patch.setattr(optimizers, "clip_by_global_norm", optax.clip_by_global_norm)


def _epsilon_inside_root(patch: Patch) -> None:
    patch.setattr(optimizers, "scale_by_adam", lambda: optax.scale_by_adam(eps=0.0, eps_root=1e-8))


def _no_bias_correction(patch: Patch) -> None:
    patch.setattr(optimizers, "math", type("Fault", (), {"log": staticmethod(lambda _: -50.0)}))


def _decay_gone(patch: Patch) -> None:
    patch.setattr(optax, "add_decayed_weights", lambda _: optax.identity())


def _schedule_off_by_one(patch: Patch) -> None:
    right = optimizers.learning_rate_schedule

    def late(config, steps):
        return lambda step: right(config, steps)(jnp.asarray(step) + 1)

    patch.setattr(optimizers, "learning_rate_schedule", late)


def _fast_variance_epsilon(patch: Patch) -> None:
    patch.setattr(model, "LAYER_NORM_EPSILON", 1e-6)


MODEL_FAULTS = {
    "r and z swapped": (ASTRA, _gru_of(_swap_gates)),
    "square kernel transposed": (ASTRA, _gru_of(_transpose)),
    "second bias dropped": (ASTRA, _gru_of(_drop_bias)),
    "dropout not scaled": (ASTRA, _gru_of(_no_dropout_scale)),
    "dropout missing": (ASTRA, _gru_of(_no_dropout)),
    "first state not zero": (ASTRA, _gru_of(_nonzero_start)),
    "ignored targets counted": (NAMES, _ignore_counts),
    "epsilon of LayerNorm": (NAMES, _fast_variance_epsilon),
}
TRAINING_FAULTS = {
    "no epsilon in the clip": (ASTRA, _clip_epsilon_gone),
    "epsilon inside the root": (NAMES, _epsilon_inside_root),
    "no bias correction": (NAMES, _no_bias_correction),
    "no decay": (NAMES, _decay_gone),
    "schedule one step late": (ASTRA, _schedule_off_by_one),
}


@pytest.fixture(autouse=True)
def _compiled_programs_are_forgotten():
    # Equal trainers share their programs: a fault must neither miss one nor stay in one.
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("case", [ASTRA, NAMES], ids=["astra", "names"])
@pytest.mark.parametrize("level", ["model", "training"])
def test_without_a_fault_all_agrees(case: Case, level: parity.Level):
    for report in (check_float64(case, level), check_float32(case, level)):
        assert report.ok, report.describe()


@pytest.mark.parametrize(("case", "inject"), MODEL_FAULTS.values(), ids=MODEL_FAULTS.keys())
def test_a_fault_in_the_model_is_found(case: Case, inject, monkeypatch: Patch):
    inject(monkeypatch)
    assert not check_float64(case, "model").ok
    assert not check_float32(case, "model").ok


@pytest.mark.parametrize(("case", "inject"), TRAINING_FAULTS.values(), ids=TRAINING_FAULTS.keys())
def test_a_fault_in_the_update_is_found(case: Case, inject, monkeypatch: Patch):
    inject(monkeypatch)
    assert not check_float64(case, "training").ok


def test_nothing_nan_or_dead_counts_as_agreement():
    def bound(_: str) -> float:
        return 1.0

    some, nan, dead = np.ones(3), np.array([1.0, np.nan, 1.0]), np.zeros(3)
    assert compare({"x": some}, {"x": some}, bound).ok
    assert not compare({"x": nan}, {"x": nan}, bound).ok
    assert not compare({"x": dead}, {"x": dead}, bound).ok
    assert not compare({"x": some[:2]}, {"x": some}, bound).ok
    assert not compare({}, {}, bound).ok
    with pytest.raises(ValueError, match="only one side has"):
        compare({"x": some}, {"y": some}, bound)


def test_a_bound_is_not_met_by_a_result_as_far_off_as_a_lost_bit():
    # The float32 bound must be tight: results rounded to 16 bits fewer fail it.
    case = dataclasses.replace(ASTRA)
    coarse = parity.jax_results(case, "model", "float32")
    coarse = {name: value.astype(jnp.bfloat16).astype(np.float32) for name, value in coarse.items()}
    oracle = parity.torch_results(case, "model", "float64")
    exact = check_float32(case, "model")
    bounds = {one.quantity: one.bound for one in exact.comparisons}
    report = compare(coarse, oracle, bounds.__getitem__)
    assert not any(one.ok for one in report.comparisons)
