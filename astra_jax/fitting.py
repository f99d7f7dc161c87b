"""The loop over epochs: dispatch, report, evaluate, record, checkpoint."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int

from astra_jax import cluster
from astra_jax.config import Preset
from astra_jax.datasets import Dataset, Split
from astra_jax.diagnosis import find_operation, first_offender
from astra_jax.errors import DivergedError, InputError, StoppedError
from astra_jax.gru import BACKENDS
from astra_jax.locks import locked
from astra_jax.metrics import EpochMetrics, History
from astra_jax.model import arithmetic
from astra_jax.optimizers import learning_rate_schedule
from astra_jax.progress import Progress, Snapshot
from astra_jax.runs import Run
from astra_jax.saving import SavePolicy, Saver, Training
from astra_jax.stopping import StopRequest
from astra_jax.training import (
    MAX_STEPS_PER_CALL,
    Keys,
    StepMetrics,
    Trainer,
    TrainState,
)

SECONDS_PER_CALL = 2.0
"""How long a call to the device should take: often enough to be told, seldom enough to be free."""


def steps_in_epoch(preset: Preset, data: Dataset) -> int:
    """Returns the optimiser steps of an epoch.

    Raises:
        InputError: the recipe asks for more steps than the data has batches.
    """
    wanted, available = preset.train.steps_per_epoch, data.max_steps
    if wanted is None and available is None:
        raise InputError("steps_per_epoch must be given: windows of text have no natural number")
    if wanted is not None and available is not None and wanted > available:
        raise InputError(
            f"steps_per_epoch must be at most {available}, the batches of one pass over the "
            f"words, got {wanted}"
        )
    steps = available if wanted is None else wanted
    assert steps is not None
    return steps


_ADVICE = (
    "training diverged; the last checkpoint is from before it; begin again with a smaller "
    "--learning-rate"
)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What a person may choose about a training that changes none of its results.

    Attributes:
        saving: how often it is saved.
        debug_nans: whether a training that diverges is to say which operation did it.
        devices: that share the batches; several add in another order than one, no more.
        backend: of the recurrence, one of `gru.BACKENDS`; None chooses.
        remat: whether gradients are to cost time rather than memory.
    """

    saving: SavePolicy = field(default_factory=SavePolicy)
    debug_nans: bool = False
    devices: cluster.Devices = None
    backend: str | None = None
    remat: bool = False

    def trainer(self, preset: Preset, steps_per_epoch: int) -> tuple[Trainer, cluster.Placement]:
        """Returns a training's programs, and the devices that they are for.

        Raises:
            InputError: there are no such devices or backend, or the batch cannot be shared.
        """
        if self.backend is not None and self.backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise InputError(f"unknown --backend {self.backend!r}: choose one of {known}")
        place = cluster.Placement.of(self.devices, preset)
        mesh = place.mesh_of_several
        return Trainer(preset, steps_per_epoch, mesh, self.backend, self.remat), place


def fit(run: Run, split: Split, progress: Progress, options: FitOptions | None = None) -> None:
    """Trains a run to the end of its last epoch, going on from its newest checkpoint if any.

    The run's finished model is in its newest checkpoint: `experiments.restore_model`.

    Everything random follows from the run's seed and the number of steps done, so a run that is
    interrupted at any moment and resumed computes, to the bit, what it would have computed
    otherwise.

    Raises:
        DivergedError: a loss or a gradient is not finite; the last checkpoint is from before it.
        StoppedError: SIGINT or SIGTERM came; the steps done are in the newest checkpoint.
        StorageError: a checkpoint could not be written.
        InputError: another process trains this run, its newest checkpoint is damaged or not of
            the run as it is now, or does not fit the epochs.
    """
    options = options or FitOptions()
    with (
        locked(run.folder) if cluster.is_primary() else nullcontext(),
        arithmetic(run.preset.train.dtype),
        Saver(run, options.saving) as saver,
        StopRequest() as stop,
    ):
        loop = _Loop(run, split, progress, saver, stop, options)
        training = saver.restore(jax.eval_shape(loop.trainer.init, loop.keys.init))
        training = training or Training(loop.trainer.init(loop.keys.init), History())
        loop.run(training._replace(state=loop.place.replicate(training.state)))


