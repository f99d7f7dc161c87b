"""Flax NNX modules around `gru`: one layer, and the language model of both studies."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from astra_jax.config import DropoutPlace, DtypeName, ModelConfig, param_dtype
from astra_jax.errors import InputError
from astra_jax.gru import (
    Embedded,
    GRUWeights,
    Stepper,
    gru,
    require_choices,
    require_dtype,
    stepper,
)
from astra_jax.initializers import standard_normal, uniform_fan_in

Reader = Callable[
    [Int[Array, " B"], Float[Array, "L B H"]], tuple[Float[Array, "B V"], Float[Array, "L B H"]]
]
"""Takes a token of each text, and the layers' states before it, to the next token's logits and
the states after it."""

LAYER_NORM_EPSILON = 1e-5
"""torch's default, ten times Flax's."""


class GRULayer(nnx.Module):
    """One recurrent layer; equations and gate order in `astra_jax.gru`."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Draws the weights as torch does; the second biases of r and z begin at zero."""
        from_input, from_state = uniform_fan_in(input_dim), uniform_fan_in(hidden_dim)
        self.kernel_ih = nnx.Param(
            from_input(rngs.params(), (3, input_dim, hidden_dim), param_dtype)
        )
        self.kernel_hh = nnx.Param(
            from_state(rngs.params(), (3, hidden_dim, hidden_dim), param_dtype)
        )
        self.bias_ih = nnx.Param(from_input(rngs.params(), (3, hidden_dim), param_dtype))
        self.bias_hh = nnx.Param(jnp.zeros((2, hidden_dim), param_dtype))

    def __call__(
        self,
        inputs: Float[Array, "T B I"],
        h_0: Float[Array, "B H"] | None = None,
        keep: Bool[Array, "T B H"] | None = None,
        dropout: float = 0.0,
    ) -> tuple[Float[Array, "T B H"], Float[Array, "B H"]]:
        """Runs the layer over time; returns its states after every step, and the last.

        Args:
            inputs: time first.
            h_0: the state before the first step; None is zeros.
            keep: which elements of each new state survive dropout; None drops nothing.
            dropout: the probability that `keep` was drawn with.
        """
        if h_0 is None:
            h_0 = jnp.zeros((inputs.shape[1], self.bias_hh.shape[-1]), self.bias_hh.dtype)
        masks = None if keep is None else keep[None]
        (hidden,), last = gru([self.weights], inputs, h_0[None], masks, dropout)
        return hidden, last[0]

    @property
    def weights(self) -> GRUWeights:
        """The arrays, as `gru` takes them."""
        return GRUWeights(
            self.kernel_ih[...], self.kernel_hh[...], self.bias_ih[...], self.bias_hh[...]
        )


