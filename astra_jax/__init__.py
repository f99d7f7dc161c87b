"""Character-level GRU language models in JAX: train, evaluate and sample.

Importing this package is cheap: each public name loads its module when it is first used.
"""

import importlib
from typing import Any

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
