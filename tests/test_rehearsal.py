"""Tests of what --dry-run tells of a training's time."""

from typing import Any

import numpy as np
import pytest

from astra_jax.experiments import lifecycle, rehearsal
from astra_jax.training.engines import Steps
from astra_jax.training.options import FitOptions
from astra_jax.training.pace import steps_of_a_call
from astra_jax.training.trainer import TrainState
from astra_jax.units import duration
from tests.trainings import TEXT


class Engine:
    """Takes 0.5 s a step and 0.25 s a batch by a clock of its own, and 100 s more to compile."""

    def __init__(self) -> None:
        self.now, self.compiled, self.trainer = 0.0, set[str](), self

    def init(self, *_: Any) -> Any:
        return TrainState(np.int32(0), None, None)  # pyright: ignore[reportArgumentType]

    def load(self, states: Any) -> Any:
        return states[0]

    def parts(self, value: Any) -> list[Any]:
        return [value]

    def _spend(self, program: str, seconds: float) -> None:
        self.now += seconds + 100.0 * (program not in self.compiled)
        self.compiled.add(program)

    def run_steps(self, *call: Any) -> Steps:
        state, *_, count = call
        self._spend("steps", 0.5 * count)
        return Steps(state._replace(step=state.step + count), None, count)  # pyright: ignore[reportArgumentType]

    def evaluate(self, *call: Any) -> None:
        _, rows = call
        self._spend("evaluation", 0.25 * rows.shape[1])


def test_the_time_told_is_of_all_epochs_without_compilation(
    corpora: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = lifecycle.prepare(TEXT, corpora["shakespeare"])
    (preset,), _, (split,) = prepared
    engine = Engine()
    monkeypatch.setattr(FitOptions, "engine", lambda *_: engine)
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: engine.now)
    timing = rehearsal.time_steps([preset], [split], FitOptions())
    assert (timing.start, timing.step, timing.batch) == (100.5, 0.5, 0.25)
    assert timing.num_steps == steps_of_a_call(0.5)
    batches = len(split.validation.cover_rows()) + 1  # And the notebook's single one.
    told = rehearsal.rehearse(prepared, FitOptions())
    seconds = 0.5 + 2 * (7 * 0.5 + 0.25 * batches)
    assert f"about {duration(seconds)}: 2 epochs of 7 steps at 500 ms" in told
