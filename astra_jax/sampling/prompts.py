"""What a text begins with: from the command line or standard input, in characters of the model."""

import sys
import unicodedata
from collections.abc import Iterator
from typing import Literal

from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError

STDIN = "-"

OnUnknown = Literal["error", "skip", "replace"]
"""What becomes of a prompt's characters that a vocabulary does not have."""

MOST_TOLD = 8
"""Unknown characters that a person is told one by one."""

_PLAIN = {"Pd": "-", "Pi": "'", "Pf": "'"}
"""The typewriter's form of dashes and quotes, by their Unicode category."""


def read_prompt(prompt: str, vocabulary: Vocabulary) -> str:
    """Returns the prompt, or all of standard input where it is `-`.

    One line end at the very end of the input is no part of the prompt: `echo` and editors put it
    there. A second one is.

    Args:
        prompt: what the command line says.
        vocabulary: of the model. To one of bytes all input is as good; what is no UTF-8 stands
            then in the text as it does in that of a command line.

    Raises:
        InputError: standard input is closed, or is not UTF-8 and the model's tokens are characters.
    """
    if prompt != STDIN:
        return prompt
    if sys.stdin is None:
        raise InputError(
            "the prompt - is read from standard input, which is closed: give the prompt itself"
        )
    data = sys.stdin.buffer.read()
    try:
        if vocabulary.is_bytes:
            text = data.decode("utf-8", "surrogateescape")
        else:
            text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the prompt on standard input is not UTF-8 text: byte {data[error.start]:#04x} at "
            f"offset {error.start}; convert it first"
        ) from error
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def fit_prompt(prompt: str, vocabulary: Vocabulary, on_unknown: OnUnknown) -> tuple[str, str]:
    """Returns the prompt without characters that the vocabulary does not have.

    `skip` leaves them out. `replace` takes the nearest character that there is: the same letter
    without its accents, or in the other case (É, then E, é, e), the plain dash, quote or
    digit, else a space; and leaves out what has none of these.

    Args:
        prompt: what to begin with.
        vocabulary: the characters of the model.
        on_unknown: what becomes of others; `error` leaves them for `Vocabulary.encode` to refuse.

    Returns:
        The prompt, and in words what was done to it, empty if nothing.
    """
    if on_unknown == "error" or vocabulary.is_bytes:  # To bytes nothing is unknown.
        return prompt, ""
    # The end token may stand in a prompt by mistake only, and must not come in by replacement.
    special = (vocabulary.start_id, vocabulary.end_id)
    known = {token for i, token in enumerate(vocabulary.tokens) if i not in special}
    unknown = sorted(set(prompt) - set(vocabulary.tokens), key=prompt.index)
    table = {c: _nearest(c, known) if on_unknown == "replace" else "" for c in unknown}
    done = [f"{c!r} as {new!r}" if new else f"{c!r} left out" for c, new in table.items()]
    more = [f"and {len(done) - MOST_TOLD} more"] if len(done) > MOST_TOLD else []
    return prompt.translate(str.maketrans(table)), ", ".join(done[:MOST_TOLD] + more)


def _nearest(character: str, known: set[str]) -> str:
    """Returns what stands for a character, of one or more known ones, or nothing."""
    return next((form for form in _forms(character) if form and set(form) <= known), "")


def _forms(character: str) -> Iterator[str]:
    """Yields ever poorer forms of a character."""
    for composed in (character, character.swapcase(), character.casefold()):
        yield composed
        parts = unicodedata.normalize("NFKD", composed)
        yield "".join(part for part in parts if not unicodedata.combining(part))
    yield _PLAIN.get(unicodedata.category(character), "")
    if not unicodedata.combining(character):  # An accent after its letter leaves the letter.
        yield " "
