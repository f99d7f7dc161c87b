"""The samplers' measures: of texts that are known, by models whose writing is known."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.config import Preset
from astra_jax.data import builtin_corpus
from astra_jax.data.splits import Split
from astra_jax.errors import InputError
from astra_jax.evaluation import evaluate
from astra_jax.experiments import lifecycle
from astra_jax.losses import IGNORE
from astra_jax.model import GRULanguageModel
from astra_jax.presets import override
from astra_jax.runs.folder import Run
from study import materials, text_measures, texts
from study.text_measures import likelihood, ratio, repetition
from study.texts import compare_samplers
from tests.trainings import TEXT, WORDS, random_model

SMALL = override(TEXT, num_layers=1)
SMALL_WORDS = override(WORDS, num_layers=1, layer_norm=False, steps_per_epoch=None)
HERE = dict(num=5, length=40)


STRATEGIES = texts.strategies


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"greedy": texts.Greedy(), "temperature 1.0": texts.Temperature()}
    monkeypatch.setattr(texts, "strategies", lambda vocabulary: few)
    monkeypatch.setattr(materials, "CONTEXT", 10)
    monkeypatch.setattr(materials, "SHOWN_CHARS", 30)
    monkeypatch.setattr(text_measures, "PIECE", 16)


@pytest.fixture
def text(tmp_path: Path) -> tuple[Run, Split]:
    return _begin(SMALL, builtin_corpus.play()[:3000], tmp_path)


@pytest.fixture
def words(tmp_path: Path) -> tuple[Run, Split]:
    found = [first + "ev" + last for first in "abcdef" for last in "aeiou"]
    return _begin(SMALL_WORDS, "\n".join(found + found[::2]), tmp_path)


def _begin(preset: Preset, text: str, folder: Path) -> tuple[Run, Split]:
    (folder / "corpus.txt").write_text(text)
    return lifecycle.begin(preset, str(folder / "corpus.txt"), folder / "run")


def make_model(run: Run, always: int | None = None) -> GRULanguageModel:
    """Returns a model that remembers, or one that writes one token whatever it has read."""
    model = random_model(run.preset)
    if always is not None:
        bias = np.zeros(run.preset.model.vocab_size, np.float32)
        bias[always] = 1000.0
        assert model.head.bias is not None
        model.head.bias[...] = jnp.asarray(bias)
    return model


def test_strategies_are_those_of_the_study(text: tuple[Run, Split]) -> None:
    top = "top-k 30, temperature 1.0", "top-k 30, temperature 0.8"
    assert list(STRATEGIES(text[0].vocabulary)) == ["greedy", "temperature 1.0", *top]


def test_repetition_is_the_share_of_stretches_that_have_stood_there() -> None:
    same, distinct = np.full(50, 3), np.arange(50)
    assert repetition(same, 4) == repetition(same, 8) == 1
    assert repetition(distinct, 4) == 0
    # `the the the …` has four stretches of whatever length, of 47.
    assert repetition(np.tile(np.arange(4), 13)[:50], 4) == (47 - 4) / (47 - 1)
    once_more = np.concatenate([np.arange(20), np.arange(6)])
    assert repetition(once_more, 4) == 3 / 22


def test_ratio_has_the_error_of_a_mean_where_all_weigh_the_same() -> None:
    rng = np.random.default_rng(1)
    parts, wholes = rng.normal(2, 1, 200), rng.integers(1, 9, 200)
    plain = ratio(parts, np.ones(200))
    assert plain["mean"] == pytest.approx(parts.mean())
    assert plain["error"] == pytest.approx(parts.std(ddof=1) / np.sqrt(200))
    # Of unequal ones, that of repeated draws.
    draws = rng.integers(0, 200, (4000, 200))
    bootstrap = (parts * wholes)[draws].sum(1) / wholes[draws].sum(1)
    weighted = ratio(parts * wholes, wholes)
    assert weighted["mean"] == pytest.approx((parts * wholes).sum() / wholes.sum())
    assert weighted["error"] == pytest.approx(bootstrap.std(), rel=0.1)
    assert ratio([0, 0], [0, 0]) == {"mean": None, "error": None}
    assert ratio([1], [2]) == {"mean": 0.5, "error": None}


@pytest.mark.parametrize("piece", [7, 100])
def test_likelihood_carries_the_state_from_the_context_on(
    text: tuple[Run, Split], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(text_measures, "PIECE", piece)
    model = make_model(text[0])
    whole = np.random.default_rng(2).integers(0, 50, (3, 30)).astype(np.int32)
    whole[1, 25:] = IGNORE
    found = likelihood(model, whole[:, :9], whole[:, 9:])
    scores = np.asarray(jax.nn.log_softmax(model(jnp.asarray(np.maximum(whole, 0)))[0]))
    expected = -np.take_along_axis(scores[:, 8:-1], np.maximum(whole[:, 9:, None], 0), -1)[..., 0]
    expected[1, 16:] = np.nan
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_drawn_text_is_as_likely_as_the_network_expects(
    text: tuple[Run, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materials.Texts, "sample", lambda *how: "")
    run, split = text
    model = make_model(run)
    found = compare_samplers(run, model, split, num=64, length=100)
    drawn = {(how["mode"], how["strategy"]): how["nats_per_char"] for how in found["samplers"]}
    carried, entropy = drawn["stateful", "temperature 1.0"], _entropy(run, model, split)
    assert abs(carried["mean"] - entropy) < 4 * carried["error"]
    # Otherwise drawn text is less likely where the network does carry its state.
    stateless = drawn["stateless", "temperature 1.0"]
    assert stateless["mean"] > entropy + 4 * stateless["error"]
    assert drawn["stateful", "greedy"]["mean"] < entropy


def _entropy(run: Run, model: GRULanguageModel, split: Split) -> float:
    """Returns the mean entropy of what the network predicts along texts that it draws."""
    data = materials.Texts.of(split, 64, 100)
    how = texts.Temperature(), jax.random.key(3), True
    drawn = texts.Sampler(model).continue_ids(data.context, 100, *how)
    logits, _ = model(jnp.asarray(np.concatenate([data.context, drawn], axis=1)))
    scores = np.asarray(jax.nn.log_softmax(logits[:, data.context.shape[1] - 1 : -1]), np.float64)
    return float(-(np.exp(scores) * scores).sum(-1).mean())


def test_a_model_that_repeats_itself_repeats_by_every_sampler(text: tuple[Run, Split]) -> None:
    run, split = text
    letter = run.vocabulary.tokens.index("e")
    found = compare_samplers(run, make_model(run, always=letter), split, **HERE)
    assert len(found["samplers"]) == 4
    for how in found["samplers"]:
        assert how["repetition"] == {"mean": 1, "error": 0}
        assert how["nats_per_char"]["mean"] == pytest.approx(0, abs=1e-6)
        # One word that both ends cut.
        assert how["known_words"]["mean"] is None
        assert how["text"].endswith("e" * 30)
    assert found["reference"]["repetition"]["mean"] < 0.5
    assert found["reference"]["known_words"]["mean"] > 0.5


def test_a_sampler_that_copies_the_corpus_measures_as_the_corpus(
    text: tuple[Run, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, split = text
    real = materials.Texts.of(split, 5, 40).real
    monkeypatch.setattr(texts.Sampler, "continue_ids", lambda *how: real)
    monkeypatch.setattr(materials.Texts, "sample", lambda *how: "")
    found = compare_samplers(run, make_model(run), split, **HERE)
    names = ["nats_per_char", "known_words", "known_letters", "repetition"]
    for how in found["samplers"]:
        assert {name: how[name] for name in names} == {n: found["reference"][n] for n in names}


def test_real_words_are_those_of_the_training_part(text: tuple[Run, Split]) -> None:
    run, split = text
    data, encode = materials.Texts.of(split, 2, 40), run.vocabulary.encode
    known = max(data.known, key=len)
    line = f"ww {known} Wvv {known.upper()[:1]}{known[1:]} wvvv. {known}"
    ids = np.tile(encode(line), (2, 1))
    found = data.measures(make_model(run), ids)
    # What the ends may have cut is no word; upper and lower case are alike.
    assert found["known_words"] == {"mean": 0.5, "error": 0}
    assert found["known_letters"]["mean"] == 2 * len(known) / (2 * len(known) + 7)


def test_comparison_follows_from_the_seed(text: tuple[Run, Split]) -> None:
    run, split = text
    model = make_model(run)
    found = compare_samplers(run, model, split, **HERE)
    assert found == compare_samplers(run, model, split, **HERE)
    assert {how["mode"] for how in found["samplers"]} == {"stateful", "stateless"}
    assert found["kind"] == "text"
    assert all(len(how["text"]) == len("ROMEO: ") + 30 for how in found["samplers"])


def test_real_text_is_what_stands_after_the_context(text: tuple[Run, Split]) -> None:
    run, split = text
    data, decode = materials.Texts.of(split, 5, 40), run.vocabulary.decode
    validation = builtin_corpus.play()[2700:3000]
    pairs = zip(data.context, data.real, strict=True)
    places = [validation.index(decode(before) + decode(after)) for before, after in pairs]
    # From the first character to the last, equally far apart.
    assert places == [0, 62, 125, 187, 250]


def test_too_short_a_text_to_go_on_from_is_refused(text: tuple[Run, Split]) -> None:
    with pytest.raises(InputError, match=r"has 300 characters, and texts of 291 .* need 301"):
        compare_samplers(text[0], make_model(text[0]), text[1], num=2, length=291)


def test_names_are_held_against_the_lists(tmp_path: Path, words: tuple[Run, Split]) -> None:
    folder = tmp_path / "start token"
    folder.mkdir()
    corpus = (tmp_path / "corpus.txt").read_text()
    run, split = _begin(override(SMALL_WORDS, start_token=True), corpus, folder)
    model = make_model(run)
    found = compare_samplers(run, model, split)
    whole: Any = evaluate(model, run.preset, split)
    reference = found["reference"]
    # Words read from the start token: the same in both.
    assert reference["nats_per_char"]["mean"] == pytest.approx(whole.all.loss_nats, rel=1e-5)
    assert reference["known_words"]["mean"] == whole.seen_share
    assert (found["num_texts"], found["num_real"]) == (2000, 9)
    stateful = {how["strategy"]: how for how in found["samplers"] if how["mode"] == "stateful"}
    assert stateful["greedy"]["distinct"]["mean"] == 1 / 2000
    assert stateful["temperature 1.0"]["distinct"]["mean"] > 0.1
    assert stateful["temperature 1.0"]["text"].count(", ") == materials.SHOWN_NAMES - 1


def test_names_end_where_they_end(words: tuple[Run, Split]) -> None:
    run, split = words
    data = materials.Words.of(split, 3)
    encode, end = run.vocabulary.encode, run.vocabulary.end_id
    known = min(data.known)
    ids = np.array(
        [
            [*encode(known), end, *encode("abc")],
            [*encode(known), end, *encode("eva")],
            [run.vocabulary.start_id, *encode("abcdef"), 2],
        ],
        np.int32,
    )
    found = data.measures(make_model(run), ids)
    assert found["known_words"]["mean"] == found["distinct"]["mean"] == pytest.approx(2 / 3)
    assert data.shown(ids) == f"{known}, {known}, abcdefa"
    # Five characters with the end twice, and eight.
    nats = likelihood(make_model(run), data.context, ids)
    total = nats[:2, :5].sum() + nats[2].sum()
    assert found["nats_per_char"]["mean"] == pytest.approx(total / 18, rel=1e-6)
    later = total - nats[:, 0].sum()
    assert found["later_nats_per_char"]["mean"] == pytest.approx(later / 15, rel=1e-6)
