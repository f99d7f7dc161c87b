"""The two kinds of data as arrays on the device, and how batches are drawn from a key.

Both kinds answer the same three questions with *rows*, integers that stand for examples: which
rows an epoch takes, which rows the notebooks' validation looks at, and which rows cover every
target once. `batch` turns rows into arrays inside the compiled program. Row -1 is empty: all its
targets are ignored, so a partial batch has the shape, and the mean, that it should.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from astra_jax.config import DataConfig, DatasetName
from astra_jax.errors import InputError
from astra_jax.losses import IGNORE
from astra_jax.vocabulary import Vocabulary

EMPTY = -1


class Batch(NamedTuple):
    """What one step reads.

    Attributes:
        inputs: ids of the characters read.
        targets: ids of the characters to predict; `losses.IGNORE` does not count.
    """

    inputs: Int[Array, "B T"]
    targets: Int[Array, "B T"]


@runtime_checkable
class Dataset(Protocol):
    """What training and evaluation need to know of a kind of data."""

    @property
    def num_targets(self) -> int:
        """Number of characters that are predicted when every one is predicted once."""
        ...

    @property
    def max_steps(self) -> int | None:
        """Number of batches that an epoch has; None where it can have any number."""
        ...

    def epoch_rows(self, key: Key[Array, ""], num_steps: int) -> Int[Array, "S B"]:
        """Draws the rows of an epoch's batches."""
        ...

    def estimate_rows(self, key: Key[Array, ""]) -> Int[Array, "S B"]:
        """Returns the rows of the batches whose mean loss the notebook prints as validation."""
        ...

    def cover_rows(self) -> Int[Array, "S B"]:
        """Returns rows that have every target once."""
        ...

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the arrays of one batch."""
        ...


def _static() -> Any:
    return field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextWindows:
    """Windows of running text; a row is the offset of a window's first character."""

    tokens: Int[Array, " N"]
    seq_len: int = _static()
    batch_size: int = _static()

    @property
    def num_targets(self) -> int:
        """Every character but the first."""
        return self.tokens.shape[0] - 1

    @property
    def max_steps(self) -> None:
        """Windows are drawn with replacement: an epoch can have any number of them."""
        return None

    def epoch_rows(self, key: Key[Array, ""], num_steps: int) -> Int[Array, "S B"]:
        """Draws offsets uniformly from [0, n - seq_len - 1), the study's range."""
        end = self.tokens.shape[0] - self.seq_len - 1
        return jax.random.randint(key, (num_steps, self.batch_size), 0, end, jnp.int32)

    def estimate_rows(self, key: Key[Array, ""]) -> Int[Array, "S B"]:
        """Draws one batch, as the notebook does."""
        return self.epoch_rows(key, 1)

    def cover_rows(self) -> Int[Array, "S B"]:
        """Returns the offsets of windows side by side; the last one may be cut short."""
        return _in_batches(np.arange(0, self.num_targets, self.seq_len), self.batch_size)

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the windows and, shifted by one, their targets."""
        places = rows[:, None] + jnp.arange(self.seq_len + 1, dtype=rows.dtype)[None]
        windows = self.tokens.at[places].get(mode="clip")
        last = self.tokens.shape[0] - 1
        counted = (rows[:, None] != EMPTY) & (places[:, 1:] <= last)
        return Batch(windows[:, :-1], jnp.where(counted, windows[:, 1:], IGNORE))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PaddedWords:
    """Words, each padded to one length; a row is the number of a word."""

    inputs: Int[Array, "N T"]
    targets: Int[Array, "N T"]
    num_targets: int = _static()
    batch_size: int = _static()

    @property
    def max_steps(self) -> int:
        """Every word once, in batches of which the last may be partial."""
        return math.ceil(self.inputs.shape[0] / self.batch_size)

    def epoch_rows(self, key: Key[Array, ""], num_steps: int) -> Int[Array, "S B"]:
        """Shuffles all words and returns the first `num_steps` batches of them."""
        order = jax.random.permutation(key, jnp.arange(self.inputs.shape[0], dtype=jnp.int32))
        return _in_batches(order, self.batch_size)[:num_steps]

    def estimate_rows(self, key: Key[Array, ""]) -> Int[Array, "S B"]:
        """Returns the whole split: the study prints the mean of its batch means."""
        del key
        return self.cover_rows()

    def cover_rows(self) -> Int[Array, "S B"]:
        """Returns every word once, in order."""
        return _in_batches(np.arange(self.inputs.shape[0]), self.batch_size)

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the padded words and their targets."""
        targets = self.targets.at[rows].get(mode="clip")
        counted = (rows != EMPTY)[:, None]
        return Batch(self.inputs.at[rows].get(mode="clip"), jnp.where(counted, targets, IGNORE))


class Split(NamedTuple):
    """A corpus made ready for training.

    Attributes:
        train: what is trained on.
        validation: what is only looked at.
        vocabulary: whose ids both are made of.
    """

    train: Dataset
    validation: Dataset
    vocabulary: Vocabulary


