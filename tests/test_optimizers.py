"""Torch's rules where optax's own differ. That whole trainings agree, parity_tests show."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from astra_jax.optimizers import (
    clip_by_global_norm,
    learning_rate_schedule,
    make_optimizer,
    scale_by_adam,
)
from astra_jax.presets import PRESETS, override
from astra_jax.training.trainer import Trainer


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_clip_is_torchs_rule(scale: float):
    grads = {"a": jnp.array([3.0, 0.0]) * scale, "b": jnp.array([[4.0]]) * scale}
    clip = clip_by_global_norm(1.0)
    clipped: Any = clip.update(grads, clip.init(grads))[0]
    factor = min(1.0, 1.0 / (5.0 * scale + 1e-6))
    for name, values in grads.items():
        np.testing.assert_allclose(clipped[name], values * factor, rtol=2e-7)


def test_cosine_falls_once_an_epoch():
    preset = override(PRESETS["shakespeare", "alpha"], epochs=4, learning_rate=8e-3)
    rate = learning_rate_schedule(preset.train, steps_per_epoch=3)
    by_epoch = [8e-3, 8e-3 * (1 + np.sqrt(0.5)) / 2, 4e-3, 8e-3 * (1 - np.sqrt(0.5)) / 2]
    rates = [float(rate(step)) for step in range(12)]
    np.testing.assert_allclose(rates, np.repeat(by_epoch, 3), rtol=1e-6)
    constant = learning_rate_schedule(PRESETS["names", "alpha"].train, 401)
    assert float(constant(10**6)) == np.float32(1e-3)


def test_a_warmup_rises_to_a_cosine_that_falls_at_every_step():
    fields = dict(epochs=4, learning_rate=8e-3, schedule="cosine-by-step", warmup_steps=4)
    rate = learning_rate_schedule(override(PRESETS["shakespeare", "alpha"], **fields).train, 3)
    rates = [float(rate(step)) for step in range(13)]
    half_wave = [8e-3 * (1 + np.cos(np.pi * step / 8)) / 2 for step in range(9)]
    np.testing.assert_allclose(rates, [2e-3, 4e-3, 6e-3, 8e-3, *half_wave], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "cosine-by-step"])
@pytest.mark.parametrize("warmup_steps", [0, 4])
def test_rates_of_float32_are_the_same_where_float64_is_on(schedule: str, warmup_steps: int):
    fields = dict(epochs=7, learning_rate=3e-3, schedule=schedule, warmup_steps=warmup_steps)
    config = override(PRESETS["shakespeare", "alpha"], **fields).train
    rates = []
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            rates.append(np.asarray(jax.vmap(learning_rate_schedule(config, 5))(jnp.arange(35))))
    assert rates[0].dtype == rates[1].dtype == np.float32
    assert rates[0].tobytes() == rates[1].tobytes()


def test_adam_in_float32_is_as_near_to_float64_as_rounding_allows():
    # optax's own bias correction is off by 1.3e-5 at the first step; this one must not be.
    gradient = np.array([0.3, -2.0, 1e-3])

    def first_update(rule: optax.GradientTransformation) -> np.ndarray:
        grads = {"w": jnp.asarray(gradient)}
        updates: Any = rule.update(grads, rule.init(grads))[0]
        return np.asarray(updates["w"], np.float64)

    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        optaxs = first_update(optax.scale_by_adam())
        with jax.enable_x64(True):
            exact = first_update(optax.scale_by_adam())
    assert np.abs(first_update(scale_by_adam()) - exact).max() < 3e-7
    assert np.abs(optaxs - exact).max() > 1e-6


def test_decay_falls_on_every_parameter_and_is_decoupled():
    preset = PRESETS["shakespeare", "alpha"]
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([-3.0])}
    zero_grads = jax.tree.map(jnp.zeros_like, params)
    rule = make_optimizer(preset.train, steps_per_epoch=1)
    updates: Any = rule.update(zero_grads, rule.init(params), params)[0]
    for name, values in params.items():
        np.testing.assert_allclose(updates[name], -3e-3 * 0.01 * values, rtol=1e-6)


def test_decay_of_matrices_leaves_biases_and_the_embedding_out():
    preset = override(PRESETS["names", "gamma"], decay="matrices", hidden_dim=4, embedding_dim=3)
    params = Trainer(preset, steps_per_epoch=1).init(jax.random.key(0)).params
    params = jax.tree.map(lambda leaf: leaf + 1, params)  # No bias is zero.
    zero_grads = jax.tree.map(jnp.zeros_like, params)
    rule = make_optimizer(preset.train, steps_per_epoch=1)
    updates: Any = rule.update(zero_grads, rule.init(params), params)[0]
    moved = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(updates))
        if np.any(np.asarray(leaf) != 0)
    }
    kernels = {f"layers.{n}.kernel_{end}" for n in range(3) for end in ("ih", "hh")}
    assert moved == kernels | {"head.kernel"}
