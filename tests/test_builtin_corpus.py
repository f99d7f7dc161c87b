"""Tests of the generated corpus: that it never changes, and that it has the promised shape."""

import hashlib
import re
import string

import pytest

from astra_jax.data.builtin_corpus import NAME_COUNT, PLAY_CHARACTERS, names, play

# A run on another Python version or platform that draws other text fails on these.
PLAY_SHA256 = "89b1b2e9e8249a4ead18db1e25cd4ec47c4be7ea139be308081029904a60c098"
NAMES_SHA256 = "f7aef8c7e3c918c71e8cb36b44726884c3af48be3981e02019b01d7d32fd2406"


@pytest.fixture(scope="module")
def text() -> str:
    return play()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_texts_are_the_same_everywhere_and_on_every_call(text: str) -> None:
    # Written anew, past what the process keeps of its first call.
    assert [sha256(text), sha256(play.__wrapped__())] == [PLAY_SHA256] * 2
    assert [sha256(names()), sha256(names.__wrapped__())] == [NAMES_SHA256] * 2


def test_the_play_holds_its_65_characters_before_the_last_tenth(text: str) -> None:
    expected = set("\n !$&',-.3:;?" + string.ascii_letters)
    assert len(expected) == 65
    assert set(text) == set(text[: len(text) * 9 // 10]) == expected
    assert PLAY_CHARACTERS <= len(text) < PLAY_CHARACTERS + 20_000
    assert min(text.count(letter) for letter in string.ascii_uppercase) > 100
    assert all(10 <= text.count(character) <= 100 for character in "$&3")


def test_the_play_is_a_sequence_of_speeches(text: str) -> None:
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    for speech in text.removesuffix("\n").split("\n\n"):
        speaker, *lines = speech.split("\n")
        assert re.fullmatch(r"[A-Z][A-Za-z ]+:", speaker)
        assert 1 <= len(lines) <= 8
        # A verse line opens with a capital; a leftover slot or doubled space is a grammar mistake.
        assert all(re.match(r"'?[A-Z]", line) for line in lines)
        assert not re.search(r"[<>|/]|  | $| [,.;:?!]", speech, flags=re.MULTILINE)
        assert lines[-1][-1] in ".!?"


def test_the_play_has_a_few_hundred_words_and_correct_articles(text: str) -> None:
    assert 500 < len(set(re.findall(r"[a-z'-]+", text.lower()))) < 1000
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text)


def test_the_names_are_short_lower_case_and_mostly_distinct() -> None:
    lines = names().split("\n")
    assert len(lines) == NAME_COUNT
    assert set("".join(lines)) == set(string.ascii_lowercase)
    assert all(2 <= len(line) <= 15 for line in lines)
    assert 5.5 < sum(map(len, lines)) / len(lines) < 7
    assert 0.90 < len(set(lines)) / len(lines) < 0.95
