"""What a model makes of its validation part, every target counted once.

The studies print less: of running text one random batch, of words the mean of the batch means.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from astra_jax.config import DataConfig, Preset, Record
from astra_jax.data.datasets import Batch, Dataset, PaddedWords, StoredWindows, TextWindows, stages
from astra_jax.data.splits import Split, pad_words, running_text, words_of
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.losses import target_losses
from astra_jax.machine import memory
from astra_jax.machine.placement import Placement
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.presets import override
from astra_jax.runs.metrics import Spread
from astra_jax.training.trainer import Keys, Losses, Trainer
from astra_jax.units import bits, readable

WINDOWS = (128, 256)
"""Lengths of windows for every recipe: the study's, and that of nanoGPT's published 1.4697 nats
(github.com/karpathy/nanoGPT, train_shakespeare_char, a larger model)."""

NUM_BATCHES = 200
"""Single random batches that are drawn to see how much one of them tells."""

ROW_BYTES = 32
"""That a row of a batch takes while it is drawn: two random words, and what they are made of."""

CHUNK = 4096
"""Characters of one stream that the device reads at once."""

WORDS_AT_ONCE = 2048
"""Words that the device reads at once: a γ's states of them take some hundred MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Record):
    """The mean loss of a target.

    Attributes:
        loss_nats: the mean, in nats.
        bits_per_char: the mean in bits; a character is what a token is, of bytes a byte.
        num_targets: how many targets it is the mean of.
    """

    loss_nats: float
    bits_per_char: float
    num_targets: int

    @classmethod
    def of_sum(cls, total_nats: float, num_targets: int) -> "Loss":
        """Returns the mean loss of at least one target."""
        mean = total_nats / num_targets
        return cls(loss_nats=mean, bits_per_char=bits(mean), num_targets=num_targets)

    @classmethod
    def of(cls, losses: Float[np.ndarray, "*any"]) -> "Loss":
        """Returns the mean of losses in nats; those that are NaN have no target."""
        return cls.of_sum(float(np.nansum(losses)), int(np.sum(~np.isnan(losses))))


