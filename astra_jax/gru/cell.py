"""One step of one layer: its equations, and their gradient by hand.

Two backends have equations of their own: `scan`, as the truth that the others are held to, and
`wavefront`, which takes all layers and two gates at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Product = Callable[[Float[Array, "B H"]], Float[Array, "B H"]]
"""Multiplication by a recurrent kernel. The candidate's is passed as a function, since its operand,
r * h, exists only inside the step."""


class Gates(NamedTuple):
    """One value each for reset gate, update gate and candidate."""

    r: Float[Array, "*batch H"]
    z: Float[Array, "*batch H"]
    n: Float[Array, "*batch H"]


def gru_cell(
    h: Float[Array, "B H"],
    x: Gates,
    through_r: Float[Array, "B H"],
    through_z: Float[Array, "B H"],
    through_n: Product,
) -> tuple[Float[Array, "B H"], Gates]:
    """Returns the next state, before dropout, and the gates.

    Args:
        h: the state.
        x: what the input and all biases contribute to the gates.
        through_r: the state's product with the reset gate's kernel.
        through_z: the same with the update gate's.
        through_n: multiplies the reset state, r * h, by the candidate's kernel.
    """
    r = jax.nn.sigmoid(x.r + through_r)
    z = jax.nn.sigmoid(x.z + through_z)
    n = jnp.tanh(x.n + through_n(r * h))
    return (1 - z) * h + z * n, Gates(r, z, n)


def drop(
    x: Float[Array, "*batch H"], keep: Bool[Array, "*batch H"] | None, dropout: float
) -> Float[Array, "*batch H"]:
    """Returns what survives dropout, divided by 1 - dropout; None drops nothing.

    It is its own gradient: that of the result, dropped in the same places, is that of `x`.
    """
    if keep is None:
        return x
    return jnp.where(keep, x * (1 / (1 - dropout)), jnp.zeros_like(x))


def gru_cell_vjp(
    grad: Float[Array, "B H"], h: Float[Array, "B H"], gates: Gates, through_n: Product
) -> tuple[Float[Array, "B H"], Gates]:
    """Returns the gradients of `h`, without the part through r's and z's kernels, and of `x`.

    Args:
        grad: of the next state, before dropout.
        h: the state, as `gru_cell` was given it.
        gates: as it returned them.
        through_n: multiplies with the candidate's kernel, transposed.
    """
    r, z, n = gates
    grad_n = grad * z * (1 - n * n)
    grad_z = grad * (n - h) * z * (1 - z)
    grad_reset = through_n(grad_n)
    grad_r = grad_reset * h * r * (1 - r)
    return grad * (1 - z) + grad_reset * r, Gates(grad_r, grad_z, grad_n)
