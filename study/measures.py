"""What a trained model is asked: how well it predicts, and what it writes."""

import importlib
import importlib.util
from typing import Any

from astra_jax import evaluation
from astra_jax.datasets import Split
from astra_jax.experiments import restore_model
from astra_jax.runs import Run


def evaluate(run: Run, split: Split) -> dict[str, Any]:
    """Returns what the newest model of a run comes to on its validation part, JSON-ready."""
    return evaluation.evaluate(restore_model(run), run.preset, split).to_dict()


def compare_samplers(run: Run, split: Split) -> dict[str, Any] | None:
    """Returns what it writes with its state carried and without, and what that costs."""
    if importlib.util.find_spec("study.texts") is None:
        return None
    texts = importlib.import_module("study.texts")
    return texts.compare_samplers(run, restore_model(run), split)