def _epochs_done(run: Run, training: Training, steps_per_epoch: int) -> int:
    """Returns how many epochs a checkpoint has behind it, those done elsewhere included."""
    imported, rest = divmod(run.imported_step, steps_per_epoch)
    done = imported + len(training.history.epochs)
    expected = done * steps_per_epoch + training.history.current.steps
    if rest:
        raise InputError(
            f"{run.folder} was imported at step {run.imported_step}, {rest} of {steps_per_epoch} "
            f"steps into epoch {imported + 1}: import a checkpoint that was written at the end "
            "of an epoch"
        )
    if int(training.state.step) != expected:
        raise InputError(
            f"{run.folder} stands at step {int(training.state.step)}, and its epochs of "
            f"{steps_per_epoch} steps say {expected}: the corpus or the checkpoint is not its own"
        )
    return done


class _Loop:
    """What stays the same from epoch to epoch, and the clock."""

    def __init__(
        self,
        run: Run,
        split: Split,
        progress: Progress,
        saver: Saver,
        stop: StopRequest,
        options: FitOptions,
    ):
        self.run_folder, self.preset, self.options = run, run.preset, options
        self.split, self.progress, self.saver, self.stop = split, progress, saver, stop
        self.steps = steps_in_epoch(run.preset, split.train)
        self.trainer, self.place = options.trainer(run.preset, self.steps)
        self.keys = Keys.from_seed(run.preset.train.seed)
        self.learning_rate = jax.jit(learning_rate_schedule(run.preset.train, self.steps))
        self.step_chars = run.preset.data.batch_size * run.preset.data.seq_len
        self.train_data, self.validation_data = map(self.place.replicate, split[:2])
        self.dropout_key = self.place.replicate(self.keys.dropout)
        self.pace = _Pace()
        self.eval_seconds = 0.0
        self.rate = 0.0

    def run(self, training: Training) -> None:
        """Does what is left of a training."""
        done = _epochs_done(self.run_folder, training, self.steps)
        for epoch in range(done, self.preset.train.epochs):
            training, metrics = self._run_epoch(training, epoch)
            self.saver.finish(metrics, training)
            self.progress.epoch(metrics)
            _, stop = cluster.agree(0, self.stop.number)
            if stop is not None:
                raise StoppedError(stop, metrics.step)

    def _run_epoch(self, training: Training, epoch: int) -> tuple[Training, EpochMetrics]:
        """Does what is left of an epoch, counted from 0, and evaluates it."""
        # Before anything is in flight that asking the device would wait for.
        self.rate = float(self.learning_rate(epoch * self.steps))
        state, history = self._train(training, epoch)
        started = time.perf_counter()
        estimate, full = self._evaluate(state.params, epoch)
        self.eval_seconds = time.perf_counter() - started
        step, done = (epoch + 1) * self.steps, history.current
        if not np.isfinite([estimate, full]).all():
            raise DivergedError(f"the validation loss is {full} after step {step}, {_ADVICE}")
        metrics = EpochMetrics(
            epoch=epoch + 1,
            step=step,
            learning_rate=self.rate,
            train_loss_nats=done.loss_nats / done.steps,
            val_estimate_nats=estimate,
            val_loss_nats=full,
            grad_norm=done.grad_norm / done.steps,
            chars_per_s=round(done.steps * self.step_chars / done.seconds, 1),
            train_seconds=round(done.seconds, 3),
            eval_seconds=round(self.eval_seconds, 3),
        )
        return Training(state, history.finish(metrics)), metrics

    def _train(self, training: Training, epoch: int) -> Training:
        """Runs the rest of an epoch's steps, reading each call's metrics while the next runs."""
        key = jax.random.fold_in(self.keys.batches, epoch)
        rows = np.asarray(self.split.train.epoch_rows(key, self.steps))
        offset = epoch * self.steps
        step, end = offset + training.history.current.steps, offset + self.steps
        pending = None
        self.pace.start()
        while step < end:
            due = self.saver.policy.steps_until_due(step)
            wanted = self.pace.steps(min(end - step, due or end))
            count, stop = cluster.agree(wanted, self.stop.number)
            if stop is not None:
                self.saver.save(step, self._read(pending, training))
                raise StoppedError(stop, step)
            data, batches, first, count = self.train_data.stage(rows, step - offset, count)
            state, history = self.trainer.run_steps(
                training.state,
                self.place.replicate(data),
                self.place.share(batches),
                offset + first,
                step + count,
                self.dropout_key,
            )
            training = self._read(pending, training._replace(state=state))
            pending, step = _Call(step, count, rows, history), step + count
            if count == due and step < end:
                training, pending = self._read(pending, training), None
                self.saver.save(step, training)
        return self._read(pending, training)

    def _read(self, call: "_Call | None", training: Training) -> Training:
        """Waits for a call's metrics, checks them, tells about them and adds them up."""
        if call is None:
            return training
        loss, norm = (values[: call.steps] for values in jax.device_get(call.history))
        broken = np.flatnonzero(~(np.isfinite(loss) & np.isfinite(norm)))
        if broken.size:
            raise self._diverged(call, int(broken[0]), training.state)
        seconds = self.pace.observe(call.steps)
        current = training.history.current.add(loss, norm, seconds)
        if self.pace.known:
            self._tell(call.first + call.steps, float(loss[-1]))
        return Training(training.state, replace(training.history, current=current))

    def _tell(self, step: int, loss_nats: float) -> None:
        epochs = self.preset.train.epochs
        epoch, done = divmod(step - 1, self.steps)
        self.progress.steps(
            Snapshot(
                epoch=epoch + 1,
                epochs=epochs,
                step=done + 1,
                steps=self.steps,
                loss_nats=loss_nats,
                learning_rate=self.rate,
                chars_per_s=self.step_chars / self.pace.seconds_per_step,
                seconds_left=(epochs * self.steps - step) * self.pace.seconds_per_step
                + (epochs - epoch) * self.eval_seconds,
            )
        )

    def _diverged(self, call: "_Call", index: int, state: TrainState) -> DivergedError:
        """Looks into the step that was not done, from the state before it, which is kept."""
        step = call.first + index
        batch, keep = self.trainer.step_inputs(
            jnp.int32(step),
            self.split.train,
            jnp.asarray(call.rows[step % self.steps]),
            self.keys.dropout,
        )
        params = jax.tree.map(jnp.asarray, cluster.local(state.params))
        inputs = self.trainer, params, batch, keep
        found = f"at step {step + 1}, {first_offender(*inputs)}"
        if self.options.debug_nans:
            found += f"; {find_operation(*inputs)}"
        return DivergedError(f"{found}, {_ADVICE}")

    def _evaluate(self, params: nnx.State, epoch: int) -> tuple[float, float]:
        """Returns the notebook's validation estimate and the full pass."""
        data = self.validation_data
        drawn = data.estimate_rows(jax.random.fold_in(self.keys.validation, epoch))
        estimate = self.trainer.evaluate(params, data, drawn, self.place)
        full = self.trainer.evaluate(params, data, data.cover_rows(), self.place)
        return estimate.mean_of_batches, full.mean_of_targets


class _Call(NamedTuple):
    """A call to the device whose metrics have not been read yet."""

    first: int
    steps: int
    rows: Int[np.ndarray, "S B"]
    history: StepMetrics


class _Pace:
    """Chooses how many steps a call does, so that it takes about `SECONDS_PER_CALL`.

    The first call's time, which has the compilation in it, says nothing of a step's.
    """

    def __init__(self) -> None:
        self.seconds_per_step = SECONDS_PER_CALL
        self.known = False
        self._compiled = False
        self._last = 0.0

    def start(self) -> None:
        """Begins to measure anew, after a pause in the steps."""
        self._last = time.perf_counter()

    def steps(self, remaining: int) -> int:
        """Returns the steps of the next call."""
        wanted = round(SECONDS_PER_CALL / self.seconds_per_step)
        return max(1, min(wanted, remaining, MAX_STEPS_PER_CALL))

    def observe(self, count: int) -> float:
        """Takes note that `count` more steps are done, and returns the seconds they took."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if self._compiled:
            self.seconds_per_step, self.known = seconds / count, True
        self._compiled = True
        return seconds
