"""One kernel for all steps of a layer: what is carried, and what it is multiplied with, stay put.

In the other backends every step reads the recurrent weights and the state back from the device's
memory. Here a Pallas kernel goes through time, forward and once more backward, with both at hand
(persistent RNNs: Diamos et al. 2016, PMLR 48). What has no recurrence in it is outside, as in
`fused`: the projection of the inputs before, the gradients of the weights after it.

The kernels' grid is blocks of the batch by blocks of time. On a TPU the blocks of time run one
after the other: weights and state lie in VMEM, the rest streams through. On a GPU all blocks run
at once, so there is one block of time, and what is at hand is what caches and registers hold.

Tested in Pallas' interpreter, on CPU. It lowers for TPU, where it has not been run, and, by way of
Triton, for GPU, where it has been seen to train. JAX 0.11 deprecates Triton, and lowers to it only
where there is a GPU. The alternative, Mosaic GPU, does not support JAX's matrix product, only
those of one generation of chips, with float32 rounded to TF32. For it this kernel has to be
written anew, on a machine with a GPU.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.errors import InputError
from astra_jax.gru.cell import Gates, gru_cell, gru_cell_vjp
from astra_jax.gru.inputs import Inputs
from astra_jax.gru.projection import dot, outer, project, summed_biases, transpose
from astra_jax.gru.weights import GRUWeights


class _Plan(NamedTuple):
    """How a platform wants its blocks.

    Attributes:
        rows: of the batch, in one block at most.
        steps: of time, in one block at most, a power of two; None is all.
        row_tile: rows come in multiples of this.
        lane_tile: and hidden units of this.
        max_kernel_bytes: the largest recurrent kernel of one gate; None is any.
    """

    rows: int
    steps: int | None
    row_tile: int
    lane_tile: int
    max_kernel_bytes: int | None


_PLANS = {
    # The smallest, so that tiny tests go through padding and several blocks either way.
    "cpu": _Plan(rows=2, steps=2, row_tile=2, lane_tile=4, max_kernel_bytes=None),
    # A gate's kernel goes through the 227 KiB of shared memory that an H100 has for a block.
    "gpu": _Plan(rows=16, steps=None, row_tile=16, lane_tile=128, max_kernel_bytes=2**17),
    # The largest that the compiler for a TPU v5e was seen to take.
    "tpu": _Plan(rows=64, steps=2, row_tile=8, lane_tile=128, max_kernel_bytes=2**22),
}


def pallas_gru(
    weights: GRUWeights,
    inputs: Inputs,
    h_0: Float[Array, "B H"],
    keep: Bool[Array, "T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[Float[Array, "T B H"], Float[Array, "B H"]]:
    """Runs one layer over time; see `astra_jax.gru.gru` for equations and arguments.

    Raises:
        InputError: JAX's default platform has no kernel, or none for this width or type.
    """
    batch, hidden = h_0.shape
    plan = _plan(jax.default_backend(), hidden, h_0.dtype, jnp.dtype(dtype).itemsize)
    rows, lanes = -batch % _rows(plan, batch), -hidden % plan.lane_tile
    biases = Gates(*summed_biases(weights)[:, None, None])
    projected = jax.tree.map(jnp.add, project(weights, inputs, dtype), biases)
    projected = jax.tree.map(lambda a: _pad(a, rows, lanes), projected)
    kernel_hh = _pad(weights.kernel_hh, lanes, lanes)
    scale = None
    if keep is not None:  # As factors, since chips have no arrays of bits.
        survivors = jnp.where(keep, 1 / (1 - dropout), 0.0).astype(h_0.dtype)
        scale = _pad(survivors, rows, lanes)
    padded: Array = _recur(projected, kernel_hh, _pad(h_0, rows, lanes), scale, plan, dtype)
    states = padded[:, :batch, :hidden]
    return states, states[-1]


def _plan(platform: str, hidden: int, state: DTypeLike, itemsize: int) -> _Plan:
    """Returns the platform's plan.

    Args:
        platform: where the kernel is to run.
        hidden: units of the layer.
        state: type of its states.
        itemsize: bytes of one weight.
    """
    if platform not in _PLANS:
        raise InputError(f"GRU backend 'pallas' runs on {', '.join(_PLANS)}, not on {platform}")
    plan = _PLANS[platform]
    if plan.max_kernel_bytes is None:
        return plan
    if state != jnp.float32:
        raise InputError(
            f"GRU backend 'pallas' has states of float32 on a {platform}, got {state}: "
            "choose another backend"
        )
    width = hidden + -hidden % plan.lane_tile
    if width * width * itemsize > plan.max_kernel_bytes:
        raise InputError(
            f"GRU backend 'pallas' holds kernels of at most {plan.max_kernel_bytes >> 10} KiB a "
            f"gate on a {platform}, got {hidden} hidden units of {itemsize} bytes: choose another "
            "backend"
        )
    return plan


def _rows(plan: _Plan, batch: int) -> int:
    """Returns how many rows a block has: the batch shared evenly among as few as will do."""
    blocks = -(-batch // plan.rows)
    return -(-batch // (blocks * plan.row_tile)) * plan.row_tile


def _pad(values: Array, rows: int, lanes: int) -> Array:
    """Appends zeros to the last two dimensions: such units stay zero and reach no other."""
    still = [(0, 0)] * (values.ndim - 2)
    return jnp.pad(values, [*still, (0, rows), (0, lanes)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _recur(
    projected: Gates,
    kernel_hh: Float[Array, "3 H H"],
    h_0: Float[Array, "B H"],
    scale: Float[Array, "T B H"] | None,
    plan: _Plan,
    dtype: DTypeLike,
) -> Float[Array, "T B H"]:
    """Returns the states after every step."""
    return _forward(projected, kernel_hh, h_0, scale, plan, dtype)[0]


def _forward(projected, kernel_hh, h_0, scale, plan, dtype):
    """Returns the states, and what the backward pass needs."""

    def step(h, at_t, kernel):
        x, scale_t = at_t
        through_r, through_z = dot(h, kernel[0], dtype), dot(h, kernel[1], dtype)
        h, gates = gru_cell(h, x, through_r, through_z, lambda reset: dot(reset, kernel[2], dtype))
        h = h if scale_t is None else h * scale_t
        return h, (h, *gates)

    streams = projected, scale
    _, (states, *gates) = _kernel_scan(step, h_0, streams, kernel_hh.astype(dtype), 4, plan)
    return states, (states, Gates(*gates), kernel_hh, h_0, scale)


def _backward(plan, dtype, saved, grad_states):
    """Returns the gradients of `projected`, `kernel_hh`, `h_0` and `scale`."""
    states, gates, kernel_hh, h_0, scale = saved
    before = jnp.concatenate([h_0[None], states[:-1]])

    def step(grad, at_t, transposed):
        grad_t, h, gates_t, scale_t = at_t
        grad = grad + grad_t
        grad = grad if scale_t is None else grad * scale_t
        grad, grads = gru_cell_vjp(
            grad, h, gates_t, lambda grad_n: dot(grad_n, transposed[2], dtype)
        )
        through = dot(grads.r, transposed[0], dtype) + dot(grads.z, transposed[1], dtype)
        return grad + through, grads

    streams = grad_states, before, gates, scale
    transposed = kernel_hh.astype(dtype).swapaxes(1, 2)
    start = jnp.zeros_like(h_0)
    grad_h_0, grads = _kernel_scan(step, start, streams, transposed, 3, plan, reverse=True)
    whole, reset = transpose(before, dtype), transpose(gates.r * before, dtype)
    read = whole, whole, reset
    grad_kernel = jnp.stack([outer(h, g, dtype) for h, g in zip(read, grads, strict=True)])
    return Gates(*grads), grad_kernel, grad_h_0, None


_recur.defvjp(_forward, _backward)


def _kernel_scan(
    step: Callable[..., Any],
    start: Float[Array, "B H"],
    streams: Any,
    kernel_hh: Float[Array, "3 H H"],
    num_outputs: int,
    plan: _Plan,
    *,
    reverse: bool = False,
) -> tuple[Float[Array, "B H"], list[Float[Array, "T B H"]]]:
    """A `lax.scan` in one kernel, with a matrix at hand.

    Args:
        step: from state, streams at one time and kernel to state and outputs.
        start: the state before the first step.
        streams: arrays [T, B, H] in any structure.
        kernel_hh: what `step` multiplies with.
        num_outputs: how many outputs `step` returns.
        plan: the blocks.
        reverse: whether time runs backwards.

    Returns:
        The state after the last step, and the outputs of all.
    """
    from jax.experimental import pallas as pl  # Here, since every start would wait for it.

    time, batch, hidden = jax.tree.leaves(streams)[0].shape
    rows = _rows(plan, batch)
    steps = time if plan.steps is None else math.gcd(time, plan.steps)

    def block_of_time(row, now):
        return time // steps - 1 - now if reverse else now, row, 0

    def run(streams, kernel, start, outputs, state):
        def at(index, h):
            t = steps - 1 - index if reverse else index
            h, values = step(h, jax.tree.map(lambda ref: ref[t], streams), kernel)
            for ref, value in zip(outputs, values, strict=True):
                ref[t] = value
            return h

        # The block of the state is the same at all times, so that it is carried from one to the
        # next; at the first nothing has been written to it.
        h = jnp.where(pl.program_id(1) == 0, start[...], state[...])
        state[...] = lax.fori_loop(0, steps, at, h)

    stream = pl.BlockSpec((steps, rows, hidden), block_of_time)
    state = pl.BlockSpec((rows, hidden), lambda row, _: (row, 0))
    whole = pl.BlockSpec(kernel_hh.shape, lambda *_: (0, 0, 0))
    shape = jax.ShapeDtypeStruct((time, batch, hidden), start.dtype)
    outputs, last = pl.pallas_call(
        run,
        grid=(batch // rows, time // steps),
        in_specs=[jax.tree.map(lambda _: stream, streams), whole, state],
        out_specs=([stream] * num_outputs, state),
        out_shape=([shape] * num_outputs, jax.ShapeDtypeStruct(start.shape, start.dtype)),
        **_how_to_run(),
    )(streams, kernel_hh, start)
    return last, outputs


def _how_to_run() -> dict[str, Any]:
    """Returns the platform's arguments of `pallas_call`; imports that platform's module alone."""
    platform = jax.default_backend()
    if platform == "tpu":
        from jax.experimental.pallas import tpu

        return dict(
            compiler_params=tpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"))
        )
    if platform == "gpu":
        from jax.experimental.pallas import triton

        return dict(compiler_params=triton.CompilerParams(num_warps=8, num_stages=1))
    return dict(interpret=True)
