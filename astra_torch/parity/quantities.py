"""What is compared: the quantities of each level, and the tensors that each has."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from astra_jax.config import Preset
from astra_torch.weights import entries, find_layout

Level = Literal["logits", "gradients", "training"]
"""How deep a comparison goes. `logits` and `gradients` look at one batch, `training` at every
step of a training."""

ParityDtype = Literal["float64", "float32"]
"""The type that both frameworks compute in."""


class Name(NamedTuple):
    """A quantity, and which of its tensors; a quantity of one tensor has no name for it."""

    quantity: str
    tensor: str = ""

    def __str__(self) -> str:
        return f"{self.quantity} {self.tensor}".rstrip()


Results = dict[Name, np.ndarray]
"""What one side computed."""


def _parameters(preset: Preset) -> list[str]:
    layout = find_layout(preset.model, preset.data.dataset)
    return [entry.name for entry in entries(layout)]


def _layers(preset: Preset) -> list[str]:
    return [f"layer {index}" for index in range(preset.model.num_layers)]


def _single(preset: Preset) -> list[str]:
    del preset
    return [""]


_NORMS = {"gradient norm": _single, "clipped gradient norm": _single}

LEVELS: dict[Level, dict[str, Callable[[Preset], list[str]]]] = {
    "logits": {
        "weights": _parameters,
        "hidden states": _layers,
        "last states": _single,
        "logits": _single,
        "loss": _single,
    },
    "gradients": {"gradient": _parameters, **_NORMS},
    "training": {
        "loss": _single,
        **_NORMS,
        "learning rate": _single,
        "first moment": _parameters,
        "second moment": _parameters,
        "parameter": _parameters,
    },
}
"""The quantities of each level, and how the tensors of each are found."""


def expected_names(preset: Preset, level: Level) -> list[Name]:
    """Returns everything that a comparison of a level must have looked at."""
    return [Name(q, tensor) for q, tensors in LEVELS[level].items() for tensor in tensors(preset)]
