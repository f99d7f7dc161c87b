"""The model: sizes, initial distributions, carried state, types."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from astra_jax.config import DtypeName, ModelConfig
from astra_jax.dropout import draw_keep
from astra_jax.errors import InputError
from astra_jax.gru import gru
from astra_jax.model import GRULanguageModel, arithmetic, parameters
from astra_jax.presets import PRESETS

TINY = ModelConfig(
    vocab_size=11, embedding_dim=5, hidden_dim=7, num_layers=2, dropout=0.25, layer_norm=True
)


def new_model(config: ModelConfig = TINY, dtype: DtypeName = "float32") -> GRULanguageModel:
    return GRULanguageModel(config, dtype=dtype, rngs=nnx.Rngs(params=0))


def test_parameters_begin_in_torchs_distributions():
    model = new_model(PRESETS["names", "gamma"].model)
    embedding = np.asarray(model.embedding.embedding[...])
    assert abs(embedding.mean()) < 4 / np.sqrt(embedding.size)
    assert abs(embedding.std() - 1) < 4 / np.sqrt(2 * embedding.size)
    head, first, second = model.head, model.layers[0], model.layers[1]
    assert head.bias is not None
    for values, fan_in in [
        (head.kernel, 512),
        (head.bias, 512),
        (first.kernel_ih, 128),
        (first.bias_ih, 128),
        (first.kernel_hh, 512),
        (second.kernel_ih, 512),
        (second.bias_ih, 512),
    ]:
        scaled = np.asarray(values[...]).ravel() * np.sqrt(fan_in)
        assert np.abs(scaled).max() <= 1
        # A uniform distribution over [-1, 1]: variance 1/3, and values up to both ends.
        assert abs(scaled.var() - 1 / 3) < 4 * np.sqrt(4 / 45 / scaled.size)
        assert np.abs(scaled).max() > 1 - 20 / scaled.size
    assert not np.any(np.asarray(first.bias_hh[...]))


def test_all_gates_and_layers_begin_with_numbers_of_their_own():
    leaves = jax.tree.leaves(parameters(new_model()))
    drawn = np.concatenate([np.ravel(leaf) for leaf in leaves])
    drawn = drawn[(drawn != 0) & (drawn != 1)]
    assert len(np.unique(drawn)) == len(drawn)


def test_a_sequence_in_two_pieces_is_the_sequence():
    model = new_model()
    tokens = jax.random.randint(jax.random.key(0), (3, 9), 0, 11, jnp.int32)
    whole, last = model(tokens)
    first, state = model(tokens[:, :4])
    second, state = model(tokens[:, 4:], state)
    pieces = np.concatenate([first, second], axis=1)
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-6)
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-6)
    assert whole.shape == (3, 9, 11)


def test_a_dropped_element_is_zero_and_the_others_are_scaled_and_carried():
    model = new_model()
    tokens = jnp.zeros((2, 6), jnp.int32)
    keep = draw_keep(jax.random.key(1), TINY, 2, 6)
    assert keep is not None
    hiddens, _ = model.hidden_states(tokens, keep=keep)
    for hidden, kept in zip(hiddens, keep, strict=True):
        np.testing.assert_array_equal(np.asarray(hidden) != 0, kept)
    undropped, _ = model.hidden_states(tokens)
    first_step = np.where(keep[0, 0], undropped[0][0] / 0.75, 0)
    np.testing.assert_allclose(hiddens[0][0], first_step, rtol=1e-6)
    # Carried: dropping at the first step alone changes what later steps compute.
    only_first = keep.at[:, 1:].set(True)
    carried, _ = model.hidden_states(tokens, keep=only_first)
    assert (np.asarray(carried[0][1]) != np.asarray(undropped[0][1]) / 0.75).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_every_type_begins_with_the_same_weights(dtype: DtypeName):
    tokens = jnp.arange(11, dtype=jnp.int32)[None]
    expected = new_model()(tokens)[0]
    # Flax's own LayerNorm promotes implicitly in float64.
    with arithmetic(dtype), jax.numpy_dtype_promotion("standard"):
        logits, state = new_model(TINY, dtype)(tokens)
        dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(parameters(new_model(TINY, dtype)))}
    stored = "float64" if dtype == "float64" else "float32"
    assert dtypes == {stored} == {logits.dtype.name, state.dtype.name}
    difference = np.abs(np.asarray(logits, np.float64) - np.asarray(expected, np.float64)).max()
    assert difference < (5e-2 if dtype == "bfloat16" else 1e-5)
    if dtype != "float32":
        assert difference > 0


def test_bfloat16_rounds_what_is_multiplied_and_no_bias():
    model = new_model(TINY, "bfloat16")
    assert model.head.bias is not None
    model.head.kernel[...] = jnp.zeros_like(model.head.kernel[...])
    logits = model.logits(jnp.ones((2, 7)))
    np.testing.assert_array_equal(logits, np.broadcast_to(model.head.bias[...], (2, 11)))


def test_a_layer_is_called_as_the_model_calls_it():
    model, rng = new_model(), np.random.default_rng(0)
    inputs, h_0 = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 3, 5), (3, 7)))
    keep = jnp.asarray(rng.random((4, 3, 7)) < 0.5)
    layer = model.layers[0]
    outputs, last = layer(inputs, h_0, keep, 0.5)
    (expected,), _ = gru([layer.weights], inputs, h_0[None], keep[None], 0.5)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(last, outputs[-1])
    np.testing.assert_array_equal(layer(inputs)[0], layer(inputs, jnp.zeros_like(h_0))[0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", ["backend", "dtype", "dropout_on"])
def test_a_model_refuses_what_it_could_not_compute(wrong: str):
    with pytest.raises(InputError, match=r"unknown .*'nope': choose one of"):
        cast(Any, GRULanguageModel)(TINY, **{wrong: "nope"}, rngs=nnx.Rngs(params=0))


def test_a_float64_model_is_not_made_of_float32() -> None:
    with pytest.raises(InputError, match=r"products of float64 .*jax_enable_x64"):
        GRULanguageModel(PRESETS["shakespeare", "alpha"].model, dtype="float64", rngs=nnx.Rngs(0))
