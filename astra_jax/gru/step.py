"""The recurrence one character at a time, where the next one hangs on what came of the last.

A loop around `gru` would do at every character what needs doing once: project the table, and
take the kernels apart by gate, which copies them, at several times the cost of their products.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from astra_jax.gru.projection import Gates, dot, summed_biases
from astra_jax.gru.weights import GRUWeights


def advance(
    h: Float[Array, "B H"], x: Gates, kernels_hh: Gates, dtype: DTypeLike
) -> tuple[Float[Array, "B H"], Gates]:
    """Returns one layer's next state, before dropout, and its gates.

    Args:
        h: the state.
        x: what the input and all biases contribute to the gates.
        kernels_hh: the recurrent projections.
        dtype: type of the products' operands.
    """
    r = jax.nn.sigmoid(x.r + dot(h, kernels_hh.r, dtype))
    z = jax.nn.sigmoid(x.z + dot(h, kernels_hh.z, dtype))
    n = jnp.tanh(x.n + dot(r * h, kernels_hh.n, dtype))
    return (1 - z) * h + z * n, Gates(r, z, n)


class _Cell(NamedTuple):
    """One layer, taken apart by gate; all biases of a gate are one."""

    kernels_ih: Gates
    kernels_hh: Gates
    biases: Gates


class Stepper(NamedTuple):
    """`gru` of one character, without dropout, to be called inside a loop.

    Attributes:
        known: what each row of the table contributes to the first layer's gates.
        first: the first layer's recurrent projections.
        others: the other layers.
    """

    known: Float[Array, "V 3H"]
    first: Gates
    others: tuple[_Cell, ...]

    def __call__(
        self, ids: Int[Array | np.ndarray, " B"], h: Float[Array, "L B H"]
    ) -> Float[Array, "L B H"]:
        """Takes the states of all layers from before a character to after it."""
        operands = self.first.r.dtype
        x = Gates(*jnp.split(self.known[ids], 3, axis=-1))
        states = [advance(h[0], x, self.first, operands)[0]]
        for before, cell in zip(h[1:], self.others, strict=True):
            x = _project(states[-1], cell, operands)
            states.append(advance(before, x, cell.kernels_hh, operands)[0])
        return jnp.stack(states)


def stepper(
    layers: Sequence[GRUWeights], table: Float[Array, "V E"], dtype: DTypeLike | None = None
) -> Stepper:
    """Returns the recurrence, ready to go one character at a time.

    What does not hang on the character is computed here: among it the first layer's input
    projections, of every row of the table.

    Args:
        layers: the parameters of each layer.
        table: the embeddings; their type is the type of all states.
        dtype: type of the matrix products' operands; None takes that of the table.
    """
    operands = table.dtype if dtype is None else dtype
    first, *others = (_take_apart(weights, operands) for weights in layers)
    known = jnp.concatenate(_project(table, first, operands), axis=-1)
    return Stepper(known, first.kernels_hh, tuple(others))


def _take_apart(weights: GRUWeights, dtype: DTypeLike) -> _Cell:
    kernels = Gates(*weights.kernel_ih.astype(dtype)), Gates(*weights.kernel_hh.astype(dtype))
    return _Cell(*kernels, Gates(*(bias[None] for bias in summed_biases(weights))))


def _project(inputs: Float[Array, "B I"], cell: _Cell, dtype: DTypeLike) -> Gates:
    gates = zip(cell.kernels_ih, cell.biases, strict=True)
    return Gates(*(dot(inputs, kernel, dtype) + bias for kernel, bias in gates))
