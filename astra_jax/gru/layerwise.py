"""A stack of layers, one after the other, and dropout between them."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.gru.cell import drop
from astra_jax.gru.inputs import Inputs
from astra_jax.gru.weights import GRUWeights

LayerBackend = Callable[..., tuple[Float[Array, "T B H"], Float[Array, "B H"]]]
"""Computes one layer: weights, inputs, h_0, keep, dropout and dtype, without the axis of layers."""

StackBackend = Callable[..., tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]]
"""Computes all layers, with the arguments of `astra_jax.gru.gru`."""


def layerwise(
    run: LayerBackend,
    layers: Sequence[GRUWeights],
    inputs: Inputs,
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
    """Runs each layer over the whole time before the next; arguments as `astra_jax.gru.gru`."""
    hiddens, last = [], []
    for index, weights in enumerate(layers):
        kept = None if keep is None else keep[index]
        inputs, h_n = run(weights, inputs, h_0[index], kept, dropout, dtype)
        hiddens.append(inputs)
        last.append(h_n)
    return hiddens, jnp.stack(last)


def drop_outputs(
    run: StackBackend,
    layers: Sequence[GRUWeights],
    inputs: Inputs,
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
    """Runs layers by a backend for stacks, and drops out what they hand up, not what they carry."""

    def one(weights, inputs, h_0, kept, dropout, dtype):
        (states,), h_n = run([weights], inputs, h_0[None], None, 0.0, dtype)
        return drop(states, kept, dropout), h_n[0]

    return layerwise(one, layers, inputs, h_0, keep, dropout, dtype)
