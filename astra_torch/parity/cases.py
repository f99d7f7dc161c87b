"""The same weights, batches and dropout masks for both frameworks."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from astra_jax.config import Preset
from astra_jax.data.datasets import EMPTY, Dataset, PaddedWords, TextWindows
from astra_jax.data.splits import Split, words_of
from astra_jax.dropout import draw_keep
from astra_jax.losses import IGNORE
from astra_jax.training.fitting import steps_in_epoch
from astra_jax.training.trainer import Keys, Trainer
from astra_torch.data import TextBatches, WordBatches
from astra_torch.weights import Arrays, entries, find_layout, to_arrays


class StepInputs(NamedTuple):
    """What one step is given.

    Attributes:
        inputs: ids `[B, T]`.
        targets: ids `[B, T]`, -100 where none counts.
        keep: dropout's survivors `[L, T, B, H]`; None drops nothing.
    """

    inputs: np.ndarray
    targets: np.ndarray
    keep: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """The inputs of a comparison. Steps are drawn when they are wanted: masks are large.

    Attributes:
        preset: model and recipe.
        steps_per_epoch: steps between two learning rates of a cosine.
        arrays: JAX's weights by torch name, in float32 so that each type begins with the same.
        twin_arrays: PyTorch's; the same unless two files are held against each other.
        draw: returns a step's inputs as JAX takes them.
        draw_twin: returns them as PyTorch takes them: the same examples, put into arrays by code
            of its own.
    """

    preset: Preset
    steps_per_epoch: int
    arrays: Arrays
    twin_arrays: Arrays
    draw: Callable[[int], StepInputs]
    draw_twin: Callable[[int], StepInputs]


def random_case(
    preset: Preset,
    *,
    steps_per_epoch: int = 10,
    batch_size: int = 5,
    seq_len: int = 7,
    dropout: bool = True,
    seed: int = 0,
) -> Case:
    """Returns random weights, batches and masks for a preset.

    Of words, up to two thirds of the targets at the end of a row are ignored, as padding is.
    """
    model = preset.model

    def draw(step: int) -> StepInputs:
        rng = np.random.default_rng((seed, step))
        ids = rng.integers(model.vocab_size, size=(2, batch_size, seq_len), dtype=np.int32)
        inputs, targets = ids
        if preset.data.dataset == "names":
            lengths = rng.integers(math.ceil(seq_len / 3), seq_len + 1, size=(batch_size, 1))
            targets = np.where(np.arange(seq_len) < lengths, targets, IGNORE).astype(np.int32)
        keep = None
        if dropout and model.dropout:
            mask = (model.num_layers, seq_len, batch_size, model.hidden_dim)
            keep = rng.random(mask) >= model.dropout
        return StepInputs(inputs, targets, keep)

    arrays = random_arrays(preset, seed)
    return Case(
        preset=preset,
        steps_per_epoch=steps_per_epoch,
        arrays=arrays,
        twin_arrays=arrays,
        draw=draw,
        draw_twin=draw,
    )


def random_arrays(preset: Preset, seed: int = 0) -> Arrays:
    """Returns random weights: no bias is zero and no norm is one, so that none can be missing."""
    rng, model = np.random.default_rng(seed), preset.model
    arrays = {}
    for entry in entries(find_layout(model, preset.data.dataset)):
        shape = entry.shape_in(model)
        scale = 1.0 if entry.name == "embedding.weight" else 1.5 / math.sqrt(model.hidden_dim)
        offset = 1.0 if entry.name == "norm.weight" else 0.0
        arrays[entry.name] = (offset + scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays


def training_case(
    preset: Preset,
    split: Split,
    *,
    arrays: Arrays | None = None,
    twin_arrays: Arrays | None = None,
) -> Case:
    """Returns the training that `fit` does of a preset: its weights, batches and masks.

    PyTorch gets the same examples as text, and makes ids, windows, padding and batches of them
    by `astra_torch.data`. Which examples there are, how the corpus is encoded and split, and what
    dropout takes is drawn once for both: of that a comparison says nothing, its own tests do.

    Args:
        preset: model and recipe, whose seed decides what is drawn.
        split: the corpus.
        arrays: JAX's weights; None draws those that the run of this seed begins with.
        twin_arrays: PyTorch's; None is JAX's.
    """
    steps = steps_in_epoch(preset, split.train)
    arrays = arrays or initial_arrays(preset, steps)
    draws = _Draws(preset, split)
    return Case(
        preset=preset,
        steps_per_epoch=steps,
        arrays=arrays,
        twin_arrays=twin_arrays or arrays,
        draw=functools.partial(draws.of_jax, steps),
        draw_twin=draws.of_torch,
    )


def initial_arrays(preset: Preset, steps_per_epoch: int) -> Arrays:
    """Returns the weights that a run of the preset's seed begins with."""
    layout = find_layout(preset.model, preset.data.dataset)
    trainer = Trainer(preset, steps_per_epoch)
    return to_arrays(trainer.init(Keys.from_seed(preset.train.seed).init).params, layout)


