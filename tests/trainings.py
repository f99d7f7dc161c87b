"""Tiny trainings that several tests look at."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from astra_jax.config import Preset
from astra_jax.data.splits import Split
from astra_jax.experiments import restoring
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.presets import PRESETS, override
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.training.progress import Snapshot

TINY = dict(embedding_dim=4, hidden_dim=8, batch_size=4, seq_len=16, epochs=2)
TEXT = override(PRESETS["shakespeare", "beta"], steps_per_epoch=7, **TINY)
# Two layers show all that three do, and compile in two thirds of the time.
WORDS = override(PRESETS["names", "gamma"], num_layers=2, steps_per_epoch=7, **TINY)


Begin = Callable[..., tuple[Run, Split]]
Train = Callable[..., Run]


class Silent:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def steps(self, snapshot: Snapshot) -> None:
        self.seen.append(snapshot)

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        self.seen.extend(lines)


def without_times(metrics: list[EpochMetrics]) -> list[EpochMetrics]:
    times = dict(chars_per_s=0.0, train_seconds=0.0, eval_seconds=0.0)
    return [dataclasses.replace(line, **times) for line in metrics]


def final_params(run: Run) -> list[np.ndarray]:
    model = restoring.restore_model(run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def random_model(preset: Preset, seed: int = 0) -> GRULanguageModel:
    """Returns a model that remembers: random biases too, and states that show in the logits."""
    rng = np.random.default_rng(seed)
    with arithmetic(preset.train.dtype):
        graph, shapes = nnx.split(nnx.eval_shape(lambda: _new(preset)))
        drawn = jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape), shapes)
        params = jax.tree.map(lambda leaf, a: jnp.asarray(a, leaf.dtype), shapes, drawn)
        return nnx.merge(graph, params)


def _new(preset: Preset) -> GRULanguageModel:
    return GRULanguageModel(preset.model, dtype=preset.train.dtype, rngs=nnx.Rngs(params=0))
