"""The recurrence of both studies, a pure function on arrays with interchangeable backends."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

from astra_jax.config import DropoutPlace
from astra_jax.errors import InputError
from astra_jax.gru.fused import fused_gru
from astra_jax.gru.inputs import Embedded, Inputs
from astra_jax.gru.layerwise import StackBackend, drop_outputs, layerwise
from astra_jax.gru.pallas import pallas_gru
from astra_jax.gru.scan import scan_gru
from astra_jax.gru.segments import segmented
from astra_jax.gru.step import Stepper, stepper
from astra_jax.gru.wavefront import wavefront_gru
from astra_jax.gru.weights import GRUWeights

__all__ = [
    "BACKENDS",
    "Embedded",
    "GRUWeights",
    "Stepper",
    "gru",
    "require_choices",
    "require_dtype",
    "stepper",
]


class Backend(NamedTuple):
    """A way to compute `gru`.

    Attributes:
        run: computes it, with `dtype` for its last argument.
        states_kept: arrays [T, B, H] a layer that its backward pass reads from the forward pass or
            creates: gates, states, their projections, gradients and transposes. Read off what XLA
            reserves on a CPU; `test_sizing.py` holds a training's estimated memory against it.
    """

    run: StackBackend
    states_kept: int


BACKENDS: dict[str, Backend] = {
    "scan": Backend(functools.partial(layerwise, scan_gru), states_kept=11),
    "fused": Backend(functools.partial(layerwise, fused_gru), states_kept=7),
    "wavefront": Backend(wavefront_gru, states_kept=11),
    "pallas": Backend(functools.partial(layerwise, pallas_gru), states_kept=11),
}
"""`scan` is the truth that the others are held to."""

DEFAULT_BACKENDS: dict[str, str] = {
    "cpu": "fused",  # Faster than the scan for every preset: results/benchmarks/README.md.
    "gpu": "wavefront",  # Measured on an H200: results/benchmarks/gpu.md.
    "tpu": "fused",  # Not measured.
}
"""Which backend a platform takes for all shapes, if nobody names one."""


def gru(
    layers: Sequence[GRUWeights],
    inputs: Inputs,
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None = None,
    dropout: float = 0.0,
    *,
    dropout_on: DropoutPlace = "states",
    dtype: DTypeLike | None = None,
    backend: str | None = None,
    remat: bool = False,
) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
    r"""Runs stacked layers of the single-bias GRU over time.

    At every step of a layer, with `x` the input and `h` the state before it:

        r = sigmoid(x Wrx + b_rx + h Wrh + b_r)
        z = sigmoid(x Wzx + b_zx + h Wzh + b_z)
        n = tanh   (x Wx  + b_x  + (r * h) Wh)
        h' = dropout((1 - z) * h + z * n)

    The reset gate acts *before* the recurrent product, as in Cho et al. 2014
    (arXiv:1406.1078); cuDNN, `torch.nn.GRU` and `flax.nnx.GRUCell` apply it after. `z` is the
    share of the *new* value. The dropped-out `h'` is the output, the next layer's input, and the
    state carried on.

    Args:
        layers: the parameters of each layer.
        inputs: of the first layer, time first.
        h_0: states before the first step; their type is that of all states, inputs and parameters.
        keep: which elements of each new state survive dropout; None drops nothing.
        dropout: the probability that `keep` was drawn with: survivors are divided by
            `1 - dropout`.
        dropout_on: `states`, as above, or `outputs`: what a layer hands up is dropped out, the
            state being carried on whole, as in Zaremba, Sutskever and Vinyals 2014
            (arXiv:1409.2329).
        dtype: type of the matrix products' operands; None takes that of the state.
        backend: a name out of `BACKENDS`, which then runs or raises; None chooses.
        remat: whether the backward pass is to compute states anew rather than find them kept.

    Returns:
        What each layer hands up after every step, and the last states. Every backend has a
        gradient. Forward mode (`jax.jvp`, `jax.hessian`) needs the backend `scan`: the others have
        backward passes of their own. A gradient of a gradient needs any but `pallas`.

    Raises:
        InputError: there is no such backend or place of dropout, shapes or types do not fit
            together, float64 is asked for and off in JAX, or there is nothing to run: no layer, no
            step, or no batch.
    """
    dtype = h_0.dtype if dtype is None else dtype
    require_choices(backend, dropout_on, dropout)
    _check_shapes(layers, inputs, h_0, keep)
    _check_types(layers, inputs, h_0, dtype)
    backend = backend or DEFAULT_BACKENDS[jax.default_backend()]
    how = float(dropout), dropout_on, jnp.dtype(dtype), backend, remat
    return _run(layers, inputs, h_0, keep, *how)


# Compiled as a whole: outside of a compiled program each call would compile its loops anew, as
# their bodies are new functions.
@functools.partial(
    jax.jit, static_argnames=("dropout", "dropout_on", "dtype", "backend", "remat"), inline=True
)
def _run(
    layers: Sequence[GRUWeights],
    inputs: Inputs,
    h_0: Float[Array, "L B H"],
    keep: Bool[Array, "L T B H"] | None,
    dropout: float,
    dropout_on: DropoutPlace,
    dtype: DTypeLike,
    backend: str,
    remat: bool,
) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
    """Does what `gru` does, of arguments that are checked."""
    run = BACKENDS[backend].run
    if remat:
        run = functools.partial(segmented, run)
    if dropout_on == "outputs" and keep is not None:  # Layer by layer, which costs a GPU time.
        run = functools.partial(drop_outputs, run)
    return run(layers, inputs, h_0, keep, dropout, dtype)


def require_choices(backend: str | None, dropout_on: str, dropout: float) -> None:
    """Checks what would otherwise be misread, or fail far from here.

    Raises:
        InputError: there is no such backend or place of dropout, or no such rate.
    """
    for name, value, known in (
        ("GRU backend", backend, (None, *BACKENDS)),
        ("dropout_on", dropout_on, get_args(DropoutPlace)),
    ):
        if value not in known:
            names = ", ".join(filter(None, known))
            raise InputError(f"unknown {name} {value!r}: choose one of {names}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be at least 0 and below 1, got {dropout}")


def require_dtype(dtype: DTypeLike) -> None:
    """Refuses float64 where it is off in JAX, which would take float32, as an `InputError`."""
    found = jax.dtypes.canonicalize_dtype(dtype)
    if found != jnp.dtype(dtype):
        raise InputError(
            f"products of {jnp.dtype(dtype)} are asked for, and JAX would compute in "
            f'{found}: call jax.config.update("jax_enable_x64", True) first'
        )


def _check_shapes(
    layers: Sequence[GRUWeights], inputs: Inputs, h_0: Array, keep: Array | None
) -> None:
    """Refuses what would otherwise broadcast into a wrong result."""
    if not layers:
        raise InputError("there is no layer to run: give at least one")
    if len(inputs.shape) != 3 or 0 in inputs.shape:
        raise InputError(
            f"inputs have shape {inputs.shape}, expected [T, B, E] with at least one of each"
        )
    time, batch, width = inputs.shape
    if len(h_0.shape) != 3 or not h_0.shape[-1]:
        raise InputError(f"h_0 has shape {h_0.shape}, expected [L, B, H] with H at least 1")
    hidden = h_0.shape[-1]
    expected: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    expected["h_0"] = h_0.shape, (len(layers), batch, hidden)
    if keep is not None:
        expected["keep"] = (keep.shape, (len(layers), time, batch, hidden))
    for index, weights in enumerate(layers):
        shapes = [(3, width, hidden), (3, hidden, hidden), (3, hidden), (2, hidden)]
        for (name, array), shape in zip(weights._asdict().items(), shapes, strict=True):
            expected[f"{name} of layer {index}"] = (array.shape, shape)
        width = hidden
    for name, (given, wanted) in expected.items():
        if given != wanted:
            raise InputError(f"{name} has shape {given}, expected {wanted}")


def _check_types(
    layers: Sequence[GRUWeights], inputs: Inputs, h_0: Array, dtype: DTypeLike
) -> None:
    """Refuses what some backends would promote, each in its own way, and others fail on."""
    require_dtype(dtype)
    wanted = jnp.result_type(h_0)
    if not jnp.issubdtype(wanted, jnp.floating):
        raise InputError(f"the type of h_0 is {wanted}, expected one of floating-point numbers")
    given = {"inputs": inputs.dtype}
    for index, weights in enumerate(layers):
        given |= {f"{name} of layer {index}": a.dtype for name, a in weights._asdict().items()}
    for name, found in given.items():
        if jnp.result_type(found) != wanted:
            raise InputError(
                f"the type of {name} is {found}, expected that of h_0, {wanted}: "
                "the type of the products' operands alone is `dtype`"
            )
