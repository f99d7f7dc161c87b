"""The part of a layer that has no recurrence in it: what its inputs contribute to the gates.

Biases are not part of it: a step adds them in passing, here it would take a pass over all of time.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from astra_jax.gru.cell import Gates
from astra_jax.gru.inputs import Embedded, Inputs, dense, project_first
from astra_jax.gru.weights import GRUWeights


def project(weights: GRUWeights, inputs: Inputs, dtype: DTypeLike) -> Gates:
    """Returns what the inputs contribute to the gates, at every step."""
    if isinstance(inputs, Embedded) and project_first(*inputs.table.shape):
        tables = (dot(inputs.table, kernel, dtype) for kernel in weights.kernel_ih)
        return Gates(*(_look_up(table, inputs.ids) for table in tables))
    products: Gates = _products(dense(inputs), weights.kernel_ih, dtype)
    return products


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _products(
    values: Float[Array, "T B I"], kernels: Float[Array, "3 I H"], dtype: DTypeLike
) -> Gates:
    """Returns the inputs multiplied with each gate's kernel.

    With a backward pass of its own for the sake of `transpose`, which JAX's would do without.
    """
    return Gates(*(dot(values, kernel, dtype) for kernel in kernels))


def _products_forward(values, kernels, dtype):
    return _products(values, kernels, dtype), (values, kernels)


def _products_backward(dtype, saved, grads):
    values, kernels = saved
    transposed = transpose(values, dtype)
    through = [dot(grad, kernel.T, dtype) for grad, kernel in zip(grads, kernels, strict=True)]
    return sum(through), jnp.stack([outer(transposed, grad, dtype) for grad in grads])


_products.defvjp(_products_forward, _products_backward)


@jax.custom_vjp
def _look_up(table: Float[Array, "V H"], ids: Int[Array, "T B"]) -> Float[Array, "T B H"]:
    """Returns rows of a table.

    Its gradient is a product with one-hot rows. Scattered instead, some thousand numbers would be
    added up one after the other, which loses digits in float32, and on a GPU in an order that
    differs from run to run.
    """
    return table[ids]


def _look_up_forward(table, ids):
    return table[ids], (ids, len(table))


def _look_up_backward(saved, grad):
    ids, length = saved
    rows = jnp.where(ids < 0, ids + length, ids)  # A negative one counts from the table's end.
    chosen = jax.nn.one_hot(rows.reshape(-1), length, dtype=grad.dtype, axis=0)
    return chosen @ grad.reshape(-1, grad.shape[-1]), None


_look_up.defvjp(_look_up_forward, _look_up_backward)


def summed_biases(weights: GRUWeights) -> Float[Array, "3 H"]:
    """Returns the sum of each gate's biases, in the order r, z, n."""
    bias_r, bias_z, bias_n = weights.bias_ih
    return jnp.stack([bias_r + weights.bias_hh[0], bias_z + weights.bias_hh[1], bias_n])


def dot(
    values: Float[Array, "*batch I"], kernel: Float[Array, "I J"], dtype: DTypeLike
) -> Float[Array, "*batch J"]:
    """Casts both operands to `dtype`; sums and returns in the values' own type."""
    return jnp.dot(values.astype(dtype), kernel.astype(dtype), preferred_element_type=values.dtype)


def transpose(read: Float[Array, "T B I"], dtype: DTypeLike) -> Float[Array, "I TB"]:
    """Returns what a kernel was multiplied with, time and batch last, for `outer`.

    On a CPU it is laid down so, once for all gates. The compiler would rather rewrite the product
    into one that sums over the rows of both operands; XLA's fast products on a CPU are
    not of that kind, and its others take 1.2 to 1.6 times as long. It is transposed before time
    and batch become one axis: after that the compiler widens bfloat16 to float32 for the product.
    """
    transposed = jnp.transpose(read.astype(dtype), (2, 0, 1))
    if jax.default_backend() == "cpu":
        transposed = lax.optimization_barrier(transposed)
    return transposed.reshape(len(transposed), -1)


def outer(
    transposed: Float[Array, "I TB"], grads: Float[Array, "T B H"], dtype: DTypeLike
) -> Float[Array, "I H"]:
    """Returns the gradient of a kernel: the outer products of all steps, in one product."""
    rows = grads.reshape(-1, grads.shape[-1])
    return jnp.dot(transposed, rows.astype(dtype), preferred_element_type=grads.dtype)
