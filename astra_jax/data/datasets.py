"""The two kinds of data as arrays on the device, and how batches are drawn from a key.

Both kinds answer the same three questions with *rows*, integers that stand for examples: which
rows an epoch takes, which rows the notebooks' validation looks at, and which rows cover every
target once. `batch` turns rows into arrays inside the compiled program. Row -1 is empty: all its
targets are ignored, so a partial batch has the shape, and the mean, that it should.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from astra_jax.config import DataConfig, DatasetName, Level
from astra_jax.data.token_files import TokenFile
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.losses import IGNORE
from astra_jax.machine.placement import to_device

EMPTY = -1

STAGE_TOKENS = 1 << 21
"""Ids of large data that lie on the device at a time, 8 MiB of them: some hundred batches."""


class Batch(NamedTuple):
    """What one step reads.

    Attributes:
        inputs: ids of the characters read.
        targets: ids of the characters to predict; `losses.IGNORE` does not count.
        h_0: the layers' states before the first of them; None is zeros.
    """

    inputs: Int[Array, "B T"]
    targets: Int[Array, "B T"]
    h_0: Float[Array, "L B H"] | None = None


class Stage(NamedTuple):
    """Data on the device that has what some batches need.

    Attributes:
        data: what lies there.
        rows: of the batches in it.
        first: how many batches before these it leaves out.
        num_batches: how many of the batches asked for it has.
    """

    data: "Dataset"
    rows: Int[Array | np.ndarray, "S B"]
    first: int
    num_batches: int


@runtime_checkable
class Dataset(Protocol):
    """What training and evaluation need to know of a kind of data."""

    def count_targets(self) -> int:
        """Returns how many characters are predicted when every one is predicted once."""
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

    def stage(self, rows: Int[Array | np.ndarray, "S B"], begin: int, count: int) -> Stage:
        """Brings to the device what batches from `rows[begin]` on need, at most `count` of them.

        Data that lies there already has all of them.
        """
        ...

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the arrays of one batch of data that lies on the device."""
        ...


def stages(data: Dataset, rows: Int[Array | np.ndarray, "S B"]) -> Iterator[Stage]:
    """Yields what all batches need, stretch after stretch."""
    begin = 0
    while begin < len(rows):
        stage = data.stage(rows, begin, len(rows) - begin)
        yield stage
        begin += stage.num_batches


def _static() -> Any:
    return field(metadata={"static": True})


