"""What samplers go on from and are held against: running text, or a list of words."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from astra_jax.data.datasets import PaddedWords, StoredWindows, TextWindows
from astra_jax.data.splits import Split, running_text, words_of
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments.samples import default_prompt
from astra_jax.losses import IGNORE
from astra_jax.model import GRULanguageModel
from astra_jax.sampling.strategies import Strategy
from astra_jax.sampling.writing import WORD_LENGTH, Writer
from study.text_measures import GRAM, likelihood, per_char, ratio, repetition

NUM_TEXTS, TEXT_LENGTH, NUM_NAMES = 64, 1000, 2000
"""How much is written by each sampler: the likelihood of α's texts is known to 0.01 nats then."""

CONTEXT = 128
"""Characters of the validation part that a text goes on from: different texts, even greedily."""

SHOWN_CHARS, SHOWN_NAMES = 300, 30
"""What a reader is shown of each."""


class Material(Protocol):
    """What texts begin with, and what real ones are like."""

    @property
    def context(self) -> Int[np.ndarray, "N P"]:
        """The ids that each text goes on from."""
        ...

    @property
    def real(self) -> Int[np.ndarray, "N S"]:
        """The ids of the real texts."""
        ...

    @property
    def length(self) -> int:
        """How many characters a sampler is to write."""
        ...

    def about(self) -> dict[str, Any]:
        """Returns how much of what there is, JSON-ready."""
        ...

    def measures(self, model: GRULanguageModel, ids: Int[np.ndarray, "N S"]) -> dict[str, Any]:
        """Measures texts, each number a mean with its standard error."""
        ...

    def shown(self, ids: Int[np.ndarray, "N S"]) -> str:
        """Returns what a reader is shown of real texts."""
        ...

    def sample(
        self,
        writer: Writer,
        ids: Int[np.ndarray, "N S"],
        key: jax.Array,
        strategy: Strategy,
        stateful: bool,
    ) -> str:
        """Returns what a reader is shown of a sampler that has written these ids."""
        ...


def material_of(split: Split, num: int | None, length: int) -> Material:
    """Returns what samplers are compared on.

    Args:
        split: the data; its validation part is real.
        num: texts of each sampler; None is `NUM_TEXTS`, of words `NUM_NAMES`.
        length: characters of each text; words end by themselves.

    Raises:
        InputError: the validation part is too short.
    """
    if isinstance(split.validation, PaddedWords):
        return Words.of(split, num or NUM_NAMES)
    return Texts.of(split, num or NUM_TEXTS, length)


@dataclass(frozen=True)
class Texts:
    """Running text: what is gone on from, what stands there, and which words there are.

    Attributes:
        context: what the texts go on from.
        real: how the corpus goes on.
        known: the words of the training part.
        vocabulary: whose ids they are.
    """

    context: Int[np.ndarray, "N P"]
    real: Int[np.ndarray, "N S"]
    known: frozenset[str]
    vocabulary: Vocabulary

    @classmethod
    def of(cls, split: Split, num: int, length: int) -> "Texts":
        """Takes stretches of the validation part; raises `InputError` where it is too short."""
        data, width = running_text(split.validation), CONTEXT + length
        if len(data) < width:
            raise InputError(
                f"the validation part has {len(data)} characters, and texts of {length} that go on "
                f"from {CONTEXT} need {width}: give a longer corpus or ask for shorter texts"
            )
        # As far apart as they can be; where they overlap, errors come out too small.
        stretches = _stretches(data, np.linspace(0, len(data) - width, num).astype(int), width)
        train = running_text(split.train)
        (text,) = _stretches(train, np.zeros(1, int), len(train))
        known = frozenset(word.lower() for word in _words(split.vocabulary.decode(text)))
        return cls(stretches[:, :CONTEXT], stretches[:, CONTEXT:], known, split.vocabulary)

    @property
    def length(self) -> int:
        """As many characters as the real texts have."""
        return self.real.shape[1]

    def about(self) -> dict[str, Any]:
        """Returns how many texts of which length there are."""
        return {
            "kind": "text",
            "num_texts": len(self.context),
            "length": self.length,
            "context": CONTEXT,
            "gram": GRAM,
        }

    def measures(self, model: GRULanguageModel, ids: Int[np.ndarray, "N S"]) -> dict[str, Any]:
        """Measures texts.

        Returns:
            `nats_per_char`: the loss that the network has on them, its state carried from the
            context on, so that of text which it has drawn the mean is its own entropy.
            `known_words`: share of words, upper and lower case alike, that the training part has
            too; words that the ends of a text may have cut are left out. `known_letters`: the
            same, a word weighing as much as it has letters, since a short one is soon hit by
            chance. `repetition`: of the stretches of `GRAM` characters after a text's first, how
            many have stood in that text before; 0 of none, 1 of one character for ever.
        """
        nats = np.nansum(likelihood(model, self.context, ids), axis=1)
        found = [[*_words(self.vocabulary.decode(row), whole=True)] for row in ids]
        known = [[word for word in words if word.lower() in self.known] for words in found]
        return {
            "nats_per_char": ratio(nats, np.full(len(ids), ids.shape[1])),
            "known_words": ratio(*([len(words) for words in part] for part in (known, found))),
            "known_letters": ratio(*([len("".join(w)) for w in part] for part in (known, found))),
            "repetition": ratio([repetition(row) for row in ids], np.ones(len(ids))),
        }

    def shown(self, ids: Int[np.ndarray, "N S"]) -> str:
        """Returns what a reader is shown of real text: the beginning of the first line there."""
        text = self.vocabulary.decode(ids[0])
        return text[text.find("\n") + 1 :][:SHOWN_CHARS].strip()

    def sample(
        self,
        writer: Writer,
        ids: Int[np.ndarray, "N S"],
        key: jax.Array,
        strategy: Strategy,
        stateful: bool,
    ) -> str:
        """Returns what a reader is shown of a sampler: a text that begins as samples do."""
        del ids
        begin, length = default_prompt(self.vocabulary), SHOWN_CHARS
        (text,) = writer.generate(begin, strategy, key, length=length, stateful=stateful)
        return text


