"""The recurrence against its equations, written once more in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.gru import BACKENDS, GRUWeights, gru


def random_inputs(time: int, batch: int, width: int, hidden: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    arrays = dict(
        kernel_ih=rng.normal(size=(3, width, hidden)) / np.sqrt(width),
        kernel_hh=rng.normal(size=(3, hidden, hidden)) / np.sqrt(hidden),
        bias_ih=rng.normal(size=(3, hidden)),
        bias_hh=rng.normal(size=(2, hidden)),
    )
    weights = GRUWeights(**arrays)  # pyright: ignore[reportArgumentType]
    inputs = rng.normal(size=(time, batch, width))
    h_0 = rng.normal(size=(batch, hidden))
    keep = rng.random((time, batch, hidden)) >= 0.3
    return weights, inputs, h_0, keep


def equations(weights: GRUWeights, inputs, h, keep, dropout: float):
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    (w_rx, w_zx, w_nx), (w_rh, w_zh, w_nh) = weights.kernel_ih, weights.kernel_hh
    (b_rx, b_zx, b_nx), (b_r, b_z) = weights.bias_ih, weights.bias_hh
    outputs = []
    for x, kept in zip(inputs, keep, strict=True):
        r = sigmoid(x @ w_rx + b_rx + h @ w_rh + b_r)
        z = sigmoid(x @ w_zx + b_zx + h @ w_zh + b_z)
        n = np.tanh(x @ w_nx + b_nx + (r * h) @ w_nh)
        h = ((1 - z) * h + z * n) * kept / (1 - dropout)
        outputs.append(h)
    return np.stack(outputs)


SHAPES = [(1, 1, 2, 3), (1, 4, 3, 2), (6, 1, 5, 4), (5, 3, 4, 7)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gru_computes_its_equations(shape, backend: str):
    weights, inputs, h_0, keep = random_inputs(*shape)
    with jax.enable_x64(True):
        on_device = jax.tree.map(jnp.asarray, (weights, inputs, h_0, keep))
        weights_on_device, inputs_on_device, h_0_on_device, keep_on_device = on_device
        start = (weights_on_device, inputs_on_device, h_0_on_device)
        outputs, h_n = gru(*start, keep_on_device, 0.3, backend=backend)
        no_dropout, _ = gru(*start, backend=backend)
    expected = equations(weights, inputs, h_0, keep, 0.3)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(h_n, outputs[-1])
    undropped = equations(weights, inputs, h_0, np.ones_like(keep), 0.0)
    np.testing.assert_allclose(no_dropout, undropped, rtol=0, atol=1e-14)


def test_gru_sees_no_future():
    weights, inputs, h_0, _ = random_inputs(8, 2, 3, 5)
    weights, inputs, h_0 = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), (weights, inputs, h_0)
    )
    before, _ = gru(weights, inputs, h_0)
    after, _ = gru(weights, inputs.at[5].add(1.0), h_0)
    np.testing.assert_array_equal(before[:5], after[:5])
    assert (before[5:] != after[5:]).all()


def test_gru_keeps_states_in_float32_under_bfloat16_products():
    weights, inputs, h_0, keep = random_inputs(5, 2, 3, 4)
    weights, inputs, h_0 = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), (weights, inputs, h_0)
    )
    full, _ = gru(weights, inputs, h_0, jnp.asarray(keep), 0.3)
    half, h_n = gru(weights, inputs, h_0, jnp.asarray(keep), 0.3, dtype=jnp.bfloat16)
    assert half.dtype == h_n.dtype == jnp.float32
    difference = float(jnp.abs(half - full).max())
    # bfloat16 has 8 bits: the products differ in the third digit, and no more than that.
    assert 1e-4 < difference < 3e-2


def test_gru_refuses_what_does_not_fit():
    weights, inputs, h_0, keep = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), random_inputs(4, 3, 5, 6)
    )
    with pytest.raises(ValueError, match="unknown GRU backend 'fast': choose one of scan"):
        gru(weights, inputs, h_0, backend="fast")
    turned = weights._replace(kernel_ih=weights.kernel_ih.swapaxes(1, 2))
    unchecked = getattr(gru, "__wrapped__", gru)  # Without beartype, as users run it.
    with pytest.raises(ValueError, match=r"kernel_ih has shape \(3, 6, 5\), expected \(3, 5, 6\)"):
        unchecked(turned, inputs, h_0)
    with pytest.raises(ValueError, match="keep has shape"):
        unchecked(weights, inputs, h_0, keep[:, :1] > 0)
