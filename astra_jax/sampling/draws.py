"""The uniform numbers that texts are drawn by; each depends on key and position alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, UInt32

from astra_jax.errors import InputError
from astra_jax.threefry import threefry

MAX_DRAWS = 1 << 32
"""Numbers that one key decides: as many as a word counts."""


def sample_key(seed: int) -> Key[Array, ""]:
    """Returns the key that decides the draws of a seed.

    Raises:
        InputError: the seed is not in [0, 2**32).
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be at least 0 and below 2**32, got {seed}")
    return _key(np.uint32(seed))


_key = jax.jit(jax.random.key)
"""In one program: op by op it takes as long as 20 characters of Astra-α."""


@functools.partial(jax.jit, static_argnames=("length", "num"))
def draw_uniforms(key: Key[Array, ""], length: int, num: int) -> Float[Array, "S N"]:
    """Returns the numbers in [0, 1) by which N texts of S new characters are drawn."""
    return draw_rows(key, jnp.uint32(0), (length, num))


def draw_rows(
    key: Key[Array, ""], place: UInt32[Array, ""], shape: tuple[int, int], mesh: Mesh | None = None
) -> Float[Array, "C N"]:
    """Returns C rows of `jax.random.uniform(key, (S, N))`, from row `place` on.

    In the program that they decide: another one costs a short text of Astra-α a tenth of its
    time. The key of another generator than threefry decides a key of threefry.

    Args:
        key: decides them.
        place: of the first row.
        shape: C, and N of this device.
        mesh: the devices that share the columns.
    """
    row, text = (lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(2))
    num = shape[1]
    if mesh is not None:
        text = text + lax.axis_index("data").astype(jnp.uint32) * jnp.uint32(num)
        num *= mesh.size
    if jax.random.key_impl(key) == "threefry2x32":
        first, second = jax.random.key_data(key)
    else:
        first, second = jax.random.bits(key, (2,), jnp.uint32)
    counter = (place + row) * jnp.uint32(num) + text
    words = threefry((first, second), (jnp.zeros_like(counter), counter))
    # 23 bits are the fraction of a number in [1, 2).
    bits = (words[0] ^ words[1]) >> 9 | jnp.float32(1).view(jnp.uint32)
    return bits.view(jnp.float32) - 1
