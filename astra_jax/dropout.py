"""Which elements of the carried states survive dropout, drawn for all steps at once."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Key, UInt32

from astra_jax.config import DROPOUT_LEVELS, ModelConfig
from astra_jax.threefry import threefry


def draw_keep(
    key: Key[Array, ""], config: ModelConfig, batch_size: int, seq_len: int
) -> Bool[Array, "L T B H"] | None:
    """Draws which state elements survive dropout; None where the model has none.

    Drawn outside the recurrence, so that two frameworks can be given the same, and the same
    whatever the model's type.

    Args:
        key: decides the draws.
        config: the model.
        batch_size: B.
        seq_len: T.
    """
    if config.dropout == 0.0:
        return None
    quarter = math.ceil(seq_len / 4)
    words = _words(key, (config.num_layers, quarter, batch_size, config.hidden_dim))
    threshold = jnp.uint32(round(config.dropout * DROPOUT_LEVELS))
    # Half a word, 16 bits, decides one element.
    halves = [half for word in words for half in (word & (DROPOUT_LEVELS - 1), word >> 16)]
    return jnp.concatenate([half >= threshold for half in halves], axis=1)[:, :seq_len]


def _words(
    key: Key[Array, ""], shape: tuple[int, int, int, int]
) -> tuple[UInt32[Array, "L Q B H"], UInt32[Array, "L Q B H"]]:
    """Returns the two words of one threefry block for every place.

    Its counters have the shape of the result from the start: `jax.random.bits` numbers a flat
    array and then folds it, which takes ten times as long on a CPU and cannot be shared by
    devices.
    """
    *_, batch, hidden = shape
    layer, t, b, h = (lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(4))
    place = (t * jnp.uint32(batch) + b) * jnp.uint32(hidden) + h
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    return threefry((first, second), (place, layer))
