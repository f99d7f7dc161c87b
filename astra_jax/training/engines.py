"""Who does a training's steps: what the loop over epochs asks for, and a single run's answer."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Array, Int, Key

from astra_jax.data.splits import Split
from astra_jax.machine.placement import Placement
from astra_jax.training.trainer import Losses, StepMetrics, Trainer, TrainState

Tree = TypeVar("Tree")


class Steps(NamedTuple):
    """What became of a call to do some steps.

    Attributes:
        state: after them.
        metrics: of each of them.
        num_steps: how many they are, perhaps fewer than were asked for.
    """

    state: TrainState
    metrics: StepMetrics
    num_steps: int


class Engine(Protocol):
    """Does the steps of R runs of one recipe; what their states are between calls is its own.

    Attributes:
        trainer: whose steps they are.
    """

    trainer: Trainer

    def load(self, states: Sequence[TrainState]) -> TrainState:
        """Brings the states of all runs to where they are computed with."""
        ...

    def parts(self, value: Tree) -> list[Tree]:
        """Takes apart what `load` or `run_steps` returned: one of it for each run."""
        ...

    def run_steps(
        self, state: TrainState, rows: Int[np.ndarray, "R S B"], offset: int, step: int, count: int
    ) -> Steps:
        """Does the steps that each run has not yet done before step `step + count`.

        Args:
            state: donated.
            rows: of the batches of each run, from step `offset` on.
            offset: the step that the first batch is for.
            step: that the run that is furthest behind stands at.
            count: steps that it is to do at most.
        """
        ...

    def evaluate(self, state: TrainState, rows: Int[np.ndarray, "R S B"]) -> list[Losses]:
        """Returns the losses of each run's batches of the validation part."""
        ...


class OneRun:
    """A single run; devices share its batches."""

    def __init__(self, trainer: Trainer, place: Placement, split: Split, key: Key[Array, ""]):
        """Brings the data and the key of dropout to where they are computed with."""
        self.trainer, self._place = trainer, place
        self._train, self._validation = map(place.replicate, split[:2])
        self._key = place.replicate(key)

    def load(self, states: Sequence[TrainState]) -> TrainState:
        """Puts the state onto every device."""
        (state,) = states
        return self._place.replicate(state)

    def parts(self, value: Tree) -> list[Tree]:
        """Returns the value, as it is."""
        return [value]

    def run_steps(
        self, state: TrainState, rows: Int[np.ndarray, "R S B"], offset: int, step: int, count: int
    ) -> Steps:
        """See `Engine.run_steps`."""
        data, batches, first, count = self._train.stage(rows[0], step - offset, count)
        state, metrics = self.trainer.run_steps(
            state,
            self._place.replicate(data),
            self._place.share(batches),
            offset + first,
            step + count,
            self._key,
        )
        return Steps(state, metrics, count)

    def evaluate(self, state: TrainState, rows: Int[np.ndarray, "R S B"]) -> list[Losses]:
        """See `Engine.evaluate`."""
        return [self.trainer.evaluate(state.params, self._validation, rows[0], self._place)]
