"""Long sequences in little memory: the backward pass computes each stretch of time anew."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.gru.inputs import Embedded, Inputs
from astra_jax.gru.layerwise import StackBackend
from astra_jax.gru.weights import GRUWeights


def segmented(
    run: StackBackend,
    layers: Sequence[GRUWeights],
    inputs: Inputs,
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
    """Runs a backend over segments of about sqrt(T) steps; arguments as `astra_jax.gru.gru`.

    All that the backward pass finds kept are the states between segments and the outputs; it runs
    each segment forward once more (Chen et al. 2016, arXiv:1604.06174). So memory for what a step
    leaves behind grows as sqrt(T), and about a third is added to the time.
    """
    table = inputs.table if isinstance(inputs, Embedded) else None
    values = inputs.ids if isinstance(inputs, Embedded) else inputs

    @jax.checkpoint
    def run_segment(h, at_segment):
        values, keep = at_segment
        part = values if table is None else Embedded(table, values)
        hiddens, h = run(layers, part, h, keep, dropout, dtype)
        return h, hiddens

    time = len(values)
    length = math.isqrt(time)
    whole = time - time % length
    kept = None if keep is None else _fold(keep[:, :whole], length, axis=1).swapaxes(0, 1)
    folded = _fold(values[:whole], length, axis=0), kept
    h, hiddens = lax.scan(run_segment, h_0, folded)
    hiddens = [hidden.reshape(whole, *hidden.shape[2:]) for hidden in hiddens]
    if whole == time:
        return hiddens, h
    rest = values[whole:], None if keep is None else keep[:, whole:]
    h, last = run_segment(h, rest)
    return [jnp.concatenate(pair) for pair in zip(hiddens, last, strict=True)], h


def _fold(values: Array, length: int, axis: int) -> Array:
    """Splits an axis in two, of which the second is of a given length."""
    shape = values.shape
    return values.reshape(*shape[:axis], -1, length, *shape[axis + 1 :])
