"""PyTorch's default initial distributions."""

import math

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, Key


def uniform_fan_in(fan_in: int) -> Initializer:
    """Returns the U(-1/sqrt(fan_in), 1/sqrt(fan_in)) of `torch.nn.Linear`, weight and bias alike.

    torch documents it under `torch.nn.Linear` as its default initialisation.
    """
    bound = 1.0 / math.sqrt(fan_in)

    def init(
        key: Key[Array, ""], shape, dtype=jnp.float32, out_sharding=None
    ) -> Float[Array, "..."]:
        del out_sharding
        # Drawn in float32 for every dtype, so that runs of one seed begin with the same weights.
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound).astype(dtype)

    return init


def standard_normal() -> Initializer:
    """Returns the N(0, 1) of `torch.nn.Embedding`."""

    def init(
        key: Key[Array, ""], shape, dtype=jnp.float32, out_sharding=None
    ) -> Float[Array, "..."]:
        del out_sharding
        return jax.random.normal(key, shape, jnp.float32).astype(dtype)

    return init
