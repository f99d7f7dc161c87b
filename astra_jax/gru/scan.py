"""The reference backend: the equations inside `jax.lax.scan`, differentiated by JAX."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.gru.inputs import Inputs, dense
from astra_jax.gru.weights import GRUWeights


def scan_gru(
    weights: GRUWeights,
    inputs: Inputs,
    h_0: Float[Array, "B H"],
    keep: Bool[Array, "T B H"] | None,
    dropout: float,
    dtype: DTypeLike,
) -> tuple[Float[Array, "T B H"], Float[Array, "B H"]]:
    """Runs one layer over time; see `astra_jax.gru.gru` for equations and arguments."""
    kernel_ih, kernel_hh = weights.kernel_ih.astype(dtype), weights.kernel_hh.astype(dtype)
    bias_r, bias_z = weights.bias_hh[:, None]
    bias_rx, bias_zx, bias_nx = weights.bias_ih[:, None]

    def project(values: Float[Array, "B I"], kernel: Float[Array, "I H"]) -> Float[Array, "B H"]:
        return jnp.dot(values.astype(dtype), kernel, preferred_element_type=h_0.dtype)

    def step(h, at_t):
        x, keep_t = at_t
        r = jax.nn.sigmoid(project(x, kernel_ih[0]) + bias_rx + project(h, kernel_hh[0]) + bias_r)
        z = jax.nn.sigmoid(project(x, kernel_ih[1]) + bias_zx + project(h, kernel_hh[1]) + bias_z)
        n = jnp.tanh(project(x, kernel_ih[2]) + bias_nx + project(r * h, kernel_hh[2]))
        h = (1 - z) * h + z * n
        if keep_t is not None:
            h = jnp.where(keep_t, h / (1 - dropout), jnp.zeros_like(h))
        return h, h

    h_n, outputs = lax.scan(step, h_0, (dense(inputs), keep))
    return outputs, h_n
