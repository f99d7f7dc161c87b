"""The loop over epochs: dispatch, report, evaluate, record, checkpoint."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from astra_jax.config import Preset, differences, require_short_warmup
from astra_jax.data.datasets import Dataset
from astra_jax.data.splits import Split
from astra_jax.errors import DivergedError, InputError, StoppedError
from astra_jax.machine import processes
from astra_jax.machine.placement import to_device
from astra_jax.model import arithmetic
from astra_jax.optimizers import learning_rate_schedule
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics, EpochSoFar
from astra_jax.storage.locks import locked
from astra_jax.training.diagnosis import find_operation, first_offender
from astra_jax.training.members import Member
from astra_jax.training.options import FitOptions
from astra_jax.training.pace import Pace
from astra_jax.training.progress import Progress, Several, Snapshot
from astra_jax.training.saving import Saver
from astra_jax.training.stopping import StopRequest
from astra_jax.training.trainer import StepMetrics, TrainState


def steps_in_epoch(preset: Preset, data: Dataset) -> int:
    """Returns the optimiser steps of an epoch.

    Raises:
        InputError: the recipe asks for more steps than the data has batches, or its warm-up is
            as long as the training.
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
    require_short_warmup(preset.train, steps)
    return steps


_ADVICE = (
    "training diverged; checkpoints, if there are any, are from before it; begin again with a "
    "smaller --learning-rate"
)


def fit(
    run: Run,
    split: Split,
    progress: Progress | None = None,
    options: FitOptions | None = None,
) -> None:
    """Trains a run to the end of its last epoch, going on from its newest checkpoint if any.

    The run's finished model is in its newest checkpoint: `restoring.restore_model`.

    Everything random follows from the run's seed and the number of steps done, so a run that is
    interrupted at any moment and resumed computes, to the bit, what it would have computed
    otherwise.

    Args:
        run: see `lifecycle.begin` and `lifecycle.resume`.
        split: of its corpus.
        progress: who is told how it goes; `ConsoleProgress` shows it. None tells nobody.
        options: what changes no result.

    Raises:
        DivergedError: a loss or a gradient is not finite; the last checkpoint is from before it.
        StoppedError: SIGINT, SIGTERM or the deadline came; the steps done are in the newest
            checkpoint.
        StorageError: a checkpoint could not be written.
        InputError: the split is another run's, another process trains this run, its newest
            checkpoint is damaged or not of the run as it is now, or does not fit the epochs.
    """
    fit_together([run], [split], Several(()) if progress is None else progress, options)


def fit_together(
    runs: Sequence[Run],
    splits: Sequence[Split],
    progress: Progress,
    options: FitOptions | None = None,
) -> None:
    """Does what `fit` does for runs that differ in their seed alone, all in one program.

    Each is saved by itself, as `fit` would save it, and may have been trained by it before: those
    that are further than others wait for them. If one diverges, all stop.

    Args:
        runs: what to train.
        splits: their data; that of several runs is from `splits.split_by_keys`.
        progress: is told of all of them.
        options: see `fit`, and for what may be raised.
    """
    options = options or FitOptions()
    preset = runs[0].preset
    for run, split in zip(runs, splits, strict=True):
        _require_own(run, split)
    with contextlib.ExitStack() as stack:
        with processes.all_or_none():
            for run in runs if processes.is_primary() else ():
                stack.enter_context(locked(run.folder))
        stack.enter_context(arithmetic(preset.train.dtype))
        savers = [stack.enter_context(Saver(run, options.saving)) for run in runs]
        steps = steps_in_epoch(preset, splits[0].train)
        members = [Member(*each, steps) for each in zip(runs, splits, savers, strict=True)]
        loop = _Loop(members, progress, stack.enter_context(StopRequest(options.deadline)), options)
        loop.run()


def _require_own(run: Run, split: Split) -> None:
    """Refuses what another run's corpus was made into."""
    found = differences(run.preset.data.to_dict(), split.config.to_dict())
    if split.vocabulary != run.vocabulary:
        found.append(
            f"vocabulary was {run.vocabulary.describe()}, now {split.vocabulary.describe()}"
        )
    if found:
        raise InputError(
            f"the split is not of {run.folder}: {'; '.join(found)}; take the one that `begin` or "
            "`resume` returned with the run"
        )


