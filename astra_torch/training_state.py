"""What training goes on from beside the weights: optax state <-> torch-named numpy arrays.

Values are moved, never computed with. `torch_state` takes them on to `torch.optim`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from astra_jax.config import Preset
from astra_jax.errors import InputError
from astra_jax.machine.placement import to_device
from astra_jax.model import arithmetic
from astra_jax.training.trainer import Trainer, TrainState
from astra_torch.weights import Arrays, Layout, to_arrays, to_params


@dataclass(frozen=True)
class OptimizerState:
    """Adam's memory and the position in the schedule, apart from framework and file.

    The learning rate follows from the recipe and the position.

    Attributes:
        step: optimiser steps done.
        exp_avg: running means of the gradients, by the parameters' torch names.
        exp_avg_sq: running means of their squares.
        steps_per_epoch: in this training; None where that is not known.
    """

    step: int
    exp_avg: Arrays
    exp_avg_sq: Arrays
    steps_per_epoch: int | None


def from_jax(
    state: TrainState, layout: Layout, steps_per_epoch: int | None
) -> OptimizerState | None:
    """Returns the optimizer's part of a JAX training state; None before the first step.

    Raises:
        InputError: the state's counters contradict each other.
    """
    step = int(state.step)
    counts = [int(count) for _, count in optax.tree.get_all_with_path(state.opt_state, "count")]
    if set(counts) != {step}:
        raise InputError(
            f"the training state is damaged: after {step} steps its optimiser has counted "
            f"{counts}; remove this checkpoint to go on from the one before"
        )
    if step == 0:
        return None
    return OptimizerState(
        step=step,
        exp_avg=to_arrays(optax.tree.get(state.opt_state, "mu"), layout),
        exp_avg_sq=to_arrays(optax.tree.get(state.opt_state, "nu"), layout),
        steps_per_epoch=steps_per_epoch,
    )


def to_jax(
    params: nnx.State, optimizer: OptimizerState | None, preset: Preset, layout: Layout
) -> TrainState:
    """Returns the JAX training state of given parameters; without optimizer, before any step."""
    with arithmetic(preset.train.dtype):
        # The state has the same structure whatever the length of an epoch.
        state = Trainer(preset, steps_per_epoch=1).state_of(params)
        if optimizer is None:
            return state
        step = jnp.asarray(optimizer.step, jnp.int32)
        opt_state = optax.tree.set(
            state.opt_state,
            mu=_like(params, optimizer.exp_avg, layout),
            nu=_like(params, optimizer.exp_avg_sq, layout),
            count=step,
        )
        # Carried states stay zero: a training goes on at an epoch's end, where they begin anew.
        state = state._replace(step=step, params=params, opt_state=opt_state)
        # A training step, which donates its state, cannot take one buffer twice.
        return jax.tree.map(jnp.copy, state)


def _like(params: nnx.State, arrays: Arrays, layout: Layout) -> nnx.State:
    """Returns torch-named arrays as a Flax tree of the parameters' structure."""
    tree = jax.tree.map(lambda leaf: leaf, params)  # A copy, since Flax replaces in place.
    nnx.replace_by_pure_dict(tree, to_device(to_params(arrays, layout)))
    return tree
