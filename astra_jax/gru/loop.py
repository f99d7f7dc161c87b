"""The loops over time of the backends that are loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

UNROLL: dict[str, int] = {
    "cpu": 1,  # Longer iterations compile longer and run no faster.
    "gpu": 4,  # Measured on an H200: results/benchmarks/gpu.md.
    "tpu": 1,  # Not measured.
}
"""Steps per loop iteration, by platform; they share the iteration's fixed cost."""


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


def over_time_in_place(
    step: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    start: Any,
    places: Any,
    streams: Any,
    *,
    reverse: bool = False,
) -> tuple[Any, Any, Any]:
    """Runs a step over time that overwrites some of its inputs with its results.

    These need no memory of their own, which `lax.scan` would fill with zeros first.

    Args:
        step: from what is carried, and places and streams at one time, to what is carried on,
            what is left in the places, and outputs.
        start: what is carried into the first step.
        places: arrays with time first.
        streams: further ones, which stay as they are.
        reverse: whether time runs backwards.

    Returns:
        What the last step hands on, what is left in the places, and the outputs of all.
    """
    ahead = -1 if reverse else 1

    def body(carried, at_t):
        handed, read, places = carried
        t, streams_t = at_t
        handed, left, outputs = step(handed, read, streams_t)
        places = jax.tree.map(
            lambda place, value: lax.dynamic_update_index_in_dim(place, value, t, 0), places, left
        )
        # Read from the places that have been written to. To read first and write then, the
        # compiler copies all of them at every step, as it does not see that the two never meet.
        return (handed, _at(places, t + ahead), places), outputs

    times = jnp.arange(len(jax.tree.leaves(places)[0]))
    carried = start, _at(places, times[-1 if reverse else 0]), places
    (last, _, left), outputs = over_time(body, carried, (times, streams), reverse=reverse)
    return last, left, outputs


def _at(places: Any, t: Any) -> Any:
    """Returns the slices at time `t`. Beyond the ends any value will do: nothing reads it."""
    return jax.tree.map(lambda place: lax.dynamic_index_in_dim(place, t, 0, False), places)
