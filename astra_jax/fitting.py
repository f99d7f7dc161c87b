"""The loop over epochs: dispatch, report, evaluate, record, checkpoint."""

import signal
import threading
import time
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from astra_jax.checkpoints import Checkpoints
from astra_jax.config import Preset
from astra_jax.datasets import Dataset, Split
from astra_jax.errors import DivergedError, InputError
from astra_jax.model import arithmetic
from astra_jax.optimizers import learning_rate_schedule
from astra_jax.progress import Progress, Snapshot
from astra_jax.runs import EpochMetrics, Run
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


def fit(run: Run, split: Split, progress: Progress) -> None:
    """Trains a run to the end of its last epoch, going on from its newest checkpoint if any.

    The run's finished model is in its newest checkpoint: `experiments.restore_model`.

    After every epoch a line of metrics and a checkpoint are on disk. Everything random follows
    from the run's seed and the number of steps done, so a run that is interrupted and resumed
    computes what it would have computed otherwise.

    Raises:
        DivergedError: a loss is not finite; the last checkpoint is from before it.
        InputError: a checkpoint or the metrics of the run are damaged, or the checkpoint is not
            of an epoch's end.
    """
    with arithmetic(run.preset.train.dtype), Checkpoints(run.checkpoints) as checkpoints:
        loop = _Loop(run.preset, split, progress)
        if checkpoints.latest_step is None:
            state = loop.trainer.init(loop.keys.init)
        else:
            state = checkpoints.restore(jax.eval_shape(loop.trainer.init, loop.keys.init))
        done = _epochs_done(run, int(state.step), loop.steps)
        metrics = _metrics_of_epochs(run, run.imported_step // loop.steps, done)
        with loop.interrupt:
            for epoch in range(done, run.preset.train.epochs):
                state, result = loop.run_epoch(state, epoch)
                metrics.append(result)
                run.write_metrics(metrics)
                checkpoints.save(result.step, state)
                progress.epoch(result)


def _epochs_done(run: Run, step: int, steps_per_epoch: int) -> int:
    """Returns how many epochs a checkpoint has behind it."""
    epochs, rest = divmod(step, steps_per_epoch)
    if rest:
        raise InputError(
            f"{run.folder} stands at step {step}, {rest} of {steps_per_epoch} steps into epoch "
            f"{epochs + 1}: training goes on from the end of an epoch only; import a checkpoint "
            "that was written at one"
        )
    return epochs


def _metrics_of_epochs(run: Run, imported: int, done: int) -> list[EpochMetrics]:
    """Returns a run's lines up to its newest checkpoint; imported epochs have none."""
    # A run that was stopped before it could save an epoch has that epoch's line already.
    metrics = [line for line in run.metrics() if line.epoch <= done]
    if [line.epoch for line in metrics] != list(range(imported + 1, done + 1)):
        raise InputError(
            f"{run.folder} has lost metrics: {len(metrics)} lines, expected one for each epoch "
            f"from {imported + 1} to {done}"
        )
    return metrics


class _Loop:
    """What stays the same from epoch to epoch, and the clock."""

    def __init__(self, preset: Preset, split: Split, progress: Progress):
        self.preset, self.split, self.progress = preset, split, progress
        self.steps = steps_in_epoch(preset, split.train)
        self.trainer = Trainer(preset, self.steps)
        self.keys = Keys.from_seed(preset.train.seed)
        self.learning_rate = learning_rate_schedule(preset.train, self.steps)
        self.step_chars = preset.data.batch_size * preset.data.seq_len
        self.pace = _Pace()
        self.interrupt = _Interrupt()
        self.eval_seconds = 0.0
        self.rate = 0.0

    def run_epoch(self, state: TrainState, epoch: int) -> tuple[TrainState, EpochMetrics]:
        """Trains and evaluates one epoch, counted from 0."""
        started = time.perf_counter()
        # Before anything is in flight that asking the device would wait for.
        self.rate = float(self.learning_rate(epoch * self.steps))
        state, history = self._train(state, epoch)
        trained = time.perf_counter()
        estimate, full = self._evaluate(state.params, epoch)
        self.eval_seconds = time.perf_counter() - trained
        train_seconds = trained - started
        step = (epoch + 1) * self.steps
        _require_finite(np.asarray(history.grad_norm), step, "norm of the gradient")
        _require_finite(np.array([estimate, full]), step, "validation loss")
        return state, EpochMetrics(
            epoch=epoch + 1,
            step=step,
            learning_rate=self.rate,
            train_loss_nats=float(np.mean(history.loss_nats)),
            val_estimate_nats=estimate,
            val_loss_nats=full,
            grad_norm=float(np.mean(history.grad_norm)),
            chars_per_s=round(self.steps * self.step_chars / train_seconds, 1),
            train_seconds=round(train_seconds, 3),
            eval_seconds=round(self.eval_seconds, 3),
        )

    def _train(self, state: TrainState, epoch: int) -> tuple[TrainState, StepMetrics]:
        """Runs an epoch's steps, reading each call's metrics while the next one runs."""
        rows = self.split.train.epoch_rows(jax.random.fold_in(self.keys.batches, epoch), self.steps)
        calls: list[StepMetrics] = []
        pending, first = None, 0
        self.pace.start()
        while first < self.steps:
            count = self.pace.steps(self.steps - first)
            state, history = self.trainer.run_steps(
                state, self.split.train, rows, first, count, self.keys.dropout
            )
            if pending is not None:
                calls.append(self._read(pending, epoch))
            pending, first = _Call(first, count, history), first + count
            if self.interrupt.wanted:
                jax.block_until_ready(state)  # Python must not end while the device computes.
                raise KeyboardInterrupt
        assert pending is not None
        calls.append(self._read(pending, epoch))
        return state, jax.tree.map(lambda *parts: np.concatenate(parts, dtype=np.float64), *calls)

    def _read(self, call: "_Call", epoch: int) -> StepMetrics:
        """Waits for a call's metrics, checks them and tells about them."""
        history = jax.tree.map(lambda values: values[: call.steps], jax.device_get(call.history))
        self.pace.observe(call.steps)
        done, epochs = call.first + call.steps, self.preset.train.epochs
        _require_finite(history.loss_nats, epoch * self.steps + done, "loss")
        steps_left = (epochs - epoch) * self.steps - done
        self.progress.steps(
            Snapshot(
                epoch=epoch + 1,
                epochs=epochs,
                step=done,
                steps=self.steps,
                loss_nats=float(history.loss_nats[-1]),
                learning_rate=self.rate,
                chars_per_s=self.step_chars / self.pace.seconds_per_step,
                seconds_left=steps_left * self.pace.seconds_per_step
                + (epochs - epoch) * self.eval_seconds,
            )
        )
        return history

    def _evaluate(self, params: nnx.State, epoch: int) -> tuple[float, float]:
        """Returns the notebook's validation estimate and the full pass."""
        data = self.split.validation
        drawn = data.estimate_rows(jax.random.fold_in(self.keys.validation, epoch))
        estimate = self.trainer.evaluate(params, data, drawn).mean_of_batches
        return estimate, self.trainer.evaluate(params, data, data.cover_rows()).mean_of_targets


def _require_finite(values: np.ndarray, step: int, name: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise DivergedError(
            f"the {name} is {values[~finite][0]} by step {step}: training diverged; try a smaller "
            "--learning-rate"
        )


class _Interrupt:
    """Takes note of Ctrl-C, to be looked at between two calls; a second one acts at once."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: Any = None

    def __enter__(self) -> None:
        # Signals belong to the main thread; elsewhere nothing changes.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.wanted = True
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


class _Call(NamedTuple):
    """A call to the device whose metrics have not been read yet."""

    first: int
    steps: int
    history: StepMetrics


class _Pace:
    """Chooses how many steps a call does, so that it takes about `SECONDS_PER_CALL`."""

    def __init__(self) -> None:
        self.seconds_per_step = SECONDS_PER_CALL
        self._last = 0.0

    def start(self) -> None:
        """Begins to measure anew, after a pause in the steps."""
        self._last = time.perf_counter()

    def steps(self, remaining: int) -> int:
        """Returns the steps of the next call."""
        wanted = round(SECONDS_PER_CALL / self.seconds_per_step)
        return max(1, min(wanted, remaining, MAX_STEPS_PER_CALL))

    def observe(self, count: int) -> None:
        """Takes note that `count` more steps are done."""
        now = time.perf_counter()
        self.seconds_per_step, self._last = (now - self._last) / count, now
