"""What a model writes with its state carried and without, and what the difference costs."""

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from astra_jax.data.datasets import Batch, PaddedWords, Split, StoredWindows, TextWindows
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.evaluation import read_on, running_text, words_of
from astra_jax.experiments.samples import default_prompt
from astra_jax.losses import IGNORE
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.runs.folder import Run
from astra_jax.sampling.sampler import Sampler
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature, TopK
from astra_jax.sampling.writing import WORD_LENGTH, Writer
from astra_jax.training.trainer import Keys

NUM_TEXTS, TEXT_LENGTH, NUM_NAMES = 64, 1000, 2000
"""How much is written by each sampler: the likelihood of α's texts is known to 0.01 nats then."""

CONTEXT = 128
"""Characters of the validation part that a text goes on from: different texts, even greedily."""

SHOWN_CHARS, SHOWN_NAMES = 300, 30
"""What a reader is shown of each."""

GRAM = 8
"""Characters of the stretches whose repetition is counted: longer than most words."""

PIECE = 256
"""Characters whose likelihood is computed at once, to hold little memory."""

TOP_K = 30
"""Of the study's published samples."""


def strategies(vocabulary: Vocabulary) -> dict[str, Strategy]:
    """Returns how characters are picked, by name."""
    k = min(TOP_K, len(vocabulary))
    return {
        "greedy": Greedy(),
        "temperature 1.0": Temperature(1.0),
        f"top-k {k}, temperature 1.0": TopK(k, 1.0),
        f"top-k {k}, temperature 0.8": TopK(k, 0.8),
    }


def compare_samplers(
    run: Run,
    model: GRULanguageModel,
    split: Split,
    *,
    num: int | None = None,
    length: int = TEXT_LENGTH,
) -> dict[str, Any]:
    """Lets a model write with its state carried and without, and measures both.

    Running texts go on from stretches of the validation part, and are held against what stands
    there; a list of words against the validation words. Every number is a mean with its standard
    error over the texts. All follows from the run's seed.

    Args:
        run: whose model it is.
        model: what writes, and what says how likely it finds what was written.
        split: the run's data.
        num: texts of each sampler; None is `NUM_TEXTS`, of words `NUM_NAMES`.
        length: characters of each text; words end by themselves.

    Returns:
        A JSON-ready dictionary: `reference`, the measures of real text, and `samplers`, a list of
        those of each mode and strategy; see `_Texts.measures` and `_Words.measures`.

    Raises:
        InputError: the validation part is too short.
    """
    with arithmetic(run.preset.train.dtype):
        material = (
            _Words.of(split, num or NUM_NAMES)
            if isinstance(split.validation, PaddedWords)
            else _Texts.of(split, num or NUM_TEXTS, length)
        )
        key = Keys.from_seed(run.preset.train.seed).samples
        real = material.measures(model, material.real) | {"text": material.shown(material.real)}
        sampler, writer = Sampler(model), Writer(model, split.vocabulary)
        samplers = []
        for stateful in (True, False):
            for name, strategy in strategies(split.vocabulary).items():
                how = strategy, stateful
                length = material.length
                ids = sampler.continue_ids(material.context, length, strategy, key, stateful)
                measures = material.measures(model, ids)
                about = {"mode": "stateful" if stateful else "stateless", "strategy": name}
                text = {"text": material.sample(writer, ids, key, *how)}
                samplers.append(about | measures | text)
        return material.about() | {"reference": real, "samplers": samplers}


@dataclass(frozen=True)
class _Texts:
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
    def of(cls, split: Split, num: int, length: int) -> "_Texts":
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
        return self.real.shape[1]

    def about(self) -> dict[str, Any]:
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
class _Words:
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
    def of(cls, split: Split, num: int) -> "_Words":
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
            "nats_per_char": _per_char(nats),
            "later_nats_per_char": _per_char(nats[:, 1:]),
            "known_words": ratio([word in self.known for word in words], np.ones(len(words))),
            "distinct": ratio(first, np.ones(len(words))),
        }

    def shown(self, ids: Int[np.ndarray, "N S"]) -> str:
        """Returns the first of them."""
        return ", ".join(self._decode(ids[:SHOWN_NAMES]))

    def sample(self, writer: Any, ids: Int[np.ndarray, "N S"], *how: Any) -> str:
        """Returns the first of what a sampler has written."""
        del writer, how
        return self.shown(ids)

    def _decode(self, ids: Int[np.ndarray, "N S"]) -> list[str]:
        """Returns the letters before each end; a start token that was drawn has none."""
        ended = np.cumsum(ids == self.vocabulary.end_id, axis=1) > 0
        letters = ~ended & (ids != self.vocabulary.start_id) & (ids != IGNORE)
        return [
            self.vocabulary.decode(row[chosen]) for row, chosen in zip(ids, letters, strict=True)
        ]


def likelihood(
    model: GRULanguageModel, context: Int[np.ndarray, "N P"], ids: Int[np.ndarray, "N S"]
) -> Float[np.ndarray, "N S"]:
    """Returns the loss of each character in nats, the state carried from the context on.

    Args:
        model: what predicts.
        context: at least one character that stands before each text.
        ids: the texts; `IGNORE` from where they have ended.

    Returns:
        NaN where there is no character.
    """
    whole = np.concatenate([context, ids], axis=1).astype(np.int32)
    inputs, targets = np.maximum(whole[:, :-1], 0), whole[:, 1:].copy()
    targets[:, : context.shape[1] - 1] = IGNORE
    piece = min(PIECE, inputs.shape[1])
    missing = ((0, 0), (0, -inputs.shape[1] % piece))
    inputs, targets = np.pad(inputs, missing), np.pad(targets, missing, constant_values=IGNORE)
    (graph, params), state = nnx.split(model), model.initial_state(len(whole))
    parts = []
    for first in range(0, inputs.shape[1], piece):
        here = (jnp.asarray(part[:, first : first + piece]) for part in (inputs, targets))
        losses, state = read_on(graph, params, Batch(*here), state)
        parts.append(np.asarray(losses, np.float64))
    begin = context.shape[1] - 1
    return np.concatenate(parts, axis=1)[:, begin : begin + ids.shape[1]]


def repetition(ids: Int[np.ndarray, " S"], gram: int = GRAM) -> float:
    """Returns how many of a text's stretches, after the first, have stood in it before: 0 to 1.

    Args:
        ids: the text, of more than `gram` characters.
        gram: characters of a stretch.
    """
    stretches = [ids[place : place + gram].tobytes() for place in range(len(ids) - gram + 1)]
    return (len(stretches) - len(set(stretches))) / (len(stretches) - 1)


def ratio(parts: Any, wholes: Any) -> dict[str, float | None]:
    """Returns the share of some wholes that their parts are, with its standard error.

    Args:
        parts: of each text.
        wholes: of each text; texts with more weigh more.

    Returns:
        `mean`, None where there is no whole at all; `error`, by the variance of a ratio of means
        (Cochran, Sampling Techniques, section 2.11), None of fewer than two texts.
    """
    parts, wholes = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    if not wholes.sum():
        return {"mean": None, "error": None}
    mean, num = parts.sum() / wholes.sum(), len(parts)
    if num < 2:
        return {"mean": float(mean), "error": None}
    squares = ((parts - mean * wholes) ** 2).sum() / (num - 1)
    return {"mean": float(mean), "error": math.sqrt(squares / num) / float(wholes.mean())}


def _per_char(nats: Float[np.ndarray, "N S"]) -> dict[str, float | None]:
    return ratio(np.nansum(nats, axis=1), np.sum(~np.isnan(nats), axis=1))


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