class _Windows:
    """Windows of running text, wherever it lies; a row is the offset of the first character."""

    seq_len: int
    batch_size: int
    carry_state: bool

    def __len__(self) -> int:
        """Returns the characters of the text."""
        raise NotImplementedError

    def count_targets(self) -> int:
        """Counts every character but the first."""
        return len(self) - 1

    @property
    def max_steps(self) -> None:
        """Windows are drawn with replacement: an epoch can have any number of them."""
        return None

    def epoch_rows(self, key: Key[Array, ""], num_steps: int) -> Int[Array, "S B"]:
        """Draws where the windows begin.

        Where states are carried, windows of a place of the batch follow one another from a first
        one on, round the end of the text to its beginning; those of all places lie as far apart
        as they can, and where they begin is drawn.
        """
        if not self.carry_state:
            return self._random_rows(key, num_steps)
        end = self._end
        # The text is a ring: what is read at its beginning goes on from the states at its end.
        first = int(jax.random.randint(key, (), 0, end, jnp.int32))
        places = first + np.arange(self.batch_size) * end // self.batch_size
        steps = np.arange(num_steps, dtype=np.int64) * self.seq_len
        return jnp.asarray((places + steps[:, None]) % end, jnp.int32)

    def estimate_rows(self, key: Key[Array, ""]) -> Int[Array, "S B"]:
        """Draws one batch, as the notebook does."""
        return self._random_rows(key, 1)

    @property
    def _end(self) -> int:
        """What offsets are below: the study leaves out the last window."""
        return len(self) - self.seq_len - 1

    def _random_rows(self, key: Key[Array, ""], num_steps: int) -> Int[Array, "S B"]:
        """Draws offsets uniformly from [0, n - seq_len - 1), the study's range."""
        return jax.random.randint(key, (num_steps, self.batch_size), 0, self._end, jnp.int32)

    def cover_rows(self) -> Int[Array, "S B"]:
        """Returns the offsets of windows side by side; the last one may be cut short."""
        return _in_batches(np.arange(0, self.count_targets(), self.seq_len), self.batch_size)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextWindows(_Windows):
    """Windows of text that lies on the device."""

    tokens: Integer[Array, " N"]
    seq_len: int = _static()
    batch_size: int = _static()
    carry_state: bool = field(default=False, metadata={"static": True})

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def stage(self, rows: Int[Array | np.ndarray, "S B"], begin: int, count: int) -> Stage:
        """Returns itself."""
        return Stage(self, rows, 0, min(count, len(rows) - begin))

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the windows and, shifted by one, their targets."""
        places = rows[:, None] + jnp.arange(self.seq_len + 1, dtype=rows.dtype)[None]
        windows = self.tokens.at[places].get(mode="clip").astype(jnp.int32)
        last = self.tokens.shape[0] - 1
        counted = (rows[:, None] != EMPTY) & (places[:, 1:] <= last)
        return Batch(windows[:, :-1], jnp.where(counted, windows[:, 1:], IGNORE))


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class StoredWindows(_Windows):
    """Windows of text that lies in a file, from which batches bring what they need."""

    tokens: TokenFile
    seq_len: int
    batch_size: int
    carry_state: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    def stage(self, rows: Int[Array | np.ndarray, "S B"], begin: int, count: int) -> Stage:
        """Lays the windows of some batches side by side, into text that is always as long.

        So one compiled program serves all stretches of equally many rows, and equal rows make
        equal batches, wherever the text lies. A window that the end of the text cuts short must
        be cut short here too: the last characters of the text are the last here.
        """
        width, length = self.seq_len + 1, len(self)
        capacity = _even_share(len(rows), STAGE_TOKENS // (rows.shape[1] * width))
        wanted = np.asarray(rows[begin : begin + min(count, capacity)])
        size = capacity * wanted.shape[1] * width + self.seq_len
        text = np.zeros(size, self.tokens.dtype)
        places = np.full((capacity, wanted.shape[1]), EMPTY, np.int32)
        for index, batch in enumerate(wanted):
            place = index * batch.size * width
            windows = self.tokens.windows(np.clip(batch, 0, length - width), width)
            text[place : place + windows.size] = windows.ravel()
            places[index] = place + width * np.arange(batch.size)
        tail = np.array([length - self.seq_len])
        text[-self.seq_len :] = self.tokens.windows(tail, self.seq_len)[0]
        here = places[: len(wanted)]
        here[:] = np.where(wanted + width > length, size - (length - wanted), here)
        here[wanted == EMPTY] = EMPTY
        data = TextWindows(jnp.asarray(text), self.seq_len, self.batch_size)
        return Stage(data, jnp.asarray(places), begin, len(wanted))

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the windows and targets of one batch, brought here for it alone."""
        stage = self.stage(rows[None], 0, 1)
        return stage.data.batch(jnp.asarray(stage.rows[0]))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PaddedWords:
    """Part of a list of words, each padded to one length; a row is the number of a word.

    Attributes:
        inputs: of the whole list, so that parts, and other divisions into parts, can share it.
        targets: of the whole list.
        part: which of the words these are, in order.
        batch_size: words in a batch.
    """

    inputs: Int[Array, "N T"]
    targets: Int[Array, "N T"]
    part: Int[Array | np.ndarray, " M"]
    batch_size: int = _static()

    def count_targets(self) -> int:
        """Counts letters and ends of these words that are predicted.

        Every time: as a constant of each part, the number would make every seed's split a type of
        its own, to be compiled for anew.
        """
        return int((np.asarray(self.targets)[np.asarray(self.part)] != IGNORE).sum())

    @property
    def max_steps(self) -> int:
        """Every word once, in batches of which the last may be partial."""
        return math.ceil(self.part.shape[0] / self.batch_size)

    def epoch_rows(self, key: Key[Array, ""], num_steps: int) -> Int[Array, "S B"]:
        """Shuffles all words and returns the first `num_steps` batches of them."""
        order = jax.random.permutation(key, jnp.asarray(self.part, jnp.int32))
        return _in_batches(order, self.batch_size)[:num_steps]

    def estimate_rows(self, key: Key[Array, ""]) -> Int[Array, "S B"]:
        """Returns the whole split: the study prints the mean of its batch means."""
        del key
        return self.cover_rows()

    def cover_rows(self) -> Int[Array, "S B"]:
        """Returns every word once, in order."""
        return _in_batches(self.part, self.batch_size)

    def stage(self, rows: Int[Array | np.ndarray, "S B"], begin: int, count: int) -> Stage:
        """Returns itself."""
        return Stage(self, rows, 0, min(count, len(rows) - begin))

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


def split_corpus(
    content: str | bytes | TokenFile, config: DataConfig, key: Key[Array, ""]
) -> Split:
    """Returns the training and validation parts of a text, or of bytes.

    Running text is cut once, its first part trains. Words, one a line, are split at random.

    Args:
        content: the whole corpus, as `load_corpus` found it.
        config: its kind, the share to train on, the shapes of a batch.
        key: decides the random split of words.

    Raises:
        InputError: the corpus is empty, too short or of another level than `config` says, or a
            word cannot be used.
    """
    return split_by_keys(content, config, [key])[0]


