"""All layers at once: layer l works on step s - l while layer 0 works on step s.

The layers of a stack wait for each other only along the diagonal, so one batched step of all of
them, shifted against each other, takes T + L - 1 steps in a row instead of T * L (Appleyard,
Kočiský and Blunsom 2016, arXiv:1604.01946). That pays where a step is too small to fill the
device, as on a GPU; on a CPU, which a single layer keeps busy, it does not.

While the first layers have begun and the last have not, and while the last have not finished and
the first have, the idle layers keep their states: `active` says who works.

The gradients go back along the same diagonals. As in `fused`, the scan lays down the gradients of
the gates alone; those of the weights are batched products over all steps after it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.gru.cell import drop
from astra_jax.gru.inputs import Inputs
from astra_jax.gru.loop import over_time
from astra_jax.gru.projection import project, summed_biases
from astra_jax.gru.weights import GRUWeights


def wavefront_gru(
    layers: Sequence[GRUWeights],
    inputs: Inputs,
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
    """Runs all layers over time; see `astra_jax.gru.gru` for equations and arguments."""
    first = jnp.stack(project(layers[0], inputs, dtype), axis=2)
    above, hidden = layers[1:], h_0.shape[-1]
    # The empty arrays in front give a stack of one layer, which has none above it, its shapes.
    kernels = [jnp.zeros((0, 3, hidden, hidden), h_0.dtype), *(w.kernel_ih[None] for w in above)]
    kernel_ih = jnp.concatenate(kernels)
    biases = jnp.stack([summed_biases(weights) for weights in layers])
    kernel_hh = jnp.stack([weights.kernel_hh for weights in layers])
    states: Array = _recur(first, biases, kernel_ih, kernel_hh, h_0, keep, dropout, dtype)
    return list(states), states[:, -1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _recur(
    first: Float[Array, "T B 3 H"],
    biases: Float[Array, "L 3 H"],
    kernel_ih: Float[Array, "U 3 H H"],
    kernel_hh: Float[Array, "L 3 H H"],
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> Float[Array, "L T B H"]:
    """Returns the states of all layers after every step.

    Args:
        first: what the inputs contribute to the first layer's gates.
        biases: the sums of each gate's biases, of all layers.
        kernel_ih: input projections of the U = L - 1 layers above the first.
        kernel_hh: recurrent projections of all layers.
        h_0: as of `wavefront_gru`, like all that follows.
        keep: see there.
        dropout: see there.
        dtype: see there.
    """
    return _forward(first, biases, kernel_ih, kernel_hh, h_0, keep, dropout, dtype)[0]


def _forward(first, biases, kernel_ih, kernel_hh, h_0, keep, dropout, dtype):
    """Returns the states, and what the backward pass needs."""
    num_layers, time = len(h_0), len(first)
    # Input dimension first, so that the gates of a layer come out of one product.
    from_below, from_self = (k.astype(dtype).swapaxes(1, 2) for k in (kernel_ih, kernel_hh))
    kernel_rz, kernel_n = from_self[:, :, :2], from_self[:, :, 2]

    def wave(h, at_s):
        x_first, active, keep_s = at_s
        x_above = _product("lbh,lhgk->lbgk", h[:-1], from_below, dtype)
        x = jnp.concatenate([x_first[None], x_above]) + biases[:, None]
        rz = jax.nn.sigmoid(x[:, :, :2] + _product("lbh,lhgk->lbgk", h, kernel_rz, dtype))
        r, z = rz[:, :, 0], rz[:, :, 1]
        n = jnp.tanh(x[:, :, 2] + _product("lbh,lhk->lbk", r * h, kernel_n, dtype))
        new = drop((1 - z) * h + z * n, keep_s, dropout)
        h = jnp.where(active, new, h)
        return h, (h, (r, z, n))

    along = _along_waves(first, keep, num_layers)
    _, (after, gates) = over_time(wave, h_0, along)
    states = jnp.stack([after[layer : layer + time, layer] for layer in range(num_layers)])
    return states, (after, gates, kernel_ih, kernel_hh, h_0, keep)


def _backward(dropout, dtype, saved, grad_states):
    """Returns the gradients of what `_recur` was given."""
    after, gates, kernel_ih, kernel_hh, h_0, keep = saved
    num_layers, time = grad_states.shape[:2]
    before = jnp.concatenate([h_0[None], after[:-1]])
    transposed_ih, transposed_hh = kernel_ih.astype(dtype), kernel_hh.astype(dtype)

    def wave(grad, at_s):
        grad_s, h, (r, z, n), active, keep_s = at_s
        grad = grad + grad_s
        grad_new = jnp.where(active, grad, jnp.zeros_like(grad))
        idle = grad - grad_new
        grad_new = drop(grad_new, keep_s, dropout)
        grad_n = grad_new * z * (1 - n * n)
        grad_z = grad_new * (n - h) * z * (1 - z)
        grad_rh = _product("lbk,lhk->lbh", grad_n, transposed_hh[:, 2], dtype)
        grad_r = grad_rh * h * r * (1 - r)
        grads = jnp.stack([grad_r, grad_z, grad_n], axis=2)
        to_self = _product("lbgk,lghk->lbh", grads[:, :, :2], transposed_hh[:, :2], dtype)
        to_below = _product("lbgk,lghk->lbh", grads[1:], transposed_ih, dtype)
        grad = idle + grad_new * (1 - z) + grad_rh * r + to_self
        return grad.at[:-1].add(to_below), grads

    _, active, kept = _along_waves(grad_states[0], keep, num_layers)
    along = _shifted(grad_states), before, gates, active, kept
    grad_h_0, grads = over_time(wave, jnp.zeros_like(h_0), along, reverse=True)
    grad_rz = _product("slbh,slbgk->lghk", before, grads[:, :, :, :2], dtype)
    grad_n = _product("slbh,slbk->lhk", gates[0] * before, grads[:, :, :, 2], dtype)
    grad_hh = jnp.concatenate([grad_rz, grad_n[:, None]], axis=1)
    grad_ih = _product("slbh,slbgk->lghk", before[:, :-1], grads[:, 1:], dtype)
    return grads[:time, 0], grads.sum((0, 2)), grad_ih, grad_hh, grad_h_0, None


_recur.defvjp(_forward, _backward)


def _along_waves(
    first: Float[Array, "T ..."], keep: Bool[Array, "L T B H"] | None, num_layers: int
) -> tuple[Float[Array, "S ..."], Bool[Array, "S L 1 1"], Bool[Array, "S L B H"] | None]:
    """Returns what the scan over the S = T + L - 1 waves reads: inputs, who works, dropout."""
    active = _shifted(jnp.ones((num_layers, len(first), 1, 1), bool))
    padding = [(0, num_layers - 1)] + [(0, 0)] * (first.ndim - 1)
    return jnp.pad(first, padding), active, None if keep is None else _shifted(keep)


def _shifted(values: Array) -> Array:
    """Turns [L, T, ...] into [S, L, ...], layer l beginning at wave l; nothing stands beside it."""
    num_layers = len(values)
    still = [(0, 0)] * (values.ndim - 2)
    rows = [jnp.pad(row, [(i, num_layers - 1 - i), *still]) for i, row in enumerate(values)]
    return jnp.stack(rows, axis=1)


def _product(equation: str, left: Array, right: Array, dtype: DTypeLike) -> Array:
    """Multiplies operands of `dtype` into sums of the left one's own type."""
    return jnp.einsum(
        equation, left.astype(dtype), right.astype(dtype), preferred_element_type=left.dtype
    )
