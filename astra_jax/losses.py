"""Cross-entropy in nats, with targets that do not count."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Integer

IGNORE = -100
"""A target of this value counts neither in the loss nor in its mean (torch's `ignore_index`)."""


def target_losses(
    logits: Float[Array, "B T V"], targets: Integer[Array, "B T"]
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Returns the loss of every target in nats, and whether it counts."""
    targets = targets.astype(jnp.int32)  # In a byte `IGNORE` would be the target 156.
    counted = targets != IGNORE
    labels = jnp.where(counted, targets, 0)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), counted


def cross_entropy_sum(
    logits: Float[Array, "B T V"], targets: Integer[Array, "B T"]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Returns the summed loss in nats, and how many targets counted."""
    losses, counted = target_losses(logits, targets)
    return jnp.sum(losses, where=counted), jnp.sum(counted, dtype=jnp.int32)


def cross_entropy(
    logits: Float[Array, "B T V"], targets: Integer[Array, "B T"]
) -> Float[Array, ""]:
    """Returns the mean loss in nats over the targets that count; NaN where none does.

    This is `torch.nn.functional.cross_entropy(..., ignore_index=-100)`.
    """
    total, count = cross_entropy_sum(logits, targets)
    return total / count.astype(total.dtype)
