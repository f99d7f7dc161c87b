"""Cost as work grows: a training step over one size at a time, the others as they are."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astra_jax.presets import override
from astra_jax.training.trainer import MAX_STEPS_PER_CALL
from benchmarks.jax_peers import JaxPeer, our_trainer
from benchmarks.lineup import Lineup, Rules
from benchmarks.rounds import Spread, Timed
from benchmarks.setting import Setting

FIELDS = {"B": "batch_size", "T": "seq_len", "H": "hidden_dim", "L": "num_layers"}
"""The sizes, and what a preset calls them."""

BASE = {"B": 32, "T": 64, "H": 128, "L": 2}
"""What the sizes are that do not grow: between Astra-α and Astra-β."""

SWEEPS: Mapping[str, Sequence[int]] = {
    "B": (8, 16, 32, 64, 128),
    "T": (16, 32, 64, 128, 256),
    "H": (32, 64, 128, 256, 512),
    "L": (1, 2, 3, 4, 6),
}


def growth(
    setting: Setting,
    rules: Rules,
    base: Mapping[str, int] = BASE,
    sweeps: Mapping[str, Sequence[int]] = SWEEPS,
) -> dict[str, Any]:
    """Times our training step in all shapes, in turn.

    Args:
        setting: the recipe; its sizes are replaced.
        rules: how it is timed; other contenders do not take part.
        base: the sizes that the others grow from.
        sweeps: the values of each size.

    Returns:
        The record, ready for JSON; its unit is a training step.
    """
    shapes = {letter: [{**base, letter: size} for size in sweeps[letter]] for letter in sweeps}
    lineup = Lineup(rules)
    with setting.arithmetic():
        for shape in {name_of(shape): shape for line in shapes.values() for shape in line}.values():
            rules.tell(name_of(shape))
            lineup.enter([(_contender(setting, shape), None)])
        record = lineup.run()
    steps = {name: Spread.of(taken).median for name, taken in record["seconds"].items()}
    return record | {
        "base": dict(base),
        "sweeps": {
            letter: _describe(letter, line, [steps[name_of(shape)] for shape in line])
            for letter, line in shapes.items()
        },
    }


def name_of(shape: Mapping[str, int]) -> str:
    """Returns a shape as a person writes it."""
    return " ".join(f"{letter}={size}" for letter, size in shape.items())


def _contender(setting: Setting, shape: Mapping[str, int]) -> Timed:
    preset = override(setting.preset, **{FIELDS[letter]: size for letter, size in shape.items()})
    sized = dataclasses.replace(setting, preset=preset)
    peer = JaxPeer(sized, our_trainer(sized))
    return Timed(name_of(shape), peer.train, most=MAX_STEPS_PER_CALL)


def _describe(
    letter: str, shapes: Sequence[Mapping[str, int]], seconds: Sequence[float]
) -> dict[str, Any]:
    """Returns a sweep's sizes, times for a character, and how the time of a step grows."""
    sizes = [shape[letter] for shape in shapes]
    return {
        "sizes": sizes,
        "us_per_char": [
            1e6 * taken / (shape["B"] * shape["T"])
            for taken, shape in zip(seconds, shapes, strict=True)
        ],
        "exponent": exponent(sizes, seconds),
        "last_exponent": exponent(sizes[-2:], seconds[-2:]),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Returns the p of the power law `seconds = c * size**p` that fits best.

    Least squares of the logarithms: a factor counts the same at every size.
    """
    slope, _ = np.polyfit([math.log(s) for s in sizes], [math.log(s) for s in seconds], 1)
    return float(slope)
