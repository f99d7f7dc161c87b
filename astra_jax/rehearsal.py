"""What `--dry-run` tells: all that is known of a training before it begins."""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax

from astra_jax.config import Preset, Record
from astra_jax.corpus import CorpusRecord
from astra_jax.datasets import Split
from astra_jax.fitting import FitOptions, steps_in_epoch
from astra_jax.model import arithmetic
from astra_jax.progress import duration
from astra_jax.sizing import Memory, machine_memory, readable
from astra_jax.training import MAX_STEPS_PER_CALL, Keys, TrainState

TIMED_SECONDS = 2.0
"""How long steps are timed, about: one alone tells little."""

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


def rehearse(preset: Preset, corpus: CorpusRecord, split: Split, options: FitOptions) -> str:
    """Returns what would be trained, on what, in which memory and time, a line each.

    Does some of the training's own steps to time them, and throws them away.

    Args:
        preset: as `experiments.prepare` returned it, and so the others.
        corpus: what the text is.
        split: the text made ready.
        options: that it would be trained with.
    """
    steps = steps_in_epoch(preset, split.train)
    timing = time_steps(preset, split, options)
    needed = Memory.of(preset, remat=options.remat)
    sha256 = (corpus.sha256 or "")[:12]
    lines = {
        "model": f"{preset.model.num_parameters:,} parameters: {_fields(preset.model)}",
        "data": _fields(preset.data),
        "train": _fields(dataclasses.replace(preset.train, steps_per_epoch=steps)),
        "corpus": f"{corpus.name} ({corpus.origin}): {corpus.characters:,} characters, sha256 "
        f"{sha256}…; {split.train.num_targets:,} characters to train on, "
        f"{split.validation.num_targets:,} to validate on",
        "memory": f"{needed.describe()}; this machine has {readable(machine_memory())}",
        "time": _time(timing, preset.train.epochs, steps, _batches(split)),
    }
    title = f"{preset.title}, a dry run: nothing is trained, no folder made"
    return "\n".join([title, *(f"{name:8}{text}" for name, text in lines.items())])


def time_steps(preset: Preset, split: Split, options: FitOptions) -> Timing:
    """Times the programs that training runs, on this machine as busy as it is."""
    trainer, place = options.trainer(preset, steps_in_epoch(preset, split.train))
    keys = Keys.from_seed(preset.train.seed)
    train, validation = map(place.replicate, split[:2])
    dropout_key = place.replicate(keys.dropout)

    def run(state: TrainState, count: int) -> TrainState:
        first = int(state.step)
        data, batches, begin, count = train.stage(rows, first, count)
        shared = place.replicate(data), place.share(batches)
        steps = trainer.run_steps(state, *shared, begin, first + count, dropout_key)
        return jax.block_until_ready(steps)[0]

    with arithmetic(preset.train.dtype):
        started = time.perf_counter()
        rows = train.epoch_rows(keys.batches, trainer.steps_per_epoch)
        state = run(place.replicate(trainer.init(keys.init)), 1)
        start = time.perf_counter() - started
        state, one = _timed(lambda: run(state, 1))
        count = round(TIMED_SECONDS / one)
        count = max(1, min(count, MAX_STEPS_PER_CALL, trainer.steps_per_epoch))
        before = int(state.step)
        state, several = _timed(lambda: run(state, count))
        done = max(1, int(state.step) - before)  # Fewer, where even these steps diverge.
        covered = validation.cover_rows()[:TIMED_BATCHES]
        evaluate = functools.partial(trainer.evaluate, state.params, validation, covered, place)
        evaluate()  # Compiles.
        _, evaluated = _timed(evaluate)
    batch = evaluated / len(covered)
    return Timing(start=start, step=several / done, batch=batch, num_steps=done)


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
        f"about {duration(seconds)}: {epochs} epochs of {steps} steps at "
        f"{1000 * timing.step:.3g} ms and {evaluation:.3g} s of validation; the first step after "
        f"{timing.start:.3g} s ({timing.num_steps} steps timed on this machine, as busy as it is)"
    )


def _fields(record: Record) -> str:
    """Returns a record's fields and values as text."""
    values = ((name, "none" if v is None else v) for name, v in record.to_dict().items())
    return ", ".join(f"{name} {value}" for name, value in values)
