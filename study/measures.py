"""What a trained model is asked: how well it predicts, and what it writes."""

from typing import Any

from astra_jax import evaluation
from astra_jax.data.splits import Split
from astra_jax.experiments.restoring import restore_model
from astra_jax.runs.folder import Run
from study import texts


def evaluate(run: Run, split: Split) -> dict[str, Any]:
    """Returns what the newest model of a run comes to on its validation part, JSON-ready."""
    return evaluation.evaluate(restore_model(run), run.preset, split).to_dict()


def compare_samplers(run: Run, split: Split) -> dict[str, Any]:
    """Returns what it writes with its state carried and without, and what that costs."""
    return texts.compare_samplers(run, restore_model(run), split)
