"""A corpus made ready for training: its vocabulary, and the part that trains and that validates."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from astra_jax.config import DataConfig, DatasetName, Level
from astra_jax.data.datasets import Dataset, PaddedWords, StoredWindows, TextWindows
from astra_jax.data.token_files import TokenFile
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.losses import IGNORE
from astra_jax.machine.placement import to_device


class Split(NamedTuple):
    """A corpus made ready for training.

    Attributes:
        train: what is trained on.
        validation: what is only looked at.
        vocabulary: whose ids both are made of.
        config: what it was made by.
    """

    train: Dataset
    validation: Dataset
    vocabulary: Vocabulary
    config: DataConfig


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
    return Split(train, validation, vocabulary, config)


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
        splits.append(Split(train, validation, vocabulary, config))
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


def running_text(data: Dataset) -> TextWindows | StoredWindows:
    """Returns data as the running text that it is; raises `InputError` if it is words."""
    if not isinstance(data, TextWindows | StoredWindows):
        raise InputError("running text is needed, got a list of words")
    return data


def words_of(data: Dataset, vocabulary: Vocabulary) -> list[str]:
    """Returns the words of some data, in its order; raises `InputError` if it is running text."""
    if not isinstance(data, PaddedWords):
        raise InputError("a list of words is needed, got running text")
    rows = np.asarray(data.inputs)[np.asarray(data.part)]
    return [vocabulary.decode(row[row != 0]) for row in rows]  # 0 is padding, or the start.