class GRULanguageModel(nnx.Module):
    """Embedding, stacked GRU layers, optional LayerNorm, linear head.

    The operands of matrix products are of `dtype`; their sums, parameters, states, the norm and
    the logits are of `config.param_dtype`, so bfloat16 does not wear the carried state away.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: DtypeName = "float32",
        dropout_on: DropoutPlace = "states",
        backend: str | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Draws a new model of the given shape, in torch's default distributions.

        Args:
            config: the shape.
            dtype: of the matrix products.
            dropout_on: what dropout falls on; see `astra_jax.gru.gru`.
            backend: of the recurrence; see there, too. `jax.jvp` and `jax.hessian` need `scan`.
            remat: whether gradients are to cost time rather than memory.
            rngs: where the weights come from.

        Raises:
            InputError: there is no such type, place of dropout or backend, or the type is float64,
                which is off in JAX.
        """
        require_choices(backend, dropout_on, config.dropout)
        if dtype not in get_args(DtypeName):
            known = ", ".join(get_args(DtypeName))
            raise InputError(f"unknown dtype {dtype!r}: choose one of {known}")
        compute, param = jnp.dtype(dtype), jnp.dtype(param_dtype(dtype))
        require_dtype(compute)
        hidden = config.hidden_dim
        widths = [config.embedding_dim] + [hidden] * (config.num_layers - 1)
        self.config = config
        self.dtype = compute
        self.dropout_on: DropoutPlace = dropout_on
        self.backend, self.remat = backend, remat
        self.embedding = nnx.Embed(
            config.vocab_size,
            config.embedding_dim,
            param_dtype=param,
            embedding_init=standard_normal(),
            rngs=rngs,
        )
        self.layers = nnx.List(
            GRULayer(width, hidden, param_dtype=param, rngs=rngs) for width in widths
        )
        self.norm = _layer_norm(hidden, param, rngs) if config.layer_norm else None
        self.head = nnx.Linear(
            hidden,
            config.vocab_size,
            dtype=compute,
            param_dtype=param,
            kernel_init=uniform_fan_in(hidden),
            bias_init=uniform_fan_in(hidden),
            promote_dtype=_only_operands,
            preferred_element_type=param,
            rngs=rngs,
        )

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        h_0: Float[Array, "L B H"] | None = None,
        keep: Bool[Array, "L T B H"] | None = None,
    ) -> tuple[Float[Array, "B T V"], Float[Array, "L B H"]]:
        """Returns the logits of every next token, and the layers' last states.

        Args:
            tokens: ids of the characters read.
            h_0: the layers' states before the first character; None is zeros.
            keep: dropout's survivors, from `dropout.draw_keep`; None is evaluation.
        """
        hiddens, last = self.hidden_states(tokens, h_0, keep)
        return self.logits(hiddens[-1]).swapaxes(0, 1), last

    def hidden_states(
        self,
        tokens: Int[Array, "B T"],
        h_0: Float[Array, "L B H"] | None = None,
        keep: Bool[Array, "L T B H"] | None = None,
    ) -> tuple[list[Float[Array, "T B H"]], Float[Array, "L B H"]]:
        """Returns each layer's time-major outputs, and the layers' last states."""
        # Time-major from the start: transposing ids costs nothing, transposing states would.
        inputs = Embedded(self.embedding.embedding[...], tokens.T)
        return gru(
            [layer.weights for layer in self.layers],
            inputs,
            self.initial_state(tokens.shape[0]) if h_0 is None else h_0,
            keep,
            self.config.dropout,
            dropout_on=self.dropout_on,
            dtype=self.dtype,
            backend=self.backend,
            remat=self.remat,
        )

    def logits(self, hidden: Float[Array, "*batch H"]) -> Float[Array, "*batch V"]:
        """Returns the logits of the next token, of the last layer's outputs."""
        outputs = hidden if self.norm is None else self.norm(hidden)
        return self.head(outputs)

    def stepper(self, num: int) -> Stepper:
        """Returns the recurrence laid out for N texts: to be built once, used for every chunk."""
        weights = [layer.weights for layer in self.layers]
        return stepper(weights, self.embedding.embedding[...], self.dtype, num=num)

    def reader(self, step: Stepper) -> Reader:
        """Returns a call with one token, for loops that do not know the next one beforehand.

        It computes what the model called with one token does, without dropout, and several
        times as fast.
        """

        def read(ids, h):
            h = step(ids, h)
            return self.logits(h[-1]), h

        return read

    def initial_state(self, batch_size: int) -> Float[Array, "L B H"]:
        """Returns the zero states that every sequence begins with."""
        shape = (self.config.num_layers, batch_size, self.config.hidden_dim)
        return jnp.zeros(shape, self.embedding.param_dtype)


def _only_operands(arrays: Any, *, dtype: Any = None, inexact: bool = True) -> Any:
    """Casts what a layer multiplies. Flax would round its bias too, which is added to the sum."""
    del inexact  # There are no whole numbers here.
    inputs, kernel, bias = arrays
    return inputs.astype(dtype), kernel.astype(dtype), bias


def _layer_norm(width: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, loses digits that torch's does not.
    return nnx.LayerNorm(
        width, epsilon=LAYER_NORM_EPSILON, param_dtype=dtype, use_fast_variance=False, rngs=rngs
    )


def parameters(model: GRULanguageModel) -> nnx.State:
    """Returns a model's parameters as a tree."""
    return nnx.state(model, nnx.Param)


@contextlib.contextmanager
def arithmetic(dtype: DtypeName) -> Iterator[None]:
    """Enables float64, off by default, inside the block if `dtype` is float64; never disables it.

    In all threads, unlike `jax.enable_x64`: Orbax reads and writes in threads of its own. So
    blocks of several threads must not overlap: the first one to end would end it for all.
    """
    enabled: bool = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    if enabled or dtype != "float64":
        yield
        return
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)
