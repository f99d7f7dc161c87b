"""The two kinds of data as arrays on the device, and how batches are drawn from a key.

Both kinds answer the same three questions with *rows*, integers that stand for examples: which
rows an epoch takes, which rows the notebooks' validation looks at, and which rows cover every
target once. `batch` turns rows into arrays inside the compiled program. Row -1 is empty: all its
targets are ignored, so a partial batch has the shape, and the mean, that it should.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Integer, Key

from astra_jax.data.token_files import TokenFile
from astra_jax.errors import InputError
from astra_jax.losses import IGNORE

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


def _static(**default: Any) -> Any:
    return field(metadata={"static": True}, **default)


class _OnDevice:
    """Data that lies on the device as it is."""

    def stage(self, rows: Int[Array | np.ndarray, "S B"], begin: int, count: int) -> Stage:
        """Returns itself."""
        return Stage(cast(Dataset, self), rows, 0, min(count, len(rows) - begin))


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
        one on, and from the text's end on at its beginning, where up to 2 T characters are passed
        over; those of all places lie as far apart as they can, and where they begin is drawn.
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
class TextWindows(_OnDevice, _Windows):
    """Windows of text that lies on the device."""

    tokens: Integer[Array, " N"]
    seq_len: int = _static()
    batch_size: int = _static()
    carry_state: bool = _static(default=False)

    def __len__(self) -> int:
        return self.tokens.shape[0]

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
        """Returns the windows and targets of one batch, brought here for it alone.

        Raises:
            InputError: it is called inside a compiled program, which reads no file.
        """
        if isinstance(rows, Tracer):
            raise InputError(
                "a compiled program cannot read windows out of a file: give it what their `stage` "
                "brings to the device"
            )
        stage = self.stage(rows[None], 0, 1)
        return stage.data.batch(jnp.asarray(stage.rows[0]))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PaddedWords(_OnDevice):
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

        Counted at every call: as a static field it would give each seed's split a type of its own,
        and every program would be recompiled for it.
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

    def batch(self, rows: Int[Array, " B"]) -> Batch:
        """Returns the padded words and their targets."""
        targets = self.targets.at[rows].get(mode="clip")
        counted = (rows != EMPTY)[:, None]
        return Batch(self.inputs.at[rows].get(mode="clip"), jnp.where(counted, targets, IGNORE))


def _even_share(num: int, most: int) -> int:
    """Returns the length of equally long stretches of `num` in all, none longer than `most`."""
    return math.ceil(num / math.ceil(num / max(1, most)))


def _in_batches(rows: Int[Array | np.ndarray, " N"], batch_size: int) -> Int[Array, "S B"]:
    """Folds rows into batches, the last one filled up with empty rows."""
    missing = -len(rows) % batch_size
    padded = jnp.pad(jnp.asarray(rows, jnp.int32), (0, missing), constant_values=EMPTY)
    return padded.reshape(-1, batch_size)