class _Draws:
    """The random choices of a run's steps, and what each framework makes of them."""

    def __init__(self, preset: Preset, split: Split):
        self.model, self.data = preset.model, split.train
        self.keys = Keys.from_seed(preset.train.seed)
        self.twin, self.twin_steps = _twin(preset, split)
        self._rows = functools.lru_cache(maxsize=4)(self._draw_rows)

    def _draw_rows(self, epoch: int, num_steps: int) -> np.ndarray:
        key = jax.random.fold_in(self.keys.batches, epoch)
        return np.asarray(self.data.epoch_rows(key, num_steps))

    def of_jax(self, steps_per_epoch: int, step: int) -> StepInputs:
        epoch, index = divmod(step, steps_per_epoch)
        batch = self.data.batch(jnp.asarray(self._rows(epoch, steps_per_epoch)[index]))
        inputs, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
        return StepInputs(inputs, targets, self._keep(step, *inputs.shape))

    def of_torch(self, step: int) -> StepInputs:
        epoch, index = divmod(step, self.twin_steps)
        rows = self._rows(epoch, self.twin_steps)
        batch = self.twin.batch(_own_rows(self.data, rows[rows != EMPTY]), index)
        inputs, targets = (tensor.numpy() for tensor in batch)
        keep = self._keep(step, rows.shape[1], inputs.shape[1])
        if keep is not None:  # Torch's last batch is smaller where JAX's has empty rows.
            keep = keep[:, :, : len(inputs)]
        return StepInputs(inputs, targets, keep)

    def _keep(self, step: int, batch_size: int, seq_len: int) -> np.ndarray | None:
        if self.model.dropout == 0.0:
            return None
        key = jax.random.fold_in(self.keys.dropout, step)
        return np.asarray(_draw_keep(key, self.model, batch_size, seq_len))


_draw_keep = jax.jit(draw_keep, static_argnums=(1, 2, 3))


def _own_rows(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Returns where rows stand in what PyTorch has: of a list of words, the training part."""
    if not isinstance(data, PaddedWords):
        return rows
    places = np.full(len(data.inputs), EMPTY)
    places[np.asarray(data.part)] = np.arange(len(data.part))
    return places[rows]


def _twin(preset: Preset, split: Split) -> tuple[TextBatches | WordBatches, int]:
    """Returns PyTorch's own batches of the same text, and how many an epoch has."""
    vocabulary, data = split.vocabulary, split.train
    if isinstance(data, PaddedWords):
        twin = WordBatches(words_of(data, vocabulary), vocabulary.tokens, preset.data)
        return twin, preset.train.steps_per_epoch or twin.num_batches
    assert isinstance(data, TextWindows)
    tokens = [vocabulary.tokens[i] for i in np.asarray(data.tokens)]
    return TextBatches(tokens, vocabulary.tokens, preset.data), steps_in_epoch(preset, data)
