"""Characters, or bytes, to ids and back."""

import codecs
import functools
import string
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Int

from astra_jax.config import DatasetName
from astra_jax.errors import InputError

PADDING, END = "<PAD>", "."
"""The special tokens of words."""

BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
"""The tokens of a vocabulary of bytes: one that has just these is one."""

PIECE = 1 << 20
"""Characters that are encoded at once."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """An ordered set of tokens: single characters, and special tokens before them; or all bytes.

    Attributes:
        tokens: the V tokens; a token's place is its id.
        start_id: the token that a generated sequence begins with; None where a prompt must.
        end_id: the token that ends a sequence; None where text has no end.
    """

    tokens: tuple[str, ...]
    start_id: int | None = None
    end_id: int | None = None

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Returns the sorted distinct characters of a text, as in the Shakespeare study."""
        return cls(tokens=tuple(sorted(set(text))))

    @classmethod
    def of_bytes(cls) -> Self:
        """Returns the 256 values of a byte, whichever of them a corpus has: any prompt will do."""
        return cls(tokens=BYTES)

    @classmethod
    def of_words(cls, words: list[str]) -> Self:
        """Returns padding (id 0, also the start), the end token `.` (id 1), then the letters.

        This is the order of the names study, where the letters a..z are 2..27.
        """
        letters = sorted(set("".join(words)) - {END})
        return cls(tokens=(PADDING, END, *letters), start_id=0, end_id=1)

    def __post_init__(self) -> None:
        tokens, special = self.tokens, (self.start_id, self.end_id)
        if not (isinstance(tokens, tuple) and tokens and all(isinstance(t, str) for t in tokens)):
            raise InputError("the tokens of a vocabulary must be strings, at least one of them")
        if not all(tokens):
            raise InputError("a token of a vocabulary must not be empty")
        if len(set(tokens)) != len(tokens):
            raise InputError(f"a vocabulary must not repeat a token, got {tokens!r}")
        if not all(i is None or (type(i) is int and 0 <= i < len(tokens)) for i in special):
            raise InputError(f"start_id and end_id must be ids of tokens or null, got {special}")

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def is_bytes(self) -> bool:
        """Whether ids are the bytes of UTF-8 text, or of anything else."""
        return self.tokens == BYTES

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds every id."""
        return np.min_scalar_type(len(self) - 1)

    @functools.cached_property
    def ids_of_code_points(self) -> Int[np.ndarray, " C"]:
        """The id of each code point up to the largest that has one; -1 is none, the last."""
        ids = {ord(token): i for i, token in enumerate(self.tokens) if len(token) == 1}
        table = np.full(max(ids, default=-1) + 2, -1, np.int32)
        table[[*ids]] = [*ids.values()]
        return table

    def encode(self, text: str) -> Int[np.ndarray, " N"]:
        """Returns the id of each character, or of each byte.

        Raises:
            InputError: a character is not in the vocabulary; the message names it and its place.
        """
        if self.is_bytes:
            return _encode_bytes(text)
        table, ids = self.ids_of_code_points, np.empty(len(text), np.int32)
        for first in range(0, len(text), PIECE):  # What is taken by takes four times the memory.
            piece = text[first : first + PIECE].encode("utf-32-le", "surrogatepass")
            ids[first : first + PIECE] = table.take(np.frombuffer(piece, np.uint32), mode="clip")
        if (ids < 0).any():
            place = int(np.argmax(ids < 0))
            line = text.count("\n", 0, place) + 1
            raise InputError(
                f"character {text[place]!r} at position {place + 1} (line {line}) is not among "
                f"the {len(self)} tokens of the vocabulary: {self.describe()}"
            )
        return ids

    def decode(self, ids: Int[np.ndarray, " N"]) -> str:
        """Returns the text of the ids; of bytes that are no UTF-8, the replacement character."""
        return self.decoder()(ids, final=True)

    def decoder(self) -> "Decoder":
        """Returns what decodes ids that come piece by piece."""
        return Decoder(self)

    def describe(self) -> str:
        """Returns the characters in one short line."""
        if self.is_bytes:
            return "the 256 bytes"
        text = "".join(token for token in self.tokens if len(token) == 1)
        special = [token for token in self.tokens if len(token) > 1]
        return ", ".join([repr(text if len(text) <= 120 else text[:117] + "..."), *special])

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {"tokens": list(self.tokens), "start_id": self.start_id, "end_id": self.end_id}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Builds the vocabulary from what `to_dict` returned.

        Raises:
            InputError: the values are not those of a vocabulary.
        """
        if not (isinstance(values, dict) and set(values) == {"tokens", "start_id", "end_id"}):
            raise InputError("a vocabulary must be an object of tokens, start_id and end_id")
        if not isinstance(values["tokens"], list):
            raise InputError("the tokens of a vocabulary must be a list of strings")
        tokens = tuple(values["tokens"])
        return cls(tokens=tokens, start_id=values["start_id"], end_id=values["end_id"])


class Decoder:
    """Decodes ids that come piece by piece, whose pieces may end inside a character."""

    def __init__(self, vocabulary: Vocabulary):
        """Begins a text."""
        self._vocabulary = vocabulary
        self._utf_8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, ids: Int[np.ndarray, " N"], *, final: bool = False) -> str:
        """Returns the text that is certain by now; with `final`, that of everything left.

        Raises:
            InputError: an id is none of the vocabulary's.
        """
        ids, size = np.asarray(ids), len(self._vocabulary)
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            raise InputError(f"ids must be in [0, {size}), got {ids.min()} to {ids.max()}")
        if self._vocabulary.is_bytes:
            return self._utf_8.decode(np.asarray(ids, np.uint8).tobytes(), final)
        return "".join(self._vocabulary.tokens[i] for i in ids)


def _encode_bytes(text: str) -> Int[np.ndarray, " N"]:
    try:  # What the command line gave and is no UTF-8 stands as surrogates in Python's text.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {text[error.start]!r} at position {error.start + 1} is half of a "
            "surrogate pair, which is no text: remove it"
        ) from error
    return np.frombuffer(data, np.uint8).astype(np.int32)


def published_vocabulary(dataset: DatasetName) -> Vocabulary:
    """Returns the vocabulary of a published corpus, known without the corpus itself."""
    if dataset == "names":
        return Vocabulary.of_words([string.ascii_lowercase])
    return Vocabulary.of_text("\n !$&',-.3:;?" + string.ascii_letters)
