"""How a run gives its model and its training state back, and takes in those from elsewhere."""

from pathlib import Path

import jax
from flax import nnx

from astra_jax.errors import InputError
from astra_jax.machine.placement import to_device
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.runs.checkpoints import read_beside_writer
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import History
from astra_jax.training.saving import SavePolicy, Saver, Training, read_training
from astra_jax.training.trainer import Trainer, TrainState


def restore_model(run: Run, *, best: bool = False) -> GRULanguageModel:
    """Returns the model of a run's newest checkpoint, or of its best.

    Raises:
        InputError: the run has no such checkpoint, or none that can be read.
    """
    return merge_model(run, restore_state(run, best=best))


def merge_model(run: Run, state: TrainState) -> GRULanguageModel:
    """Returns the model of a run's training state."""
    with arithmetic(run.preset.train.dtype):
        return nnx.merge(Trainer(run.preset, steps_per_epoch=1).graph, state.params)


def restore_state(run: Run, *, best: bool = False) -> TrainState:
    """Returns the training state of a run's checkpoint; raises as `restore_model` does."""
    return restore_training(run, best=best).state


def restore_training(run: Run, *, best: bool = False) -> Training:
    """Returns where a run's checkpoint stands; raises as `restore_model` does."""
    folder = require_checkpoint(run, best=best)
    # The update rule's state has the same structure whatever the length of an epoch.
    trainer = Trainer(run.preset, steps_per_epoch=1)
    with arithmetic(run.preset.train.dtype):
        like = jax.eval_shape(trainer.init, jax.random.key(0))
        training = read_beside_writer(folder, lambda found: read_training(run, found, like))
        return training._replace(state=to_device(training.state))


def require_checkpoint(run: Run, *, best: bool = False) -> Path:
    """Returns the folder of a run's newest checkpoints, or of its best; raises `InputError`."""
    folder = run.best if best else run.checkpoints
    if best and not folder.is_dir() and run.checkpoints.is_dir():
        raise InputError(f"{folder} is not there before an epoch is complete: take the newest")
    if not folder.is_dir():  # Opening it would make it.
        raise InputError(f"{folder} holds no checkpoint: train first")
    return folder


def import_state(run: Run, state: TrainState) -> None:
    """Makes a training state from elsewhere the first checkpoint of a new run."""
    with arithmetic(run.preset.train.dtype), Saver(run, SavePolicy()) as saver:
        saver.save(int(state.step), Training(state, History()))