@dataclass(frozen=True, kw_only=True)
class TextEvaluation:
    """A model of running text on the validation part.

    Attributes:
        carried: the whole part read as one stream, from zero states at its first character on.
        windows: the part cut into windows side by side, each read from zero states, by their
            length: `WINDOWS` and the recipe's own. The latter is `EpochMetrics.val_loss_nats`.
        one_batch: mean losses, in nats, of single batches as the study draws one for validation.
        num_batches: how many.
    """

    carried: Loss
    windows: dict[int, Loss]
    one_batch: Spread
    num_batches: int

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary, the windows of length n under `windows_n`."""
        return {
            "kind": "text",
            "num_targets": self.carried.num_targets,
            "carried": self.carried.to_dict(),
            **{f"windows_{length}": loss.to_dict() for length, loss in self.windows.items()},
            "one_batch": {"num_batches": self.num_batches, **self.one_batch.to_dict()},
        }


@dataclass(frozen=True, kw_only=True)
class WordsEvaluation:
    """A model of words on the validation part: of its targets, the end of a word among them.

    First letters are targets where the recipe has a start token, and only there.

    Attributes:
        all: of every word, as often as it stands there.
        seen: of those that are training words too; None where there are none.
        unseen: of those that are not; None where there are none.
        seen_share: of the words, how many are training words too.
    """

    all: Loss
    seen: Loss | None
    unseen: Loss | None
    seen_share: float

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {
            "kind": "words",
            "num_targets": self.all.num_targets,
            "all": self.all.to_dict(),
            "seen": self.seen and self.seen.to_dict(),
            "unseen": self.unseen and self.unseen.to_dict(),
            "seen_share": self.seen_share,
        }


Evaluation = TextEvaluation | WordsEvaluation


def evaluate(
    model: GRULanguageModel, preset: Preset, split: Split, *, num_batches: int = NUM_BATCHES
) -> Evaluation:
    """Evaluates a model on the validation part of its corpus, without dropout.

    Args:
        model: what predicts.
        preset: the recipe that it was trained by; its seed decides the single batches.
        split: its data.
        num_batches: of running text, how many single batches are drawn.

    Raises:
        InputError: there are to be no batches, or more than fit into memory.
    """
    if num_batches < 1:
        raise InputError(f"num_batches must be at least 1, got {num_batches}")
    with arithmetic(preset.train.dtype):
        data = split.validation
        if isinstance(data, PaddedWords):
            seen = set(words_of(split.train, split.vocabulary))
            return _evaluate_words(model, preset.data, data, split.vocabulary, seen)
        return _evaluate_text(model, preset, running_text(data), num_batches)


def _evaluate_text(
    model: GRULanguageModel, preset: Preset, data: TextWindows | StoredWindows, num_batches: int
) -> TextEvaluation:
    needed = ROW_BYTES * num_batches * data.batch_size
    batches = f"{num_batches:,} single batches need about {readable(needed)}"
    memory.require(needed, batches, "take fewer, by --batches")
    # No program depends on the seed, so runs of several seeds share what is compiled.
    trainer, place = Trainer(override(preset, seed=0), 1), Placement.of(None, preset)
    params = place.replicate(nnx.state(model))

    def losses(data: Dataset, rows: Any) -> Losses:
        return trainer.evaluate(params, data, rows, place)

    windows = {}
    for length in sorted({*WINDOWS, data.seq_len}):
        cut = dataclasses.replace(data, seq_len=length)
        found = losses(cut, cut.cover_rows())
        windows[length] = Loss.of_sum(float(found.sums.sum()), int(found.counts.sum()))
    key = Keys.from_seed(preset.train.seed).validation
    drawn = dataclasses.replace(data, carry_state=False).epoch_rows(key, num_batches)
    single = losses(data, drawn)
    return TextEvaluation(
        carried=carried_loss(model, data),
        windows=windows,
        one_batch=Spread.of((single.sums / single.counts).tolist()),
        num_batches=num_batches,
    )


def carried_loss(
    model: GRULanguageModel, data: TextWindows | StoredWindows, chunk: int = CHUNK
) -> Loss:
    """Returns the loss of a whole text read as one stream, the state carried to its end.

    Args:
        model: what predicts.
        data: the text.
        chunk: characters that the device reads at once, which changes rounding alone.
    """
    parts = [Loss.of(losses) for losses in _read_stream(model, data, chunk)]
    num_targets = sum(part.num_targets for part in parts)
    return Loss.of_sum(math.fsum(part.loss_nats * part.num_targets for part in parts), num_targets)


def _read_stream(
    model: GRULanguageModel, data: TextWindows | StoredWindows, chunk: int
) -> Iterator[Float[np.ndarray, "1 T"]]:
    """Yields the losses of every chunk of a stream: windows side by side, one at a time."""
    stream = dataclasses.replace(data, seq_len=min(chunk, data.count_targets()), batch_size=1)
    graph, params = nnx.split(model)
    state = model.initial_state(1)
    for stage in stages(stream, stream.cover_rows()):
        for row in stage.rows[: stage.num_batches]:
            losses, state = read_on(graph, params, stage.data.batch(jnp.asarray(row)), state)
            yield np.asarray(losses, np.float64)


@functools.partial(jax.jit, static_argnames="graph")
def read_on(
    graph: nnx.GraphDef[GRULanguageModel],
    params: nnx.State,
    batch: Batch,
    h_0: Float[Array, "L B H"],
) -> tuple[Float[Array, "B T"], Float[Array, "L B H"]]:
    """Reads texts further, and returns the loss of each of their targets and the states then.

    Args:
        graph: the model's structure.
        params: its parameters.
        batch: what is read and predicted.
        h_0: the states so far.

    Returns:
        Losses in nats, NaN where there is no target, and the last states.
    """
    logits, h_n = nnx.merge(graph, params)(batch.inputs, h_0)
    losses, counted = target_losses(logits, batch.targets)
    losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)  # Of a model that has overflowed.
    return jnp.where(counted, losses, jnp.nan), h_n


def _evaluate_words(
    model: GRULanguageModel,
    config: DataConfig,
    data: PaddedWords,
    vocabulary: Vocabulary,
    trained_on: set[str],
) -> WordsEvaluation:
    words = words_of(data, vocabulary)
    losses = word_losses(model, words, vocabulary, config)
    seen = np.array([word in trained_on for word in words])
    return WordsEvaluation(
        all=Loss.of(losses),
        seen=Loss.of(losses[seen]) if seen.any() else None,
        unseen=Loss.of(losses[~seen]) if not seen.all() else None,
        seen_share=float(seen.mean()),
    )


def word_losses(
    model: GRULanguageModel, words: Sequence[str], vocabulary: Vocabulary, config: DataConfig
) -> Float[np.ndarray, "N T"]:
    """Returns the loss of every target of some words in nats, NaN where there is none."""
    graph, params = nnx.split(model)
    parts = []
    for first in range(0, len(words), WORDS_AT_ONCE):
        part = list(words[first : first + WORDS_AT_ONCE])
        batch = Batch(*map(jnp.asarray, pad_words(part, vocabulary, config)))
        losses, _ = read_on(graph, params, batch, model.initial_state(len(part)))
        parts.append(np.asarray(losses, np.float64))
    return np.concatenate(parts)
