"""Tests of windows and padded words: every target where it belongs, and counted once."""

import string
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import DataConfig
from astra_jax.data.datasets import EMPTY, Batch, Dataset, PaddedWords, TextWindows
from astra_jax.data.splits import corpus_vocabulary, pad_words, split_corpus
from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.losses import IGNORE

KEY = jax.random.key(0)
WORDS = [first + second for first in "abcdefghij" for second in "abcdefghij"]


word_lists = st.lists(st.text("abcd", min_size=1, max_size=6), min_size=1, max_size=20)


def config(dataset: str, **fields: Any) -> DataConfig:
    values = dict(batch_size=4, seq_len=5, train_fraction=0.8) | fields
    return DataConfig.from_dict(dict(dataset=dataset) | values)


def places(length: int, seq_len: int, batch_size: int) -> TextWindows:
    """Returns windows of a text whose characters are their own places."""
    return TextWindows(jnp.arange(length, dtype=jnp.int32), seq_len, batch_size)


@jax.jit
def cover(data: Any) -> Batch:
    return data.batch(data.cover_rows().reshape(-1))


def covered(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets of all rows that cover the data."""
    batch = cover(data)
    return np.asarray(batch.inputs), np.asarray(batch.targets)


def words_of(data: Dataset, vocabulary: Vocabulary) -> list[str]:
    inputs, targets = covered(data)
    lengths = (targets != IGNORE).sum(1)
    return [vocabulary.decode(row[:n]) for row, n in zip(inputs, lengths, strict=True) if n]


@given(length=st.integers(2, 40), seq_len=st.integers(1, 9), batch_size=st.integers(1, 5))
@settings(max_examples=12, deadline=None)
def test_windows_that_cover_a_text_have_every_target_once(
    length: int, seq_len: int, batch_size: int
) -> None:
    data = places(length, seq_len, batch_size)
    inputs, targets = covered(data)
    counted = targets != IGNORE
    assert inputs.shape[0] % batch_size == 0
    assert inputs.shape[0] - -(-(length - 1) // seq_len) in range(batch_size)
    assert targets[counted].tolist() == list(range(1, length))
    assert inputs[counted].tolist() == list(range(length - 1))
    assert data.count_targets() == length - 1


def test_windows_are_drawn_from_the_whole_range_of_the_study() -> None:
    # [0, n - seq_len - 1) for n = 12: the offsets 0 to 5, so the last character is never read.
    data = places(12, seq_len=5, batch_size=8)
    rows = data.epoch_rows(KEY, 40)
    assert rows.shape == (40, 8)
    assert sorted(set(np.ravel(rows).tolist())) == [0, 1, 2, 3, 4, 5]
    batch = data.batch(rows[0])
    assert np.array_equal(batch.inputs, np.asarray(rows[0])[:, None] + np.arange(5))
    assert np.array_equal(batch.targets, np.asarray(batch.inputs) + 1)
    assert data.max_steps is None


@given(length=st.integers(12, 90), batch_size=st.integers(1, 6), steps=st.integers(1, 9))
@settings(max_examples=12, deadline=None)
def test_carried_windows_go_on_where_the_one_before_ended(
    length: int, batch_size: int, steps: int
) -> None:
    data = TextWindows(jnp.arange(length, dtype=jnp.int32), 5, batch_size, carry_state=True)
    rows, end = np.asarray(data.epoch_rows(KEY, steps)), length - 6
    assert rows.shape == (steps, batch_size)
    assert rows.min() >= 0
    assert rows.max() < end
    np.testing.assert_array_equal(np.diff(rows, axis=0) % end, 5 % end)
    # As far apart as they can be: to a character, the text's length shared evenly.
    gaps = np.diff(np.sort(rows[0]), append=np.sort(rows[0])[:1] + end)
    assert gaps.max() - gaps.min() <= 1
    others = {int(data.epoch_rows(jax.random.key(n), 1)[0, 0]) for n in range(20)}
    assert len(others) > 1
    drawn = data.estimate_rows(KEY)  # The notebook's estimate stays one batch drawn at random.
    np.testing.assert_array_equal(drawn, places(length, 5, batch_size).estimate_rows(KEY))


def test_windows_of_an_epoch_follow_from_the_key() -> None:
    data = places(1000, seq_len=5, batch_size=8)
    rows = data.epoch_rows(KEY, 3)
    assert np.array_equal(rows, data.epoch_rows(KEY, 3))
    assert not np.array_equal(rows, data.epoch_rows(jax.random.key(1), 3))
    assert data.estimate_rows(KEY).shape == (1, 8)  # One batch, as the notebook.


@given(words=st.lists(st.text("abcdé漢", min_size=1, max_size=6), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_padded_words_of_any_letters_still_say_what_they_were(words: list[str]) -> None:
    vocabulary = Vocabulary.of_words(words)
    inputs, targets = pad_words(words, vocabulary, config("names", seq_len=7))
    assert inputs.shape == targets.shape == (len(words), 7)
    for word, read, wanted in zip(words, inputs, targets, strict=True):
        assert vocabulary.decode(read) == word + "<PAD>" * (7 - len(word))
        assert vocabulary.decode(wanted[: len(word)]) == word[1:] + "."
        assert (wanted[len(word) :] == IGNORE).all()


def test_words_are_laid_out_as_in_the_study() -> None:
    # seq = letters + end; x = seq[:-1] padded with 0, y = seq[1:] padded with -100.
    study = config("names", seq_len=6)
    inputs, targets = pad_words(["emma", "z"], published_vocabulary("names"), study)
    assert inputs.tolist() == [[6, 14, 14, 2, 0, 0], [27, 0, 0, 0, 0, 0]]
    assert targets.tolist() == [
        [14, 14, 2, 1, -100, -100],
        [1, -100, -100, -100, -100, -100],
    ]


def test_a_word_as_long_as_seq_len_keeps_its_end() -> None:
    inputs, targets = pad_words(["abc"], published_vocabulary("names"), config("names", seq_len=3))
    assert (inputs.tolist(), targets.tolist()) == ([[2, 3, 4]], [[3, 4, 1]])


@given(words=word_lists)
@settings(max_examples=25, deadline=None)
def test_a_start_token_adds_the_first_letter_to_the_targets_and_changes_no_other(
    words: list[str],
) -> None:
    vocabulary = Vocabulary.of_words(words)
    plain = pad_words(words, vocabulary, config("names", seq_len=6))
    inputs, targets = pad_words(words, vocabulary, config("names", seq_len=7, start_token=True))
    first = [vocabulary.encode(word[0])[0] for word in words]
    assert inputs[:, 0].tolist() == [vocabulary.start_id] * len(words)
    assert targets[:, 0].tolist() == first
    assert np.array_equal(inputs[:, 1:], plain[0])
    assert np.array_equal(targets[:, 1:], plain[1])


@given(words=word_lists.filter(lambda words: len(set(words)) > 1), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_dedupe_takes_every_word_once_and_leaks_none(words: list[str], seed: int) -> None:
    fields = config("names", seq_len=6, train_fraction=0.5, dedupe=True)
    split = split_corpus("\n".join(words), fields, jax.random.key(seed))
    parts = [words_of(data, split.vocabulary) for data in (split.train, split.validation)]
    assert sorted(parts[0] + parts[1]) == sorted(set(words))


@pytest.mark.parametrize(("num", "batch_size"), [(7, 3), (6, 3), (1, 4)])
def test_an_epoch_of_words_has_each_once_and_keeps_the_partial_batch(
    num: int, batch_size: int
) -> None:
    ids = jnp.arange(num, dtype=jnp.int32)[:, None] + 2
    data = PaddedWords(ids, ids + 100, np.arange(num), batch_size)
    steps = -(-num // batch_size)
    assert data.max_steps == steps
    rows = np.asarray(data.epoch_rows(KEY, steps))
    assert rows.shape == (steps, batch_size)
    assert sorted(rows.ravel()[:num].tolist()) == list(range(num))
    assert (rows.ravel()[num:] == EMPTY).all()
    last = data.batch(jnp.asarray(rows[-1]))
    expected = np.where(rows[-1] == EMPTY, IGNORE, rows[-1] + 102)
    assert np.array_equal(last.targets[:, 0], expected)
    assert np.array_equal(last.inputs[:, 0][rows[-1] != EMPTY], rows[-1][rows[-1] != EMPTY] + 2)
    assert np.array_equal(data.estimate_rows(KEY), data.cover_rows())
    assert np.array_equal(data.cover_rows().ravel()[:num], np.arange(num))


def test_words_are_shuffled_anew_by_another_key() -> None:
    ids = jnp.zeros((50, 1), jnp.int32)
    data = PaddedWords(ids, ids, np.arange(50), 8)
    rows = data.epoch_rows(KEY, 7)
    assert np.array_equal(rows, data.epoch_rows(KEY, 7))
    assert not np.array_equal(rows, data.epoch_rows(jax.random.key(1), 7))
    assert np.array_equal(rows[:2], data.epoch_rows(KEY, 2))


def test_the_names_of_the_study_make_401_steps_and_the_split_of_the_study() -> None:
    letters = string.ascii_lowercase
    split = split_corpus("a\n" * 32_033, config("names", batch_size=64, seq_len=1), KEY)
    assert isinstance(split.train, PaddedWords)
    assert isinstance(split.validation, PaddedWords)
    assert (split.train.count_targets(), split.validation.count_targets()) == (25_626, 6_407)
    assert split.train.max_steps == 401
    assert split.train.epoch_rows(KEY, 401).shape == (401, 64)
    assert int((split.train.epoch_rows(KEY, 401)[-1] == EMPTY).sum()) == 401 * 64 - 25_626
    assert len(corpus_vocabulary("\n".join(letters), "names")) == 28


def test_split_of_words_is_disjoint_whole_and_follows_from_the_key() -> None:
    text = "\n".join(WORDS)
    parts = []
    for key in (KEY, KEY, jax.random.key(1)):
        split = split_corpus(text, config("names"), key)
        parts.append([words_of(data, split.vocabulary) for data in (split.train, split.validation)])
        assert [len(part) for part in parts[-1]] == [80, 20]
        assert sorted(parts[-1][0] + parts[-1][1]) == WORDS
        assert parts[-1][0] != sorted(parts[-1][0])
        # A two-letter word has two targets: its second letter and the end.
        assert [split.train.count_targets(), split.validation.count_targets()] == [160, 40]
    assert parts[0] == parts[1]
    assert sorted(parts[0][1]) != sorted(parts[2][1])


def test_parts_of_every_seed_are_of_one_type_and_share_what_is_compiled() -> None:
    text = "\n".join(["a", "bcd", "efghi"] * 20)
    splits = [split_corpus(text, config("names"), jax.random.key(seed)) for seed in range(3)]
    assert len({split.train.count_targets() for split in splits}) == 3
    assert len({jax.tree.structure(split.train) for split in splits}) == 1


def test_words_are_the_lines_of_a_text_without_blanks() -> None:
    split = split_corpus("ab\r\n\n  cd \n\t\nef\rgh\nij", config("names"), KEY)
    found = [
        w for part in (split.train, split.validation) for w in words_of(part, split.vocabulary)
    ]
    assert sorted(found) == ["ab", "cd", "ef", "gh", "ij"]
    assert split.vocabulary.tokens == ("<PAD>", ".", *"abcdefghij")


def test_split_of_text_is_cut_once_and_trains_on_the_first_part() -> None:
    text = (string.ascii_letters + "é\n ") * 2
    split = split_corpus(text, config("shakespeare", train_fraction=0.9, seq_len=3), KEY)
    assert split.vocabulary == Vocabulary.of_text(text)
    assert isinstance(split.train, TextWindows)
    assert isinstance(split.validation, TextWindows)
    assert len(text) == 110
    assert split.vocabulary.decode(np.asarray(split.train.tokens)) == text[:99]
    assert split.vocabulary.decode(np.asarray(split.validation.tokens)) == text[99:]
    sizes = (split.train.seq_len, split.train.batch_size, split.validation.seq_len)
    assert sizes == (3, 4, 3)


def test_the_shortest_text_leaves_one_window_to_validate_on() -> None:
    fields = config("shakespeare", train_fraction=0.5, seq_len=5)
    validation = split_corpus("abcdefg" * 2, fields, KEY).validation
    assert np.array_equal(validation.epoch_rows(KEY, 3), np.zeros((3, 4)))
    with pytest.raises(InputError) as error:
        split_corpus("abcdefg" * 2 + "a", config("shakespeare", train_fraction=0.6, seq_len=5), KEY)
    assert str(error.value) == (
        "the corpus is too short: 15 characters leave 9 to train on and 6 to validate on, and each "
        "part needs 7 for one window of seq_len 5; give a longer text or a smaller --seq-len"
    )


@pytest.mark.parametrize("dataset", ["shakespeare", "names"])
@pytest.mark.parametrize("text", ["", " \n\t\r\n "], ids=["nothing", "blanks"])
def test_empty_corpus_is_an_error(dataset: str, text: str) -> None:
    with pytest.raises(InputError, match="the corpus is empty: give a file with text in it"):
        split_corpus(text, config(dataset), KEY)


def test_a_corpus_of_another_level_is_refused() -> None:
    for content, level in (("abc" * 9, "byte"), (b"abc" * 9, "char")):
        text = config("shakespeare", train_fraction=0.5, seq_len=3, level=level)
        with pytest.raises(InputError, match=f"level is {level}, and the corpus is of level"):
            split_corpus(content, text, KEY)


def test_word_that_leaves_no_place_for_the_start_token_is_named() -> None:
    with pytest.raises(InputError) as error:
        split_corpus("anna\nclara\nbob", config("names", start_token=True), KEY)
    assert str(error.value) == (
        "word 2, 'clara', has 5 characters and does not fit into seq_len 5 after its start token: "
        "shorten it or pass --seq-len 6"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anna", "1 words are too few to split 0.8 to the rest: give a list with more"),
        (
            "anna\n\nmr.x\nbob",
            "word 2, 'mr.x', contains '.', which stands for the end of a word: remove it",
        ),
        (
            "anna\nfrederick\nbob",
            "word 2, 'frederick', has 9 characters and does not fit into seq_len 5: shorten it or "
            "pass --seq-len 9",
        ),
    ],
)
def test_word_that_cannot_be_used_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        split_corpus(text, config("names"), KEY)
    assert str(error.value) == message


def test_a_share_of_a_text_is_rounded_down_as_in_the_studies():
    text = config("shakespeare", train_fraction=0.9, seq_len=3)
    for length in range(250, 270):
        split = split_corpus("ab" * 100 + "c" * (length - 200), text, KEY)
        assert split.train.count_targets() == length * 9 // 10 - 1
    for length in range(20, 30):
        split = split_corpus("ab\n" * length, config("names", train_fraction=0.8), KEY)
        assert len(words_of(split.train, split.vocabulary)) == length * 4 // 5
