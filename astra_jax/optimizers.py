"""The studies' update rules as one optax transformation, equal to torch's step by step."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from astra_jax.config import TrainConfig, param_dtype

TORCH_CLIP_EPSILON = 1e-6
"""`torch.nn.utils.clip_grad_norm_` adds this to the norm; optax's own rule adds nothing."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants, both frameworks' defaults; the epsilon stands outside the root."""


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns clipping, Adam's direction, decay and schedule, in torch's order and arithmetic.

    In the studies the decay of AdamW falls on every parameter, biases and embedding too. Adam is
    AdamW without.
    """
    clip = [] if config.clip is None else [clip_by_global_norm(config.clip)]
    which = {"all": None, "matrices": _is_product_matrix}[config.decay]
    decay = [optax.add_decayed_weights(config.weight_decay, which)] if config.weight_decay else []
    schedule = learning_rate_schedule(config, steps_per_epoch)
    return optax.chain(*clip, scale_by_adam(), *decay, optax.scale_by_learning_rate(schedule))


def learning_rate_schedule(
    config: TrainConfig, steps_per_epoch: int
) -> Callable[[ArrayLike], Float[Array, ""]]:
    """Returns the learning rate as a function of the steps done.

    The cosine falls once an epoch, `lr * (1 + cos(pi * e / N)) / 2` after e of N epochs, as
    torch's `CosineAnnealingLR` does when it is stepped at every epoch's end. By step, e and N are
    the steps done and all steps, those of the warm-up left out: Loshchilov and Hutter 2017
    (arXiv:1608.03983), without restarts. In a warm-up of w steps the t-th has t / w of the rate.
    """
    warmup, num_steps = config.warmup_steps, config.epochs * steps_per_epoch
    # Not JAX's default type: where float64 is on, a training in float32 would have other rates.
    dtype = jax.dtypes.canonicalize_dtype(param_dtype(config.dtype))

    def half_wave(done: ArrayLike, of: int) -> Float[Array, ""]:
        angle = jnp.pi * jnp.asarray(done).astype(dtype) / of
        return config.learning_rate * (1 + jnp.cos(angle)) / 2

    def constant(step: ArrayLike) -> Float[Array, ""]:
        del step
        return jnp.asarray(config.learning_rate, dtype)

    def cosine(step: ArrayLike) -> Float[Array, ""]:
        return half_wave(jnp.asarray(step) // steps_per_epoch, config.epochs)

    def cosine_by_step(step: ArrayLike) -> Float[Array, ""]:
        return half_wave(jnp.maximum(jnp.asarray(step) - warmup, 0), max(num_steps - warmup, 1))

    rate = {"constant": constant, "cosine": cosine, "cosine-by-step": cosine_by_step}[
        config.schedule
    ]
    if not warmup:
        return rate

    def warmed_up(step: ArrayLike) -> Float[Array, ""]:
        return rate(step) * jnp.minimum((jnp.asarray(step) + 1).astype(dtype) / warmup, 1)

    return warmed_up


def _is_product_matrix(params: nnx.State) -> nnx.State:
    """Says of each parameter whether it is a kernel: of the gates, or of the head."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "kernel" in jax.tree_util.keystr(path), params
    )


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


def scale_by_adam() -> optax.GradientTransformation:
    """Returns `optax.scale_by_adam` with an exact bias correction.

    In float32, optax's `1 - 0.999**t` is off by 1.3e-5 of its value at the first step, since
    0.999 itself is rounded; torch computes it in float64. `expm1` is exact to the last place in
    either type, which brings float32 parameters after 50 steps some ten times closer to the
    float64 result.
    """

    def init(params):
        # Two sets of zeros: a training step, which donates its state, cannot take one buffer twice.
        mu, nu = optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g**2, state.nu, updates)

        def direction(m, v):
            steps = jnp.asarray(count, m.dtype)
            mean = m / -jnp.expm1(steps * math.log(BETA_1))
            return mean / (jnp.sqrt(v / -jnp.expm1(steps * math.log(BETA_2))) + EPSILON)

        return jax.tree.map(direction, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
