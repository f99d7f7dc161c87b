"""Character-level GRU language models in JAX: train, evaluate and sample.

Importing this package is cheap: each public name loads its module when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astra_jax.checkpoints import Checkpoints
    from astra_jax.config import DataConfig, ModelConfig, Preset, TrainConfig
    from astra_jax.corpus import load_corpus
    from astra_jax.datasets import split_corpus
    from astra_jax.errors import InputError
    from astra_jax.experiments import restore_model
    from astra_jax.fitting import fit
    from astra_jax.gru import GRUWeights
    from astra_jax.model import GRULanguageModel, GRULayer
    from astra_jax.presets import PRESETS, find_preset, override
    from astra_jax.runs import Run
    from astra_jax.strategies import Greedy, Temperature, TopK
    from astra_jax.training import Trainer
    from astra_jax.vocabulary import Vocabulary
    from astra_jax.writing import Writer

__all__ = [
    "PRESETS",
    "Checkpoints",
    "DataConfig",
    "GRULanguageModel",
    "GRULayer",
    "GRUWeights",
    "Greedy",
    "InputError",
    "ModelConfig",
    "Preset",
    "Run",
    "Temperature",
    "TopK",
    "TrainConfig",
    "Trainer",
    "Vocabulary",
    "Writer",
    "find_preset",
    "fit",
    "load_corpus",
    "override",
    "restore_model",
    "split_corpus",
]

_PUBLIC = {
    "Checkpoints": "checkpoints",
    "DataConfig": "config",
    "GRULanguageModel": "model",
    "GRULayer": "model",
    "GRUWeights": "gru",
    "Greedy": "strategies",
    "InputError": "errors",
    "ModelConfig": "config",
    "PRESETS": "presets",
    "Preset": "config",
    "Run": "runs",
    "Temperature": "strategies",
    "TopK": "strategies",
    "TrainConfig": "config",
    "Trainer": "training",
    "Vocabulary": "vocabulary",
    "Writer": "writing",
    "find_preset": "presets",
    "fit": "fitting",
    "load_corpus": "corpus",
    "override": "presets",
    "restore_model": "experiments",
    "split_corpus": "datasets",
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
