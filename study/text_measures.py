"""What is measured of texts: how likely a model finds them, and how much they repeat."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from astra_jax.data.datasets import Batch
from astra_jax.evaluation import read_on
from astra_jax.losses import IGNORE
from astra_jax.model import GRULanguageModel

GRAM = 8
"""Characters of the stretches whose repetition is counted: longer than most words."""

PIECE = 256
"""Characters whose likelihood is computed at once, to hold little memory."""


def likelihood(
    model: GRULanguageModel, context: Int[np.ndarray, "N P"], ids: Int[np.ndarray, "N S"]
) -> Float[np.ndarray, "N S"]:
    """Returns the loss of each character in nats, the state carried from the context on.

    Args:
        model: what predicts.
        context: at least one character that stands before each text.
        ids: the texts; `IGNORE` from where they have ended.

    Returns:
        NaN where there is no character.
    """
    whole = np.concatenate([context, ids], axis=1).astype(np.int32)
    inputs, targets = np.maximum(whole[:, :-1], 0), whole[:, 1:].copy()
    targets[:, : context.shape[1] - 1] = IGNORE
    piece = min(PIECE, inputs.shape[1])
    missing = ((0, 0), (0, -inputs.shape[1] % piece))
    inputs, targets = np.pad(inputs, missing), np.pad(targets, missing, constant_values=IGNORE)
    (graph, params), state = nnx.split(model), model.initial_state(len(whole))
    parts = []
    for first in range(0, inputs.shape[1], piece):
        here = (jnp.asarray(part[:, first : first + piece]) for part in (inputs, targets))
        losses, state = read_on(graph, params, Batch(*here), state)
        parts.append(np.asarray(losses, np.float64))
    begin = context.shape[1] - 1
    return np.concatenate(parts, axis=1)[:, begin : begin + ids.shape[1]]


def repetition(ids: Int[np.ndarray, " S"], gram: int = GRAM) -> float:
    """Returns how many of a text's stretches, after the first, have stood in it before: 0 to 1.

    Args:
        ids: the text, of more than `gram` characters.
        gram: characters of a stretch.
    """
    stretches = [ids[place : place + gram].tobytes() for place in range(len(ids) - gram + 1)]
    return (len(stretches) - len(set(stretches))) / (len(stretches) - 1)


def ratio(parts: Any, wholes: Any) -> dict[str, float | None]:
    """Returns the ratio estimate sum(parts) / sum(wholes), with its standard error.

    Args:
        parts: of each text.
        wholes: of each text; texts with more weigh more.

    Returns:
        `mean`, None where there is no whole at all; `error`, by the variance of a ratio of means
        (Cochran, Sampling Techniques, section 2.11), None of fewer than two texts.
    """
    parts, wholes = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    if not wholes.sum():
        return {"mean": None, "error": None}
    mean, num = parts.sum() / wholes.sum(), len(parts)
    if num < 2:
        return {"mean": float(mean), "error": None}
    squares = ((parts - mean * wholes) ** 2).sum() / (num - 1)
    return {"mean": float(mean), "error": math.sqrt(squares / num) / float(wholes.mean())}


def per_char(nats: Float[np.ndarray, "N S"]) -> dict[str, float | None]:
    """Returns the mean loss of a character; NaN is none."""
    return ratio(np.nansum(nats, axis=1), np.sum(~np.isnan(nats), axis=1))