def split_by_keys(
    content: str | bytes | TokenFile, config: DataConfig, keys: Sequence[Key[Array, ""]]
) -> list[Split]:
    """Returns what `split_corpus` does for each key; all of them share the corpus's arrays."""
    if not isinstance(content, TokenFile) and not content.strip():
        raise InputError("the corpus is empty: give a file with text in it")
    _require_level(content, config.level)
    if config.dataset == "names":
        if not isinstance(content, str):
            raise InputError("a list of words must be given as text, got a file of token ids")
        return _split_words(content, config, keys)
    return [_split_running(content, config)] * len(keys)


def _require_level(content: str | bytes | TokenFile, level: Level) -> None:
    stored = isinstance(content, TokenFile) and content.vocabulary.is_bytes
    found = "byte" if stored or isinstance(content, bytes) else "char"
    if found != level:
        raise InputError(
            f"the configuration's level is {level}, and the corpus is of level {found}: "
            f'load it by load_corpus(..., level="{level}")'
        )


def corpus_vocabulary(content: str | bytes | TokenFile, dataset: DatasetName) -> Vocabulary:
    """Returns the vocabulary that a text has as running text, as bytes or as a list of words."""
    if isinstance(content, TokenFile):
        return content.vocabulary
    if isinstance(content, bytes):
        return Vocabulary.of_bytes()
    words = dataset == "names"
    return Vocabulary.of_words(_words(content)) if words else Vocabulary.of_text(content)


def _words(text: str) -> list[str]:
    # Not splitlines(), which also parts words at form feeds and Unicode's separators.
    lines = text.replace("\r", "\n").split("\n")
    return [word for line in lines if (word := line.strip())]


def _split_running(content: str | bytes | TokenFile, config: DataConfig) -> Split:
    vocabulary = corpus_vocabulary(content, config.dataset)
    if isinstance(content, str):
        tokens = vocabulary.encode(content).astype(vocabulary.dtype)
    elif isinstance(content, bytes):
        tokens = np.frombuffer(content, np.uint8)
    else:
        tokens = content
    cut = int(len(tokens) * config.train_fraction)
    needed = config.seq_len + 2
    if min(cut, len(tokens) - cut) < needed:
        raise InputError(
            f"the corpus is too short: {len(tokens)} characters leave {cut} to train on and "
            f"{len(tokens) - cut} to validate on, and each part needs {needed} for one window of "
            f"seq_len {config.seq_len}; give a longer text or a smaller --seq-len"
        )
    train, validation = (
        _windows(tokens, start, stop, config) for start, stop in ((0, cut), (cut, len(tokens)))
    )
    return Split(train, validation, vocabulary)


def _windows(
    tokens: Integer[np.ndarray, " N"] | TokenFile, start: int, stop: int, config: DataConfig
) -> TextWindows | StoredWindows:
    how = config.seq_len, config.batch_size, config.carry_state
    if isinstance(tokens, TokenFile):
        return StoredWindows(tokens.part(start, stop), *how)
    return TextWindows(to_device(tokens[start:stop]), *how)


def _split_words(text: str, config: DataConfig, keys: Sequence[Key[Array, ""]]) -> list[Split]:
    words, vocabulary = _words(text), corpus_vocabulary(text, config.dataset)
    for number, word in enumerate(words, 1):
        _check_word(word, number, config, vocabulary)
    if config.dedupe:
        words = list(dict.fromkeys(words))
    cut = int(len(words) * config.train_fraction)
    if not 0 < cut < len(words):
        raise InputError(
            f"{len(words)} {'different ' if config.dedupe else ''}words are too few to split "
            f"{config.train_fraction:g} to the rest: give a list with more"
        )
    inputs, targets = to_device(pad_words(words, vocabulary, config))
    splits = []
    for key in keys:
        order = np.asarray(jax.random.permutation(key, len(words)))
        train, validation = (
            PaddedWords(inputs, targets, part, config.batch_size)
            for part in (order[:cut], order[cut:])
        )
        splits.append(Split(train, validation, vocabulary))
    return splits


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


def _even_share(num: int, most: int) -> int:
    """Returns the length of equally long stretches of `num` in all, none longer than `most`."""
    return math.ceil(num / math.ceil(num / max(1, most)))


def _in_batches(rows: Int[Array | np.ndarray, " N"], batch_size: int) -> Int[Array, "S B"]:
    """Folds rows into batches, the last one filled up with empty rows."""
    missing = -len(rows) % batch_size
    padded = jnp.pad(jnp.asarray(rows, jnp.int32), (0, missing), constant_values=EMPTY)
    return padded.reshape(-1, batch_size)
