"""Tests of vocabularies: order, round trips, and what cannot be encoded."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import DatasetName
from astra_jax.data import builtin_corpus
from astra_jax.data.corpus import DATA_DIR_VARIABLE, load_corpus
from astra_jax.data.splits import corpus_vocabulary
from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError

BYTE_LEVEL = Vocabulary.of_bytes()


@given(text=st.text(min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_text_of_any_characters_survives_encoding(text: str) -> None:
    vocabulary = Vocabulary.of_text(text)
    ids = vocabulary.encode(text)
    ordered = sorted(set(text))
    assert ids.dtype == np.int32
    assert ids.tolist() == [ordered.index(character) for character in text]
    assert vocabulary.decode(ids) == text


@given(words=st.lists(st.text(st.characters(exclude_characters="."), min_size=1), min_size=1))
@settings(max_examples=50, deadline=None)
def test_words_have_special_tokens_before_their_sorted_letters(words: list[str]) -> None:
    vocabulary = Vocabulary.of_words(words)
    assert vocabulary.tokens == ("<PAD>", ".", *sorted(set("".join(words))))
    assert (vocabulary.start_id, vocabulary.end_id) == (0, 1)
    for word in words:
        ids = vocabulary.encode(word + ".")
        assert ids[-1] == 1
        assert (ids[:-1] >= 2).all()
        assert vocabulary.decode(ids) == word + "."


def test_the_names_study_has_a_to_z_as_2_to_27() -> None:
    vocabulary = published_vocabulary("names")
    assert len(vocabulary) == 28
    assert vocabulary.encode(string.ascii_lowercase).tolist() == list(range(2, 28))
    assert vocabulary.decode(np.array([0, 27, 1])) == "<PAD>z."


@given(text=st.text(max_size=50))
@settings(max_examples=50, deadline=None)
def test_bytes_take_any_text(text: str) -> None:
    ids = BYTE_LEVEL.encode(text)
    assert ids.dtype == np.int32
    assert bytes(ids.tolist()) == text.encode()
    assert BYTE_LEVEL.decode(ids) == text


@given(data=st.binary(max_size=40), cuts=st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=100, deadline=None)
def test_bytes_that_come_in_pieces_read_as_in_one(data: bytes, cuts: list[int]) -> None:
    ids = np.frombuffer(data, np.uint8).astype(np.int32)
    decode = BYTE_LEVEL.decoder()
    pieces = [decode(piece) for piece in np.split(ids, sorted(cuts))]
    whole = data.decode("utf-8", "replace")
    assert "".join(pieces) + decode(ids[:0], final=True) == whole == BYTE_LEVEL.decode(ids)
    # A prompt from the command line may hold any bytes; Python hides them in surrogates.
    assert np.array_equal(BYTE_LEVEL.encode(data.decode("utf-8", "surrogateescape")), ids)


def test_bytes_refuse_what_is_no_text_and_tell_themselves_briefly() -> None:
    message = r"character '.ud800' at position 2 is half of a surrogate"
    with pytest.raises(InputError, match=message):
        BYTE_LEVEL.encode("a\ud800")
    assert BYTE_LEVEL.describe() == "the 256 bytes"
    assert len(BYTE_LEVEL) == 256
    assert not Vocabulary.of_text("".join(map(chr, range(256)))).is_bytes


def test_encode_of_nothing_is_nothing() -> None:
    assert published_vocabulary("names").encode("").shape == (0,)


# Below, between and above the code points of the vocabulary, each of which is searched otherwise.
@pytest.mark.parametrize("unknown", ["\t", "c", "é", "\U0001f600", "\udcff"])
def test_unknown_character_is_named_with_its_place_and_the_tokens(unknown: str) -> None:
    vocabulary = Vocabulary.of_text("ab d\n")
    with pytest.raises(InputError) as error:
        vocabulary.encode(f"ab\n\nb{unknown}a{unknown}")
    assert str(error.value) == (
        f"character {unknown!r} at position 6 (line 3) is not among the 5 tokens of the "
        "vocabulary: '\\n abd'"
    )


def test_end_token_in_a_word_is_no_second_token() -> None:
    # So that what is wrong with the word can be said, which splitting the corpus does.
    assert Vocabulary.of_words(["mr.x"]).tokens == ("<PAD>", ".", "m", "r", "x")


def test_special_token_is_no_text() -> None:
    with pytest.raises(InputError, match="character '<' at position 2 "):
        Vocabulary.of_words(["a"]).encode("a<PAD>")


def test_unknown_character_is_told_briefly_whatever_the_vocabulary() -> None:
    large = Vocabulary.of_text("".join(map(chr, range(0x4E00, 0x9FFF))))
    with pytest.raises(InputError, match=r"20991 tokens .*\.\.\.") as error:
        large.encode("a")
    assert len(str(error.value)) < 300


def test_character_is_unknown_to_a_vocabulary_of_special_tokens() -> None:
    with pytest.raises(InputError, match="character 'a' at position 1 "):
        Vocabulary(tokens=("<PAD>", "<END>"), start_id=0, end_id=1).encode("a")


@pytest.mark.parametrize(
    ("dataset", "corpus"), [("shakespeare", builtin_corpus.play), ("names", builtin_corpus.names)]
)
def test_published_vocabulary_is_that_of_the_builtin_corpus(dataset: Any, corpus: Any) -> None:
    assert corpus_vocabulary(corpus(), dataset) == published_vocabulary(dataset)


@pytest.mark.parametrize(
    ("dataset", "characters", "size"), [("shakespeare", 1_115_394, 65), ("names", 228_145, 28)]
)
def test_published_vocabulary_is_that_of_the_published_corpus(
    dataset: DatasetName,
    characters: int,
    size: int,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(data_dir))
    corpus = load_corpus(dataset)
    assert (corpus.record.origin, corpus.record.is_published, len(corpus.text)) == (
        "data folder",
        True,
        characters,
    )
    assert corpus_vocabulary(corpus.text, dataset) == published_vocabulary(dataset)
    assert len(published_vocabulary(dataset)) == size


@pytest.mark.parametrize(
    "vocabulary",
    [Vocabulary.of_text('é\n\\"\u2028\U0001f600'), Vocabulary.of_words(["ab"]), BYTE_LEVEL],
    ids=["text", "words", "bytes"],
)
def test_vocabulary_comes_back_from_json_as_it_was(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "must be an object of tokens, start_id and end_id"),
        (["a"], "must be an object of tokens, start_id and end_id"),
        ({"tokens": ["a"]}, "must be an object of tokens, start_id and end_id"),
        (dict(tokens=[], start_id=None, end_id=None), "must be strings, at least one"),
        (dict(tokens="ab", start_id=None, end_id=None), "must be a list of strings"),
        (dict(tokens=["a", 1], start_id=None, end_id=None), "must be strings, at least one"),
        (dict(tokens=["a", "b", "a"], start_id=None, end_id=None), "must not repeat a token"),
        (dict(tokens=["a"], start_id=1, end_id=None), r"must be ids .* or null, got \(1, None\)"),
        (dict(tokens=["a"], start_id=None, end_id=-1), r"or null, got \(None, -1\)"),
        (dict(tokens=["a", "b"], start_id=True, end_id=None), r"or null, got \(True, None\)"),
        (dict(tokens=["a"], start_id=0.0, end_id=None), r"or null, got \(0\.0, None\)"),
    ],
)
def test_damaged_vocabulary_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary.from_dict(values)


@pytest.mark.parametrize("vocabulary", [Vocabulary.of_text("abc"), Vocabulary.of_bytes()])
def test_an_id_of_no_token_is_refused(vocabulary: Vocabulary) -> None:
    for wrong in (-1, len(vocabulary)):
        with pytest.raises(InputError, match=rf"ids must be in \[0, {len(vocabulary)}\)"):
            vocabulary.decode(np.array([0, wrong]))
