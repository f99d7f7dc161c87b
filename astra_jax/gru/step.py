"""The recurrence one character at a time, where each one depends on what came of the last.

A loop around `gru` would repeat at every character what is needed once: to project the table, and
to lay a layer's kernels side by side, a copy that costs several times as much as their products.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from astra_jax.errors import InputError
from astra_jax.gru.cell import Gates, gru_cell
from astra_jax.gru.projection import dot, summed_biases
from astra_jax.gru.weights import GRUWeights

LARGE = 1 << 18
"""Size, in elements, from which reading a kernel costs a single text more than widening its
bfloat16."""

BFLOAT16 = jnp.finfo(jnp.bfloat16)


class _Kernel(NamedTuple):
    """A kernel, to be multiplied with the rows of many texts."""

    values: Float[Array, "I J"]

    def __call__(self, rows: Float[Array, "B I"]) -> Float[Array, "B J"]:
        return dot(rows, self.values, self.values.dtype)


class _Transposed(NamedTuple):
    """A kernel transposed, to be multiplied with a single row.

    Each number of the product is then the sum along one row of memory. The CPU's compiler makes
    a loop of its own of that, which the cores share.
    """

    values: Float[Array, "J I"]

    def __call__(self, row: Float[Array, "B I"]) -> Float[Array, "B J"]:
        values = self.values
        if values.dtype == jnp.bfloat16:
            # Bound to the row, the kernel is not the same at every character to the compiler. It
            # would widen it before the first one, and read twice the bytes at each.
            row, values = lax.optimization_barrier((row, values))
        return dot(row, values.T, values.dtype)


class _Widened(NamedTuple):
    """As `_Transposed`, of a small kernel of bfloat16: its numbers, and the products, in float32.

    For a small kernel, reading half the bytes saves less than widening them at every character
    costs.
    """

    values: Float[Array, "J I"]

    def __call__(self, row: Float[Array, "B I"]) -> Float[Array, "B J"]:
        # Not a cast there and back, which the compiler leaves out.
        rounded = lax.reduce_precision(row, BFLOAT16.nexp, BFLOAT16.nmant)
        return dot(rounded, self.values.T, self.values.dtype)


_LaidOut = _Kernel | _Transposed | _Widened


class _Recurrence(NamedTuple):
    """A layer's recurrent kernels: a CPU reads two side by side faster than one after the other.

    Attributes:
        rz: those of the reset and the update gate, to 2H numbers.
        n: that of the candidate.
    """

    rz: _LaidOut
    n: _LaidOut

    def advance(self, h: Float[Array, "B H"], x: Float[Array, "B G"]) -> Float[Array, "B H"]:
        """Returns the layer's next state."""
        through_r, through_z = jnp.split(self.rz(h), 2, axis=-1)
        gates = Gates(*jnp.split(x, 3, axis=-1))
        return gru_cell(h, gates, through_r, through_z, self.n)[0]


class _Cell(NamedTuple):
    """One layer; what belongs to the three gates lies side by side, G = 3H."""

    kernel_ih: _LaidOut
    bias: Float[Array, "1 G"]
    recurrence: _Recurrence

    def project(self, inputs: Float[Array, "B I"]) -> Float[Array, "B G"]:
        """Returns what inputs and biases contribute to the gates."""
        return self.kernel_ih(inputs) + self.bias


class Stepper(NamedTuple):
    """`gru` of one character, without dropout, to be called inside a loop.

    Attributes:
        known: what each row of the table contributes to the first layer's gates.
        first: the first layer's recurrence.
        others: the other layers.
    """

    known: Float[Array, "V G"]
    first: _Recurrence
    others: tuple[_Cell, ...]

    def __call__(
        self, ids: Int[Array | np.ndarray, " B"], h: Float[Array, "L B H"]
    ) -> Float[Array, "L B H"]:
        """Takes the states of all layers from before a character to after it.

        Raises:
            InputError: there are not as many ids as states.
        """
        if ids.shape != h.shape[1:2]:
            raise InputError(f"ids have shape {ids.shape}, expected {h.shape[1:2]} as the states")
        states = [self.first.advance(h[0], self.known[ids])]
        for before, cell in zip(h[1:], self.others, strict=True):
            states.append(cell.recurrence.advance(before, cell.project(states[-1])))
        return jnp.stack(states)


def stepper(
    layers: Sequence[GRUWeights],
    table: Float[Array, "V E"],
    dtype: DTypeLike | None = None,
    *,
    num: int,
) -> Stepper:
    """Returns the recurrence, ready to go one character at a time.

    All that does not depend on the character is computed here, such as the first layer's projection
    of every row of the table.

    Args:
        layers: the parameters of each layer.
        table: the embeddings; their type is the type of all states.
        dtype: type of the matrix products' operands; None takes that of the table.
        num: texts that it is laid out for. It takes any number, and is fast for this one.
    """
    operands = table.dtype if dtype is None else dtype
    first, *others = (_side_by_side(weights, operands, num) for weights in layers)
    return Stepper(first.project(table), first.recurrence, tuple(others))


def _side_by_side(weights: GRUWeights, dtype: DTypeLike, num: int) -> _Cell:
    kernel_r, kernel_z, kernel_n = weights.kernel_hh.astype(dtype)
    rz = jnp.concatenate([kernel_r, kernel_z], axis=-1)
    recurrence = _Recurrence(_lay_out(rz, num), _lay_out(kernel_n, num))
    kernel_ih = jnp.concatenate(weights.kernel_ih.astype(dtype), axis=-1)
    bias = summed_biases(weights).reshape(1, -1)
    return _Cell(_lay_out(kernel_ih, num), bias, recurrence)


def _lay_out(kernel: Float[Array, "I J"], num: int) -> _LaidOut:
    if num > 1 or jax.default_backend() != "cpu":
        return _Kernel(kernel)
    if kernel.dtype == jnp.bfloat16 and kernel.size < LARGE:
        return _Widened(kernel.T.astype(jnp.float32))
    return _Transposed(kernel.T)
