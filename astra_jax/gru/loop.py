"""The loop over time of the backends that are loops: how many steps a turn of it has."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

UNROLL: dict[str, int] = {
    "cpu": 1,  # Longer turns compile longer and run no faster.
    "gpu": 4,  # Measured on an H200: results/benchmarks/gpu.md.
    "tpu": 1,  # Not measured.
}
"""Steps in a turn, by platform: what a turn costs of its own is shared among them."""


def over_time(
    step: Callable[[Any, Any], tuple[Any, Any]], start: Any, streams: Any, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Runs a step over time, as `lax.scan` does.

    Args:
        step: from what is carried, and streams at one time, to what is carried on and outputs.
        start: what is carried into the first step.
        streams: arrays with time first.
        reverse: whether time runs backwards.

    Returns:
        What the last step hands on, and the outputs of all.
    """
    unroll = UNROLL[jax.default_backend()]
    return lax.scan(step, start, streams, reverse=reverse, unroll=unroll)
