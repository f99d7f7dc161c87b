"""The studies' update rules as one optax transformation, equal to torch's step by step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from astra_jax.config import TrainConfig

TORCH_CLIP_EPSILON = 1e-6
"""`torch.nn.utils.clip_grad_norm_` adds this to the norm; optax's own rule adds nothing."""


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns clipping, Adam's moments, decay and schedule, in torch's order and arithmetic.

    Betas 0.9 and 0.999 and an epsilon of 1e-8 outside the root are both frameworks' defaults.
    The decay of AdamW falls on every parameter, biases and embedding too.
    """
    rate = learning_rate_schedule(config, steps_per_epoch)
    rule = (
        optax.adamw(rate, weight_decay=config.weight_decay)
        if config.optimizer == "adamw"
        else optax.adam(rate)
    )
    return rule if config.clip is None else optax.chain(clip_by_global_norm(config.clip), rule)


def learning_rate_schedule(
    config: TrainConfig, steps_per_epoch: int
) -> Callable[[ArrayLike], Float[Array, ""]]:
    """Returns the learning rate as a function of the steps done.

    The cosine falls once an epoch, `lr * (1 + cos(pi * e / N)) / 2` after e of N epochs, as
    torch's `CosineAnnealingLR` does when it is stepped at every epoch's end.
    """

    def constant(step: ArrayLike) -> Float[Array, ""]:
        del step
        return jnp.asarray(config.learning_rate)

    def cosine(step: ArrayLike) -> Float[Array, ""]:
        epoch = jnp.asarray(step) // steps_per_epoch
        angle = jnp.pi * epoch.astype(jnp.result_type(float)) / config.epochs
        return config.learning_rate * (1 + jnp.cos(angle)) / 2

    return cosine if config.schedule == "cosine" else constant


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Returns torch's rule, `g * min(1, max_norm / (norm + 1e-6))`."""

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        norm = optax.tree.norm(updates)
        factor = jnp.minimum(1.0, max_norm / (norm + TORCH_CLIP_EPSILON))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(init, update)