class _Loop:
    """What stays the same from epoch to epoch, and the clock."""

    def __init__(
        self, members: Sequence[Member], progress: Progress, stop: StopRequest, options: FitOptions
    ):
        self.members, self.progress, self.stop, self.options = members, progress, stop, options
        first = members[0]
        self.preset, self.steps = first.run.preset, first.steps
        splits = [member.split for member in members]
        keys = [member.keys.dropout for member in members]
        self.engine = options.engine(self.preset, self.steps, splits, keys)
        self.schedule = jax.jit(jax.vmap(learning_rate_schedule(self.preset.train, self.steps)))
        self.step_chars = self.preset.data.batch_size * self.preset.data.seq_len
        self.pace = Pace()
        self.eval_seconds = 0.0
        self.rates: Float[np.ndarray, " S"] = np.zeros(self.steps)

    def run(self) -> None:
        """Does what is left of the trainings."""
        state = self.engine.load([each.restore(self.engine.trainer) for each in self.members])
        first = min(member.epochs_done for member in self.members)
        for epoch in range(first, self.preset.train.epochs):
            state = self._run_epoch(state, epoch)
            _, stop = processes.agree(0, self.stop.number)
            if stop is not None and epoch + 1 < self.preset.train.epochs:
                raise StoppedError(stop, (epoch + 1) * self.steps)

    def _run_epoch(self, state: TrainState, epoch: int) -> TrainState:
        """Does what is left of an epoch, counted from 0, and evaluates and saves it."""
        # Before anything is in flight that asking the device would wait for.
        first = epoch * self.steps
        self.rates = np.asarray(self.schedule(np.arange(first, first + self.steps)), np.float64)
        state = self._train(state, epoch)
        started = time.perf_counter()
        losses = self._evaluate(state, epoch)
        self.eval_seconds = time.perf_counter() - started
        ended = [
            (member, part, self._line(epoch, member.history.current, *found))
            for member, part, found in zip(
                self.members, self.engine.parts(state), losses, strict=True
            )
            if member.epochs_done == epoch
        ]
        for member, part, line in ended:
            member.finish(line, part)
        self.progress.epoch([member.history.line(epoch + 1) for member in self.members])
        return state

    def _line(self, epoch: int, done: EpochSoFar, estimate: float, full: float) -> EpochMetrics:
        step = (epoch + 1) * self.steps
        for what, loss in (("loss", full), ("estimate", estimate)):
            if not np.isfinite(loss):
                raise DivergedError(f"the validation {what} is {loss} after step {step}, {_ADVICE}")
        return EpochMetrics(
            epoch=epoch + 1,
            step=step,
            learning_rate=float(self.rates.mean()),
            train_loss_nats=done.loss_nats / done.steps,
            val_estimate_nats=estimate,
            val_loss_nats=full,
            grad_norm=done.grad_norm / done.steps,
            chars_per_s=round(done.steps * self.step_chars / done.seconds, 1),
            train_seconds=round(done.seconds, 3),
            eval_seconds=round(self.eval_seconds, 3),
        )

    def _train(self, state: TrainState, epoch: int) -> TrainState:
        """Runs the rest of an epoch's steps, reading each call's metrics while the next runs."""
        rows = self._rows(epoch)
        offset = epoch * self.steps
        at = np.array([member.steps_done for member in self.members])
        step, end = int(at.min()), offset + self.steps
        pending = None
        self.pace.start()
        while step < end:
            due = self.options.saving.steps_until_due(step)
            wanted = self.pace.steps(min(end - step, due or end))
            count, stop = processes.agree(wanted, self.stop.number)
            if stop is not None:
                self._read(pending, state)
                self._save(state)
                raise StoppedError(stop, step)
            state, metrics, count = self.engine.run_steps(state, rows, offset, step, count)
            self._read(pending, state)
            pending, step = _Call(at, np.maximum(at, step + count), rows, metrics), step + count
            at = pending.end
            if count == due and step < end:
                self._read(pending, state)
                pending = None
                self._save(state)
        self._read(pending, state)
        return state

    def _rows(self, epoch: int) -> Int[np.ndarray, "R S B"]:
        """Draws the rows of an epoch's batches."""
        rows = []
        for member in self.members:
            key = jax.random.fold_in(member.keys.batches, epoch)
            rows.append(member.split.train.epoch_rows(key, self.steps))
        return np.stack(rows)

    def _save(self, state: TrainState) -> None:
        for member, part in zip(self.members, self.engine.parts(state), strict=True):
            member.save(part)

    def _read(self, call: "_Call | None", state: TrainState) -> None:
        """Waits for a call's metrics, checks them, tells about them and adds them up."""
        if call is None:
            return
        counts = call.end - call.begin
        done = [
            tuple(np.asarray(values)[:count] for values in of_run)
            for of_run, count in zip(self.engine.parts(call.metrics), counts, strict=True)
        ]
        for index, (loss, norm) in enumerate(done):
            broken = np.flatnonzero(~(np.isfinite(loss) & np.isfinite(norm)))
            if broken.size:
                raise self._diverged(call, index, int(broken[0]), state)
        seconds = self.pace.observe(int(counts.max()))
        for member, (loss, norm) in zip(self.members, done, strict=True):
            current = member.history.current.add(loss, norm, seconds if loss.size else 0.0)
            member.history = replace(member.history, current=current)
        if self.pace.known:
            newest = tuple(float(loss[-1]) if loss.size else None for loss, _ in done)
            self._tell(min(member.steps_done for member in self.members), newest)

    def _tell(self, step: int, losses_nats: tuple[float | None, ...]) -> None:
        epochs = self.preset.train.epochs
        epoch, done = divmod(step - 1, self.steps)
        num_active = sum(loss is not None for loss in losses_nats)  # The others are further.
        self.progress.steps(
            Snapshot(
                epoch=epoch + 1,
                epochs=epochs,
                step=done + 1,
                steps=self.steps,
                losses_nats=losses_nats,
                learning_rate=float(self.rates[done]),
                chars_per_s=num_active * self.step_chars / self.pace.seconds_per_step,
                seconds_left=(epochs * self.steps - step) * self.pace.seconds_per_step
                + (epochs - epoch) * self.eval_seconds,
            )
        )

    def _diverged(self, call: "_Call", place: int, index: int, state: TrainState) -> DivergedError:
        """Looks into the step that was not done, from the state before it, which is kept."""
        # On one device, whatever trained: there everything is at hand, one operation at a time.
        member, trainer = self.members[place], replace(self.engine.trainer, mesh=None)
        step = int(call.begin[place]) + index
        before = to_device(self.engine.parts(state)[place])
        batch, keep = trainer.step_inputs(
            before,
            member.split.train,
            jnp.asarray(call.rows[place, step % self.steps]),
            member.keys.dropout,
        )
        inputs = trainer, before.params, batch, keep
        found = f"at step {step + 1}, {first_offender(*inputs)}"
        if len(self.members) > 1:
            found = f"{member.run.folder} {found}"
        if self.options.debug_nans:
            found += f"; {find_operation(*inputs)}"
        return DivergedError(f"{found}, {_ADVICE}")

    def _evaluate(self, state: TrainState, epoch: int) -> list[tuple[float, float]]:
        """Returns the notebook's validation estimate and the full pass, of every run."""
        drawn, covering = [], []
        for member in self.members:
            key = jax.random.fold_in(member.keys.validation, epoch)
            drawn.append(member.split.validation.estimate_rows(key))
            covering.append(member.split.validation.cover_rows())
        full = estimates = self.engine.evaluate(state, np.stack(covering))
        if not np.array_equal(drawn, covering):  # Of words they are the same.
            estimates = self.engine.evaluate(state, np.stack(drawn))
        return [
            (estimate.mean_of_batches, every.mean_of_targets)
            for estimate, every in zip(estimates, full, strict=True)
        ]


class _Call(NamedTuple):
    """A call to the device whose metrics have not been read yet.

    Attributes:
        begin: the step that each run stood at.
        end: the step that each was to stand at.
        rows: of the epoch's batches.
        metrics: of its steps.
    """

    begin: Int[np.ndarray, " R"]
    end: Int[np.ndarray, " R"]
    rows: Int[np.ndarray, "R S B"]
    metrics: StepMetrics
