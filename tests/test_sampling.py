"""Picks follow their distributions; generation carries the state, or does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from astra_jax.config import DtypeName, ModelConfig
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.machine import placement
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.sampling import sampler, writing
from astra_jax.sampling.draws import draw_uniforms, sample_key
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature, TopK, cumulate
from astra_jax.sampling.writing import Writer

TEXT = Vocabulary.of_text("abcdefgh \n")
WORDS = Vocabulary.of_words(["abcdefgh"])
LOGITS = jnp.array([[0.5, -1.0, 2.0, 0.0, 1.5]])


def model_of(
    vocabulary: Vocabulary, seed: int = 0, dtype: DtypeName = "float32"
) -> GRULanguageModel:
    config = ModelConfig(
        vocab_size=len(vocabulary),
        embedding_dim=6,
        hidden_dim=16,
        num_layers=2,
        dropout=0.5,
        layer_norm=False,
    )
    model = GRULanguageModel(config, dtype=dtype, rngs=nnx.Rngs(params=seed))
    model.head.kernel[...] = model.head.kernel[...] * 8  # A new model hardly prefers anything.
    return model


def shares(strategy: Temperature | TopK, draws: int = 20_000) -> np.ndarray:
    uniforms = (jnp.arange(draws, dtype=jnp.float32) + 0.5) / draws
    picked = jax.jit(strategy.pick)(jnp.repeat(LOGITS, draws, axis=0), uniforms)
    return np.bincount(np.asarray(picked), minlength=5) / draws


def test_temperature_draws_from_the_softmax():
    expected = np.asarray(jax.nn.softmax(LOGITS[0] / 0.7))
    np.testing.assert_allclose(shares(Temperature(0.7)), expected, atol=1e-4)


@pytest.mark.parametrize("length", [1, 28, 128, 129, 256, 5000])
def test_weights_are_cumulated(length: int):
    weights = np.random.default_rng(length).random((3, 2, length), np.float32)
    expected = np.cumsum(weights, axis=-1, dtype=np.float64)
    np.testing.assert_allclose(jax.jit(cumulate)(weights), expected, rtol=1e-6)


def test_temperature_draws_from_the_softmax_of_all_bytes():
    rng = np.random.default_rng(0)
    logits, draws = 2 * rng.standard_normal(256).astype(np.float32), 20_000
    uniforms = (jnp.arange(draws, dtype=jnp.float32) + 0.5) / draws
    picked = jax.jit(Temperature(0.7).pick)(jnp.tile(logits, (draws, 1)), uniforms)
    expected = np.asarray(jax.nn.softmax(logits / 0.7))
    np.testing.assert_allclose(np.bincount(picked, minlength=256) / draws, expected, atol=1e-4)


def test_top_k_draws_from_the_k_best_only():
    best = np.array([0, 2, 4])
    expected = np.zeros(5)
    expected[best] = np.asarray(jax.nn.softmax(LOGITS[0, best] / 1.3))
    np.testing.assert_allclose(shares(TopK(3, 1.3)), expected, atol=1e-4)


def test_a_tiny_temperature_is_greedy():
    uniforms = jnp.linspace(0, 0.999, 7)
    logits = jnp.repeat(LOGITS, 7, axis=0)
    for temperature in (1e-3, 1e-10, 1e-30, 1e-46):
        assert jax.jit(Temperature(temperature).pick)(logits, uniforms).tolist() == [2] * 7


def test_picks_stay_inside_the_vocabulary_at_the_ends_of_the_interval():
    ends = jnp.array([0.0, np.nextafter(np.float32(1), np.float32(0))])
    logits = jnp.array([[-jnp.inf, 0.0, 1.0, -jnp.inf]] * 2)
    assert Temperature().pick(logits, ends).tolist() == [1, 2]
    assert Greedy().pick(jnp.array([[1.0, 3.0, 3.0]]), ends[:1]).tolist() == [1]


def by_hand(model: GRULanguageModel, prompt: str, length: int, stateful: bool) -> str:
    # One program for all lengths: what follows the last character cannot change its logits.
    run = jax.jit(lambda ids: model(ids)[0][0])
    text = prompt
    for _ in range(length):
        seen = TEXT.encode(text if stateful else text[-1])
        logits = run(jnp.asarray(np.pad(seen, (0, 40 - len(seen))))[None])
        text += TEXT.tokens[int(np.argmax(logits[len(seen) - 1]))]
    return text


@pytest.mark.parametrize("stateful", [True, False])
def test_greedy_text_is_that_of_rerunning_the_context(stateful: bool):
    model = model_of(TEXT, seed=3)
    (text,) = Writer(model, TEXT).generate(
        "abc ", Greedy(), jax.random.key(0), length=24, stateful=stateful
    )
    assert text == by_hand(model, "abc ", 24, stateful)


def test_carrying_the_state_matters():
    writer, how = Writer(model_of(TEXT), TEXT), ("abc ", Temperature(), jax.random.key(0))
    assert writer.generate(*how, stateful=True) != writer.generate(*how, stateful=False)


def test_one_program_writes_at_every_temperature(caplog):
    writer, key = Writer(model_of(TEXT), TEXT), jax.random.key(0)
    texts = writer.generate("ab", TopK(5, 0.75), key)
    with jax.log_compiles():
        other = writer.generate("ab", TopK(5, 1.75), key, length=300)
        assert "Compiling" not in caplog.text
        writer.generate("ab", TopK(4, 0.75), key)
    assert "Compiling" in caplog.text
    assert texts != other
    assert writer.generate("ab", TopK(5, 0.75), key) == texts


def test_a_float64_model_writes_in_float64_whoever_asks():
    with arithmetic("float64"):
        model = model_of(TEXT, dtype="float64")
    ids = sampler.Sampler(model).continue_ids(
        np.zeros((1, 1), np.int32), 3, _Width(), jax.random.key(0), True
    )
    assert ids.tolist() == [[8, 8, 8]]


@jax.tree_util.register_static
class _Width:
    def pick(self, logits: jax.Array, uniforms: jax.Array) -> jax.Array:
        return jnp.full_like(uniforms, logits.dtype.itemsize, jnp.int32)


def test_a_writer_gets_ready_once_for_as_many_texts(monkeypatch: pytest.MonkeyPatch):
    model, calls, begin = model_of(TEXT), [], sampler.begin

    def counted(graph, params, num, mesh):
        calls.append(num)
        return begin(graph, params, num, mesh)

    monkeypatch.setattr(sampler, "begin", counted)
    writer, how = Writer(model, TEXT), ("ab", Temperature(), jax.random.key(0))
    texts = writer.generate(*how)
    model.head.kernel[...] = -model.head.kernel[...]
    assert writer.generate(*how) == texts  # It writes with the parameters that it was given.
    assert Writer(model, TEXT).generate(*how) != texts
    writer.generate(*how, num=2, stateful=False)
    writer.generate("abc", Greedy(), jax.random.key(1), num=2, length=300)
    assert calls == [1, 1, 2]


def test_samples_follow_the_seed_and_differ_among_themselves():
    def texts(seed: int) -> list[str]:
        key = jax.random.key(seed)
        return Writer(model_of(TEXT), TEXT).generate("a", Temperature(), key, num=4, length=30)

    assert texts(0) == texts(0) != texts(1)
    assert len(set(texts(0))) == 4
    assert all(len(text) == 31 and text[0] == "a" for text in texts(0))


@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_text_is_the_same_in_chunks_of_any_length(chunk: int, stateful: bool):
    arguments = ("abc def gh", TopK(7), jax.random.key(1))
    stream = Writer(model_of(TEXT), TEXT).stream
    write = functools.partial(stream, *arguments, num=2, length=45, stateful=stateful)
    pieces = list(write(chunk=chunk))
    assert ["".join(text) for text in zip(*pieces, strict=True)] == [
        "".join(text) for text in zip(*write(), strict=True)
    ]
    assert max(len(piece[0]) for piece in pieces[1:]) == min(chunk, 45)


@pytest.mark.parametrize("strategy", [Greedy(), Temperature(), TopK(5)], ids=repr)
def test_devices_that_share_texts_write_what_one_writes(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
):
    def texts() -> list[str]:
        key = jax.random.key(3)
        return Writer(model_of(TEXT), TEXT).generate("ab", strategy, key, num=34, length=20)

    assert placement.Placement.of_texts(16, 34).mesh.size == 2
    assert placement.Placement.of_texts(16, 35).mesh.size == 1
    shared = texts()
    monkeypatch.setattr(placement, "ROWS_OF_A_CORE", 18)
    assert texts() == shared


def test_text_comes_while_the_rest_is_still_to_be_written():
    writer = Writer(model_of(TEXT), TEXT)
    # A program that wrote all of it first would not be done for a day.
    pieces = writer.stream("ab", Temperature(), jax.random.key(0), length=10**7)
    assert next(pieces) == ["ab"]
    (first,) = next(pieces)
    pieces.close()
    (text,) = writer.generate("ab", Temperature(), jax.random.key(0), length=500)
    assert len(first) > 100
    assert text.startswith("ab" + first)  # A longer text begins with the shorter one.


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_seed_gives_the_key_that_jax_makes_of_it(seed: int):
    assert sample_key(seed) == jax.random.key(seed)


@pytest.mark.parametrize("shared", [False, True], ids=["one device", "two devices"])
@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_draws_are_those_of_the_key_and_their_place(shared: bool, implementation: str):
    key, num = jax.random.key(5, impl=implementation), 34 if shared else 3
    words = key if implementation == "threefry2x32" else jax.random.bits(key, (2,), jnp.uint32)
    threefry = key if words is key else jax.random.wrap_key_data(words, impl="threefry2x32")
    expected = np.asarray(jax.random.uniform(threefry, (40, num), jnp.float32))
    assert len(np.unique(expected)) > 0.9 * expected.size
    np.testing.assert_array_equal(draw_uniforms(key, 40, num), expected)
    writer = sampler.Sampler(model_of(TEXT))
    prompt = np.arange(5 * num, dtype=np.int32).reshape(num, 5) % len(TEXT)
    pieces = writer.stream_ids(prompt, 40, _Told(), key, True, chunk=16)
    # The strategy writes down what it is given.
    np.testing.assert_array_equal(np.concatenate([*pieces], axis=1).T, expected * 2**24)


@jax.tree_util.register_static
class _Told:
    def pick(self, logits: jax.Array, uniforms: jax.Array) -> jax.Array:
        del logits
        return (uniforms * 2**24).astype(jnp.int32)


def test_words_show_no_start_token_and_stop_when_all_have_ended():
    model = model_of(WORDS)
    assert model.head.bias is not None
    model.head.bias[...] = model.head.bias[...].at[WORDS.start_id].add(12.0)
    arguments = ("ba", Temperature(), jax.random.key(0))
    assert "<PAD>" in WORDS.tokens
    words = Writer(model, WORDS).generate(*arguments, num=30)
    assert all(set(word) <= set("abcdefgh") for word in words)
    # Most of what such a model draws is the start token.
    assert sum(map(len, words)) < 30 * 5
    model.head.bias[...] = model.head.bias[...].at[WORDS.end_id].add(24.0)
    pieces = list(Writer(model, WORDS).stream(*arguments, length=10**6, chunk=16))
    assert len(pieces) < 10


def test_words_begin_unseen_and_end_at_the_end_token():
    writer = Writer(model_of(WORDS), WORDS)
    words = writer.generate("", Temperature(2.0), jax.random.key(0), num=50)
    assert all("." not in word for word in words)
    lengths = {len(word.replace("<PAD>", "#")) for word in words}
    assert max(lengths) <= 20
    assert min(lengths) < 10
    begun = writer.generate("ba", Temperature(2.0), jax.random.key(0), num=5)
    assert all(word.startswith("ba") for word in begun)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(prompt="abX"), "character 'X' at position 3"),
        (dict(prompt=""), "prompt is empty"),
        (dict(length=0), "length must be at least 1, got 0"),
        (dict(num=0), "num must be at least 1, got 0"),
        (dict(chunk=0), "chunk must be at least 1, got 0"),
        (dict(strategy=TopK(11)), "top-k must be at most 10.*got 11"),
    ],
)
def test_generate_refuses(arguments: dict, message: str):
    defaults = dict(prompt="a", strategy=Greedy(), length=3, num=1)
    given = {**defaults, **arguments}
    with pytest.raises(InputError, match=message):
        Writer(model_of(TEXT), TEXT).stream(key=jax.random.key(0), **given)


def test_a_writer_takes_the_vocabulary_of_its_model():
    with pytest.raises(InputError, match="vocabulary has 3 tokens and the model 10"):
        Writer(model_of(TEXT), Vocabulary.of_text("abc"))


@pytest.mark.parametrize("prompt", [[[]], [[3, -1]], [[0, 10]]], ids=str)
def test_a_prompt_has_ids_of_the_model(prompt: list[list[int]]):
    ids = np.array(prompt, np.int32)
    with pytest.raises(InputError, match=r"at least one id, each in \[0, 10\), got"):
        sampler.Sampler(model_of(TEXT)).continue_ids(ids, 3, Greedy(), jax.random.key(0), True)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), jnp.float32(-1)])
def test_a_temperature_must_be_positive(temperature: float):
    with pytest.raises(InputError, match="temperature must be above 0"):
        Temperature(temperature)
    with pytest.raises(InputError, match="temperature must be above 0"):
        TopK(3, temperature)


def test_a_text_that_ends_inside_a_character_says_so_whatever_the_others_do() -> None:
    ids = np.array([[0x61, 0xC3], [0x61, 0x62], [0xE2, 0x82]])
    pieces = writing._pieces(["", "", ""], iter([ids]), Vocabulary.of_bytes())
    texts = ["".join(text) for text in zip(*pieces, strict=True)]
    assert texts == ["a\ufffd", "ab", "\ufffd"]


def test_defaults_are_those_of_the_studies() -> None:
    assert (TopK().k, TopK().temperature, Temperature().temperature) == (20, 1.0, 1.0)
    assert (writing.TEXT_LENGTH, writing.WORD_LENGTH) == (200, 20)
