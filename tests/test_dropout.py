"""Dropout's survivors are random in every direction, and the same for who asks again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from astra_jax.dropout import draw_keep
from astra_jax.presets import PRESETS
from astra_jax.threefry import threefry

MODEL = dataclasses.replace(PRESETS["shakespeare", "beta"].model, hidden_dim=40)


@pytest.mark.parametrize("seq_len", [64, 61, 3, 1])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_takes_its_share_and_is_drawn_anew_along_every_axis(rate: float, seq_len: int):
    model = dataclasses.replace(MODEL, dropout=rate)
    drawn = draw_keep(jax.random.key(0), model, 50, seq_len)
    again = draw_keep(jax.random.key(0), model, 50, seq_len)
    other = draw_keep(jax.random.key(1), model, 50, seq_len)
    assert drawn is not None
    assert drawn.shape == (2, seq_len, 50, 40)
    np.testing.assert_array_equal(drawn, again)
    keep = np.asarray(drawn)
    assert abs(keep.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / keep.size)
    shifted = [(np.roll(keep, 1, axis), axis) for axis in range(4) if keep.shape[axis] > 1]
    # The quarters of the time share their words.
    shifted += [(np.roll(keep, 16, 1), 1)] * (seq_len > 16)
    for neighbour, _ in [*shifted, (np.asarray(other), None)]:
        # Independent draws agree with this probability.
        agreement = rate**2 + (1 - rate) ** 2
        bound = 4.5 * np.sqrt(agreement * (1 - agreement) / keep.size)
        assert abs((neighbour == keep).mean() - agreement) < bound


def test_the_generator_is_that_of_jax():
    first, second, *block = jax.random.bits(jax.random.key(0), (4, 100), jnp.uint32)
    for key in zip(first[:3], second[:3], strict=True):
        words = jnp.concatenate(threefry(key, (block[0], block[1])))
        expected = threefry_2x32(jnp.stack(key), jnp.concatenate(block))
        np.testing.assert_array_equal(words, expected)


def test_no_dropout_draws_nothing():
    assert draw_keep(jax.random.key(0), dataclasses.replace(MODEL, dropout=0.0), 2, 3) is None


def test_devices_that_share_a_batch_share_the_drawing():
    devices = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    share = jax.sharding.NamedSharding(devices, jax.P(None, None, "data"))
    draw = jax.jit(lambda key: draw_keep(key, MODEL, 8, 12), out_shardings=share)
    text = draw.lower(jax.random.key(0)).compile().as_text() or ""
    assert "u32[2,3,4,40]" in text  # Words for half of the batch,
    assert "u32[2,3,8,40]" not in text  # and never for all of it.
    np.testing.assert_array_equal(
        draw(jax.random.key(0)), draw_keep(jax.random.key(0), MODEL, 8, 12)
    )
