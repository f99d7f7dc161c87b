"""Tiny trainings that several tests look at."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from astra_jax import experiments
from astra_jax.datasets import Split
from astra_jax.metrics import EpochMetrics
from astra_jax.presets import PRESETS, override
from astra_jax.progress import Snapshot
from astra_jax.runs import Run

TINY = dict(embedding_dim=4, hidden_dim=8, batch_size=4, seq_len=16, epochs=2)
TEXT = override(PRESETS["shakespeare", "beta"], steps_per_epoch=7, **TINY)
WORDS = override(PRESETS["names", "gamma"], steps_per_epoch=7, **TINY)


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
    model = experiments.restore_model(run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
