"""Tests of prompts: where they come from, and characters that a model does not know."""

import io
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.sampling.prompts import OnUnknown, fit_prompt, read_prompt

TEXT, NAMES = published_vocabulary("shakespeare"), published_vocabulary("names")


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b"ROMEO: ", "ROMEO: "),
        (b"ROMEO:\n", "ROMEO:"),
        (b"ROMEO:\r\n", "ROMEO:"),
        (b"ROMEO:\n\n", "ROMEO:\n"),
        (b"\none\r\ntwo \r", "\none\r\ntwo \r"),
        ("\ufeffé\n".encode(), "é"),
        (b"-\n", "-"),
        (b"\n", ""),
        (b"", ""),
    ],
)
def test_standard_input_is_one_prompt_less_one_line_end(
    data: bytes, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert read_prompt("-", TEXT) == prompt
    assert read_prompt("--\n", TEXT) == "--\n"  # Not from there.


def test_standard_input_must_be_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("aé".encode("latin-1"))))
    with pytest.raises(InputError, match="not UTF-8 text: byte 0xe9 at offset 1"):
        read_prompt("-", TEXT)


def test_to_a_model_of_bytes_all_of_standard_input_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    data, vocabulary = b"\xef\xbb\xbf\x00\xe9 \xf0\x9f", Vocabulary.of_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert bytes(vocabulary.encode(read_prompt("-", vocabulary)).tolist()) == data


@pytest.mark.parametrize(
    ("vocabulary", "prompt", "skipped", "replaced"),
    [
        (TEXT, "Julié, “ÄH”…", "Juli, H", "Julie, 'AH'..."),
        (TEXT, "a—b\tc\u00a0d", "abcd", "a-b c d"),
        (TEXT, "№ 42½", " ", "No    "),
        (TEXT, "Cafe\u0301 no\u0308", "Cafe no", "Cafe no"),
        (NAMES, "Zoë-Änne", "onne", "zoeanne"),
        (NAMES, "Straße…", "trae", "strasse"),  # Not "strasse...": the end token.
        (Vocabulary.of_text("AB"), "a\u00e2b c", "", "AAB"),
    ],
)
def test_unknown_characters_are_left_out_or_replaced_by_the_nearest(
    vocabulary: Vocabulary, prompt: str, skipped: str, replaced: str
) -> None:
    assert fit_prompt(prompt, vocabulary, "error") == (prompt, "")
    assert fit_prompt(prompt, vocabulary, "skip")[0] == skipped
    assert fit_prompt(prompt, vocabulary, "replace")[0] == replaced


@given(prompt=st.text(max_size=40), mode=st.sampled_from(["skip", "replace"]))
@settings(max_examples=200, deadline=None)
def test_any_prompt_becomes_one_that_the_model_reads(prompt: str, mode: OnUnknown) -> None:
    for vocabulary in (TEXT, NAMES):
        fitted, done = fit_prompt(prompt, vocabulary, mode)
        vocabulary.encode(fitted)
        known = [c for c in prompt if c in vocabulary.tokens]
        rest = iter(fitted)
        assert all(c in rest for c in known)  # Those are kept, in their order.
        assert mode == "replace" or len(fitted) == len(known)
        assert bool(done) == (len(known) < len(prompt))
        assert fit_prompt(fitted, vocabulary, mode) == (fitted, "")
        if not done:
            assert fitted == prompt


def test_what_was_done_is_told_in_one_short_line() -> None:
    assert fit_prompt("é日é", TEXT, "replace")[1] == "'é' as 'e', '日' as ' '"
    assert fit_prompt("éa", TEXT, "skip")[1] == "'é' left out"
    many = fit_prompt("".join(map(chr, range(0x4E00, 0x4F00))), TEXT, "skip")[1]
    assert many.endswith(" left out, and 248 more")


def test_a_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"standard input, which is closed: give the prompt"):
        read_prompt("-", Vocabulary.of_bytes())