@dataclass(frozen=True)
class Words:
    """A list of words; `context` is the token that all begin with.

    Attributes:
        context: it.
        real: words of the validation part and their end token, then `IGNORE`.
        known: the training words.
        vocabulary: whose ids they are.
        length: of the longest word that a sampler writes.
    """

    context: Int[np.ndarray, "N 1"]
    real: Int[np.ndarray, "N S"]
    known: frozenset[str]
    vocabulary: Vocabulary
    length: int = WORD_LENGTH

    @classmethod
    def of(cls, split: Split, num: int) -> "Words":
        """Takes words of the validation part, at most so many."""
        vocabulary = split.vocabulary
        assert vocabulary.end_id is not None
        words = words_of(split.validation, vocabulary)[:num]  # Their order is a random one.
        real = np.full((len(words), max(map(len, words)) + 1), IGNORE, np.int32)
        for row, word in zip(real, words, strict=True):
            row[: len(word)] = vocabulary.encode(word)
            row[len(word)] = vocabulary.end_id
        context = np.full((num, 1), vocabulary.start_id, np.int32)
        known = frozenset(words_of(split.train, vocabulary))
        return cls(context, real, known, vocabulary)

    def about(self) -> dict[str, Any]:
        """Returns how many words there are, and how long they may be."""
        num = {"num_texts": len(self.context), "num_real": len(self.real)}
        return {"kind": "words", **num, "length": self.length}

    def measures(self, model: GRULanguageModel, ids: Int[np.ndarray, "N S"]) -> dict[str, Any]:
        """Measures words.

        Returns:
            `nats_per_char`: the loss that the network has on their letters and ends, its state
            carried from the start token on. `later_nats_per_char`: the same without first
            letters, which a model of the study's recipe has never learnt. `known_words`: share
            of the words that are training words. `distinct`: share of the words that are none of
            those before them.
        """
        ends = np.cumsum(ids == self.vocabulary.end_id, axis=1)
        ids = np.where(ends - (ids == self.vocabulary.end_id) > 0, IGNORE, ids)
        nats = likelihood(model, self.context[: len(ids)], ids)
        words = self._decode(ids)
        first = np.isin(np.arange(len(words)), np.unique(words, return_index=True)[1])
        return {
            "nats_per_char": per_char(nats),
            "later_nats_per_char": per_char(nats[:, 1:]),
            "known_words": ratio([word in self.known for word in words], np.ones(len(words))),
            "distinct": ratio(first, np.ones(len(words))),
        }

    def shown(self, ids: Int[np.ndarray, "N S"]) -> str:
        """Returns the first of them."""
        return ", ".join(self._decode(ids[:SHOWN_NAMES]))

    def sample(
        self,
        writer: Writer,
        ids: Int[np.ndarray, "N S"],
        key: jax.Array,
        strategy: Strategy,
        stateful: bool,
    ) -> str:
        """Returns the first of what a sampler has written."""
        del writer, key, strategy, stateful
        return self.shown(ids)

    def _decode(self, ids: Int[np.ndarray, "N S"]) -> list[str]:
        """Returns the letters before each end; a start token that was drawn has none."""
        ended = np.cumsum(ids == self.vocabulary.end_id, axis=1) > 0
        letters = ~ended & (ids != self.vocabulary.start_id) & (ids != IGNORE)
        return [
            self.vocabulary.decode(row[chosen]) for row, chosen in zip(ids, letters, strict=True)
        ]


def _stretches(
    data: TextWindows | StoredWindows, starts: Int[np.ndarray, " N"], width: int
) -> Int[np.ndarray, "N {width}"]:
    """Returns the ids that stand from each of some places of a text on."""
    cut = dataclasses.replace(data, seq_len=width - 1, batch_size=len(starts))
    batch = cut.batch(jnp.asarray(starts, jnp.int32))
    return np.concatenate([batch.inputs, batch.targets[:, -1:]], axis=1)


def _words(text: str, *, whole: bool = False) -> Iterator[str]:
    """Yields the runs of letters; with `whole`, only those that the ends may not have cut."""
    for match in re.finditer(r"[^\W\d_]+", text):
        if not whole or (match.start() > 0 and match.end() < len(text)):
            yield match.group()
