"""What `--dry-run` tells: all that is known of a training before it begins."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np

from astra_jax.config import Preset, Record
from astra_jax.data.splits import Split
from astra_jax.experiments.lifecycle import Prepared
from astra_jax.machine import processes
from astra_jax.machine.memory import machine_memory
from astra_jax.model import arithmetic
from astra_jax.training.fitting import FitOptions, steps_in_epoch
from astra_jax.training.pace import steps_of_a_call
from astra_jax.training.trainer import MAX_STEPS_PER_CALL, Keys, TrainState
from astra_jax.units import counted, duration, readable

TIMED_BATCHES = 4
"""Batches of the validation part that are timed."""


Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds, measured on this machine.

    Attributes:
        start: until the first step is done, compilation included.
        step: of a training step.
        batch: of a batch of evaluation.
        num_steps: that were timed.
    """

    start: float
    step: float
    batch: float
    num_steps: int


def rehearse(prepared: Prepared, options: FitOptions) -> str:
    """Returns what would be trained, on what, in which memory and time, a line each.

    Does some of the training's own steps to time them, and throws them away.

    Args:
        prepared: one run, or several that would be trained together.
        options: that they would be trained with.
    """
    presets, corpus, splits = prepared
    preset, split, num_runs = presets[0], splits[0], len(presets)
    steps = steps_in_epoch(preset, split.train)
    timing = time_steps(presets, splits, options)
    needed = options.memory(preset, num_runs)
    sha256 = (corpus.sha256 or "")[:12]
    lines = {
        "model": f"{preset.model.num_parameters:,} parameters: {_fields(preset.model)}",
        "data": _fields(preset.data),
        "train": _fields(dataclasses.replace(preset.train, steps_per_epoch=steps)),
        "corpus": f"{corpus.name} ({corpus.origin}): {corpus.characters:,} characters, sha256 "
        f"{sha256}…; {split.train.count_targets():,} characters to train on, "
        f"{split.validation.count_targets():,} to validate on",
        "memory": f"{needed.describe()}; this machine has {readable(machine_memory())}",
        "time": _time(timing, preset.train.epochs, steps, _batches(split)),
    }
    together = f" of {num_runs} seeds" if num_runs > 1 else ""
    title = f"{preset.title}, a dry run{together}: nothing is trained, no folder made"
    return "\n".join([title, *(f"{name:8}{text}" for name, text in lines.items())])


def time_steps(presets: Sequence[Preset], splits: Sequence[Split], options: FitOptions) -> Timing:
    """Times the programs that training runs, on this machine as busy as it is."""
    preset, steps = presets[0], steps_in_epoch(presets[0], splits[0].train)
    keys = [Keys.from_seed(each.train.seed) for each in presets]
    engine = options.engine(preset, steps, splits, [key.dropout for key in keys])

    def done(state: TrainState) -> int:
        return int(engine.parts(state.step)[0])

    def run(state: TrainState, count: int) -> TrainState:
        return jax.block_until_ready(engine.run_steps(state, rows, 0, done(state), count).state)

    order = np.arange(max(steps, 2 + MAX_STEPS_PER_CALL)) % steps  # A short epoch, several times.
    with arithmetic(preset.train.dtype):
        started = time.perf_counter()
        rows = np.stack(
            [
                np.asarray(each.train.epoch_rows(key.batches, steps))[order]
                for each, key in zip(splits, keys, strict=True)
            ]
        )
        state = run(engine.load([engine.trainer.init(key.init) for key in keys]), 1)
        start = time.perf_counter() - started
        state, one = _timed(lambda: run(state, 1))
        count, _ = processes.agree(steps_of_a_call(one), None)  # Processes meet at every step.
        before = done(state)
        state, several = _timed(lambda: run(state, count))
        num_steps = max(1, done(state) - before)  # Fewer, where even these steps diverge.
        covered = np.stack([each.validation.cover_rows()[:TIMED_BATCHES] for each in splits])
        engine.evaluate(state, covered)  # Compiles.
        _, evaluated = _timed(lambda: engine.evaluate(state, covered))
    batch = evaluated / covered.shape[1]
    return Timing(start=start, step=several / num_steps, batch=batch, num_steps=num_steps)


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def _batches(split: Split) -> int:
    """Returns how many batches the two validations of an epoch look at."""
    data = split.validation
    return len(data.cover_rows()) + len(data.estimate_rows(jax.random.key(0)))


def _time(timing: Timing, epochs: int, steps: int, batches: int) -> str:
    evaluation = batches * timing.batch
    seconds = timing.start + epochs * (steps * timing.step + evaluation)
    return (
        f"about {duration(seconds)}: {counted(epochs, 'epoch')} of {counted(steps, 'step')} at "
        f"{_short(timing.step)} and {_short(evaluation)} of validation; the first step after "
        f"{_short(timing.start)} ({counted(timing.num_steps, 'step')} timed on this machine, as "
        "busy as it is)"
    )


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _fields(record: Record) -> str:
    """Returns a record's fields and values as text."""
    values = ((name, "none" if v is None else v) for name, v in record.to_dict().items())
    return ", ".join(f"{name} {value}" for name, value in values)