def split_corpus(content: str | bytes, config: DataConfig, key: Key[Array, ""]) -> Split:
    """Returns the training and validation parts of a text, or of bytes.

    Running text is cut once, its first part trains. Words, one a line, are split at random.

    Args:
        content: the whole corpus, as its level has it.
        config: its kind, the share to train on, the shapes of a batch.
        key: decides the random split of words.

    Raises:
        InputError: the corpus is empty or too short, or a word cannot be used.
    """
    if not content.strip():
        raise InputError("the corpus is empty: give a file with text in it")
    if config.dataset == "names":
        assert isinstance(content, str)
        return _split_words(content, config, key)
    return _split_running(content, config)


def corpus_vocabulary(content: str | bytes, dataset: DatasetName) -> Vocabulary:
    """Returns the vocabulary that a text has as running text, as bytes or as a list of words."""
    if isinstance(content, bytes):
        return Vocabulary.of_bytes()
    words = dataset == "names"
    return Vocabulary.of_words(_words(content)) if words else Vocabulary.of_text(content)


def _words(text: str) -> list[str]:
    # Not splitlines(), which also parts words at form feeds and Unicode's separators.
    return [word for line in text.split("\n") if (word := line.strip())]


def _split_running(content: str | bytes, config: DataConfig) -> Split:
    vocabulary = corpus_vocabulary(content, config.dataset)
    if isinstance(content, bytes):
        tokens = np.frombuffer(content, np.uint8).astype(np.int32)
    else:
        tokens = vocabulary.encode(content)
    cut = int(len(tokens) * config.train_fraction)
    needed = config.seq_len + 2
    if min(cut, len(tokens) - cut) < needed:
        raise InputError(
            f"the corpus is too short: {len(tokens)} characters leave {cut} to train on and "
            f"{len(tokens) - cut} to validate on, and each part needs {needed} for one window of "
            f"seq_len {config.seq_len}; give a longer text or a smaller --seq-len"
        )
    train, validation = (
        TextWindows(jnp.asarray(part), config.seq_len, config.batch_size)
        for part in (tokens[:cut], tokens[cut:])
    )
    return Split(train, validation, vocabulary)


def _split_words(text: str, config: DataConfig, key: Key[Array, ""]) -> Split:
    words, vocabulary = _words(text), corpus_vocabulary(text, config.dataset)
    for number, word in enumerate(words, 1):
        _check_word(word, number, config, vocabulary)
    if config.dedupe:
        words = list(dict.fromkeys(words))
    cut = int(len(words) * config.train_fraction)
    if not 0 < cut < len(words):
        raise InputError(
            f"{len(words)} words are too few to split {config.train_fraction:g} to the rest: "
            "give a longer list"
        )
    order = np.asarray(jax.random.permutation(key, len(words)))
    inputs, targets = pad_words(words, vocabulary, config)
    train, validation = (
        PaddedWords(
            jnp.asarray(inputs[rows]),
            jnp.asarray(targets[rows]),
            int((targets[rows] != IGNORE).sum()),
            config.batch_size,
        )
        for rows in (order[:cut], order[cut:])
    )
    return Split(train, validation, vocabulary)


def _check_word(word: str, number: int, config: DataConfig, vocabulary: Vocabulary) -> None:
    assert vocabulary.end_id is not None
    end = vocabulary.tokens[vocabulary.end_id]
    if end in word:
        raise InputError(
            f"word {number}, {word!r}, contains {end!r}, which stands for the end of a word: "
            "remove it"
        )
    needed = len(word) + config.start_token
    if needed > config.seq_len:
        start = " after its start token" if config.start_token else ""
        raise InputError(
            f"word {number}, {word!r}, has {len(word)} characters and does not fit into "
            f"seq_len {config.seq_len}{start}: shorten it or pass --seq-len {needed}"
        )


def pad_words(
    words: list[str], vocabulary: Vocabulary, config: DataConfig
) -> tuple[Int[np.ndarray, "N T"], Int[np.ndarray, "N T"]]:
    """Returns each word as inputs and, shifted by one and ended, targets.

    With a start token, that and the word's letters are the inputs, the letters and the end token
    the targets. Without, a word begins at its first letter, which so is never a target, as in the
    study. Inputs are padded with id 0, targets with `losses.IGNORE`.
    """
    assert vocabulary.start_id is not None
    assert vocabulary.end_id is not None
    start = [vocabulary.start_id] if config.start_token else []
    inputs = np.zeros((len(words), config.seq_len), np.int32)
    targets = np.full((len(words), config.seq_len), IGNORE, np.int32)
    for row, word in enumerate(words):
        ids = [*start, *vocabulary.encode(word), vocabulary.end_id]
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = ids[1:]
    return inputs, targets


def _in_batches(rows: Int[Array | np.ndarray, " N"], batch_size: int) -> Int[Array, "S B"]:
    """Folds rows into batches, the last one filled up with empty rows."""
    missing = -len(rows) % batch_size
    padded = jnp.pad(jnp.asarray(rows, jnp.int32), (0, missing), constant_values=EMPTY)
    return padded.reshape(-1, batch_size)
