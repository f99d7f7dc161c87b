"""The recurrence of both studies, a pure function on arrays with interchangeable backends."""

from collections.abc import Callable

from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.gru.scan import scan_gru
from astra_jax.gru.weights import GRUWeights

__all__ = ["BACKENDS", "GRUWeights", "gru"]

BACKENDS: dict[str, Callable[..., tuple[Array, Array]]] = {"scan": scan_gru}
"""The ways to compute `gru`, all of one signature; `scan` is the truth that others are held to."""


def gru(
    weights: GRUWeights,
    inputs: Float[Array, "T B E"],
    h_0: Float[Array, "B H"],
    keep: Bool[Array, "T B H"] | None = None,
    dropout: float = 0.0,
    *,
    dtype: DTypeLike | None = None,
    backend: str | None = None,
) -> tuple[Float[Array, "T B H"], Float[Array, "B H"]]:
    r"""Runs one layer of the single-bias GRU over time.

    At every step, with `x` the input and `h` the state before it:

        r = sigmoid(x Wrx + b_rx + h Wrh + b_r)
        z = sigmoid(x Wzx + b_zx + h Wzh + b_z)
        n = tanh   (x Wx  + b_x  + (r * h) Wh)
        h' = dropout((1 - z) * h + z * n)

    The reset gate acts *before* the recurrent product, as in Cho et al. 2014
    (arXiv:1406.1078); cuDNN, `torch.nn.GRU` and `flax.nnx.GRUCell` apply it after. `z` is the
    share of the *new* value. The dropped-out `h'` is both the output and the state carried on.

    Args:
        weights: the layer's parameters.
        inputs: time-major inputs.
        h_0: state before the first step; its type is the type of all states.
        keep: which elements of each new state survive dropout; None drops nothing.
        dropout: the probability that `keep` was drawn with: survivors are divided by
            `1 - dropout`.
        dtype: type of the matrix products' operands; None takes that of the state.
        backend: a name out of `BACKENDS`, which then runs or raises; None chooses.

    Returns:
        The states after every step, and the last of them.

    Raises:
        ValueError: there is no such backend, or the shapes do not fit together.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown GRU backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    _check_shapes(weights, inputs, h_0, keep)
    run = BACKENDS[backend or "scan"]
    return run(weights, inputs, h_0, keep, dropout, h_0.dtype if dtype is None else dtype)


def _check_shapes(weights: GRUWeights, inputs: Array, h_0: Array, keep: Array | None) -> None:
    """Refuses what would otherwise broadcast into a wrong result."""
    time, batch, width = inputs.shape
    hidden = h_0.shape[-1]
    expected = {
        "h_0": (h_0.shape, (batch, hidden)),
        "kernel_ih": (weights.kernel_ih.shape, (3, width, hidden)),
        "kernel_hh": (weights.kernel_hh.shape, (3, hidden, hidden)),
        "bias_ih": (weights.bias_ih.shape, (3, hidden)),
        "bias_hh": (weights.bias_hh.shape, (2, hidden)),
    }
    if keep is not None:
        expected["keep"] = (keep.shape, (time, batch, hidden))
    for name, (given, wanted) in expected.items():
        if given != wanted:
            raise ValueError(f"{name} has shape {given}, expected {wanted}")
