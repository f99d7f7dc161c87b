"""Character-level GRU language models in JAX: train, evaluate and sample.

Importing this package is cheap: each public name loads its module when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astra_jax.config import DataConfig, ModelConfig, Preset, TrainConfig
    from astra_jax.data.corpus import load_corpus
    from astra_jax.data.splits import split_corpus
    from astra_jax.data.vocabulary import Vocabulary
    from astra_jax.dropout import draw_keep
    from astra_jax.errors import InputError
    from astra_jax.evaluation import evaluate
    from astra_jax.experiments.lifecycle import begin, resume
    from astra_jax.experiments.restoring import restore_model
    from astra_jax.gru import GRUWeights
    from astra_jax.model import GRULanguageModel, GRULayer
    from astra_jax.presets import PRESETS, find_preset, override
    from astra_jax.runs.checkpoints import Checkpoints
    from astra_jax.runs.folder import Run
    from astra_jax.sampling.strategies import Greedy, Temperature, TopK
    from astra_jax.sampling.writing import Writer
    from astra_jax.training.fitting import fit
    from astra_jax.training.options import FitOptions
    from astra_jax.training.progress import ConsoleProgress
    from astra_jax.training.saving import SavePolicy
    from astra_jax.training.trainer import Trainer

__all__ = [
    "PRESETS",
    "Checkpoints",
    "ConsoleProgress",
    "DataConfig",
    "FitOptions",
    "GRULanguageModel",
    "GRULayer",
    "GRUWeights",
    "Greedy",
    "InputError",
    "ModelConfig",
    "Preset",
    "Run",
    "SavePolicy",
    "Temperature",
    "TopK",
    "TrainConfig",
    "Trainer",
    "Vocabulary",
    "Writer",
    "begin",
    "draw_keep",
    "evaluate",
    "find_preset",
    "fit",
    "load_corpus",
    "override",
    "restore_model",
    "resume",
    "split_corpus",
]

_PUBLIC = {
    "Checkpoints": "runs.checkpoints",
    "ConsoleProgress": "training.progress",
    "DataConfig": "config",
    "FitOptions": "training.options",
    "GRULanguageModel": "model",
    "GRULayer": "model",
    "GRUWeights": "gru",
    "Greedy": "sampling.strategies",
    "InputError": "errors",
    "ModelConfig": "config",
    "PRESETS": "presets",
    "Preset": "config",
    "Run": "runs.folder",
    "SavePolicy": "training.saving",
    "Temperature": "sampling.strategies",
    "TopK": "sampling.strategies",
    "TrainConfig": "config",
    "Trainer": "training.trainer",
    "Vocabulary": "data.vocabulary",
    "Writer": "sampling.writing",
    "begin": "experiments.lifecycle",
    "draw_keep": "dropout",
    "evaluate": "evaluation",
    "find_preset": "presets",
    "fit": "training.fitting",
    "load_corpus": "data.corpus",
    "override": "presets",
    "restore_model": "experiments.restoring",
    "resume": "experiments.lifecycle",
    "split_corpus": "data.splits",
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
