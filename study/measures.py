"""What a trained model is asked: how well it predicts, and what it writes."""

from typing import Any

from astra_jax import evaluation, experiments
from astra_jax.datasets import Split
from astra_jax.runs import Run


def evaluate(run: Run, split: Split) -> dict[str, Any]:
    """Returns what the newest model of a run comes to on its validation part, JSON-ready."""
    return evaluation.evaluate(experiments.restore_model(run), run.preset, split).to_dict()


def compare_samplers(run: Run, split: Split) -> dict[str, Any]:
    """Returns what it writes with its state carried and without, and what that costs."""
    raise NotImplementedError  # until study.texts has landed
