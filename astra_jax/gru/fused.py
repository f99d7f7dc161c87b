"""The fast backend: all that can be done for all steps at once is done outside the scan.

Forward, one product a gate projects the inputs of all steps, before the scan; of inputs that come
out of an embedding table, the table is projected instead, and its rows are looked up. Backward,
the scan carries the gradient of the state alone and stores the gradients of the three gates; after
it, one product a gate gives the weights' gradients. JAX's own transpose of `scan_gru` adds a small
product to them at every step. The idea of hoisting what has no recurrence in it is in Appleyard,
Kočiský and Blunsom 2016 (arXiv:1604.01946).

The gates are written over their projections, and their gradients over the gates: so there is less
memory to go through, and more of it stays in the caches.

The gates stay separate arrays throughout: the arithmetic on slices of one wide array is what the
CPU compiler does not turn into vector instructions.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.gru.cell import Gates, drop, gru_cell, gru_cell_vjp
from astra_jax.gru.inputs import Inputs
from astra_jax.gru.loop import over_time, over_time_in_place
from astra_jax.gru.projection import dot, outer, project, summed_biases, transpose
from astra_jax.gru.weights import GRUWeights


def fused_gru(
    weights: GRUWeights,
    inputs: Inputs,
    h_0: Float[Array, "B H"],
    keep: Bool[Array, "T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[Float[Array, "T B H"], Float[Array, "B H"]]:
    """Runs one layer over time; see `astra_jax.gru.gru` for equations and arguments."""
    projected, biases = project(weights, inputs, dtype), summed_biases(weights)
    hidden: Array = _recur(projected, biases, weights.kernel_hh, h_0, keep, dropout, dtype)
    return hidden, hidden[-1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _recur(
    projected: Gates,
    biases: Float[Array, "3 H"],
    kernel_hh: Float[Array, "3 H H"],
    h_0: Float[Array, "B H"],
    keep: Bool[Array, "T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> Float[Array, "T B H"]:
    """Returns the states after every step."""
    step = _step(biases, kernel_hh, dropout, dtype)

    def without_gates(h, at_t):
        h, _, output = step(h, *at_t)
        return h, output

    return over_time(without_gates, h_0, (projected, keep))[1]


def _step(biases, kernel_hh, dropout, dtype):
    """Returns the function from state, projected input and `keep` to state, gates and output."""
    kernels, biases = Gates(*kernel_hh.astype(dtype)), Gates(*biases[:, None])

    def step(h, x, keep_t):
        x = jax.tree.map(jnp.add, x, biases)
        through_r, through_z = dot(h, kernels.r, dtype), dot(h, kernels.z, dtype)
        h, gates = gru_cell(h, x, through_r, through_z, lambda reset: dot(reset, kernels.n, dtype))
        h = drop(h, keep_t, dropout)
        return h, gates, h

    return step


def _forward(projected, biases, kernel_hh, h_0, keep, dropout, dtype):
    """Returns the states, and what the backward pass needs."""
    step = _step(biases, kernel_hh, dropout, dtype)
    _, gates, hidden = over_time_in_place(step, h_0, projected, keep)
    return hidden, (hidden, gates, kernel_hh, h_0, keep)


def _backward(dropout, dtype, saved, grad_hidden):
    """Returns the gradients of `projected`, `biases`, `kernel_hh`, `h_0` and `keep`."""
    hidden, gates, kernel_hh, h_0, keep = saved
    before = jnp.concatenate([h_0[None], hidden[:-1]])
    whole, reset = transpose(before, dtype), transpose(gates.r * before, dtype)
    # Transposed once, here: inside the scan every step would.
    transposed = Gates(*kernel_hh.astype(dtype).swapaxes(1, 2))

    def step(grad, gates_t, at_t):
        grad_t, h, keep_t = at_t
        grad = drop(grad + grad_t, keep_t, dropout)
        grad, grads = gru_cell_vjp(
            grad, h, gates_t, lambda grad_n: dot(grad_n, transposed.n, dtype)
        )
        through = dot(grads.r, transposed.r, dtype) + dot(grads.z, transposed.z, dtype)
        return grad + through, grads, None

    start, along = jnp.zeros_like(h_0), (grad_hidden, before, keep)
    grad_h_0, grads, _ = over_time_in_place(step, start, gates, along, reverse=True)
    read = whole, whole, reset
    grad_kernel = jnp.stack([outer(h, g, dtype) for h, g in zip(read, grads, strict=True)])
    grad_biases = jnp.stack([grad.sum((0, 1)) for grad in grads])
    return grads, grad_biases, grad_kernel, grad_h_0, None


_recur.defvjp(_forward, _backward)
