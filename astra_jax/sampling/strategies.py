"""How the next character is picked from the model's logits.

A strategy is an argument of the compiled program, so that one program serves every temperature.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from astra_jax.errors import InputError

COLDEST = 1e-30
"""Lower temperatures are taken as this: float32 has no reciprocal of them, and none is greedier."""

HOTTEST = 1e30
"""The highest temperature: float32 has numbers for it, and all characters are equally likely."""

TRIANGLE, BLOCK = 128, 16
"""Up to `TRIANGLE` weights are summed by one product; longer rows are cut into blocks of
`BLOCK`."""


@runtime_checkable
class Strategy(Protocol):
    """Picks the next character."""

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns ids; equal uniform numbers in [0, 1) give equal ids in every framework."""
        ...


def _is_number(value: Any) -> bool:
    """Whether its value is known: inside a program it is not, nor while JAX copies a strategy."""
    known = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    return known and not isinstance(value, Tracer) and np.ndim(value) == 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Greedy:
    """The most likely character, the first of them where several are."""

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns ids; the uniform numbers do not matter."""
        del uniforms
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Temperature:
    """A draw from softmax(logits / temperature)."""

    temperature: float | Float[Array, ""] = 1.0

    def __post_init__(self) -> None:
        if _is_number(self.temperature) and not 0 < self.temperature <= HOTTEST:
            raise InputError(
                f"temperature must be above 0 and at most {HOTTEST:g}, got {self.temperature:g}; "
                "for the most likely character use --greedy"
            )

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns the ids at which the cumulated probabilities pass the uniform numbers."""
        # The largest goes first: divided by a tiny temperature, the others may become infinite.
        below = logits - logits.max(axis=-1, keepdims=True)
        temperature = jnp.maximum(self.temperature, COLDEST)
        cumulated = cumulate(jnp.exp(below / temperature))
        # Scaled by the last sum, which is not 1, a draw never runs past the end.
        passed = cumulated <= uniforms[:, None] * cumulated[:, -1:]
        return jnp.minimum(passed.sum(-1, dtype=jnp.int32), logits.shape[-1] - 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopK:
    """A draw, with temperature, from the k most likely characters."""

    k: int = field(default=20, metadata={"static": True})
    temperature: float | Float[Array, ""] = 1.0

    def __post_init__(self) -> None:
        Temperature(self.temperature)
        if self.k < 1:
            raise InputError(f"top-k must be at least 1, got {self.k}")

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns ids, drawn from the k in order of falling probability."""
        best, ids = lax.top_k(logits, self.k)
        places = Temperature(self.temperature).pick(best, uniforms)
        return jnp.take_along_axis(ids, places[:, None], axis=-1)[:, 0].astype(jnp.int32)


def cumulate(weights: Float[Array, "*batch V"]) -> Float[Array, "*batch V"]:
    """Returns the sums of the weights up to each, along the last axis.

    As products with triangles of ones: on a CPU `jnp.cumsum` takes a third of the time in which
    Astra-α writes 256 texts.
    """
    length = weights.shape[-1]
    if length <= TRIANGLE:
        ones = jnp.tri(length, dtype=weights.dtype).T
        return jnp.dot(weights, ones, precision=lax.Precision.HIGHEST)
    batch = [(0, 0)] * (weights.ndim - 1)
    rows = jnp.pad(weights, [*batch, (0, -length % BLOCK)])
    inside = cumulate(rows.reshape(*weights.shape[:-1], -1, BLOCK))
    until = cumulate(inside[..., -1])
    before = jnp.pad(until[..., :-1], [*batch, (1, 0)])
    return (inside + before[..., None]).reshape(rows.shape)[..., :length]
