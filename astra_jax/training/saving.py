"""When a run is saved, where, and how it is found again."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax

from astra_jax.config import Record
from astra_jax.errors import InputError
from astra_jax.machine import processes
from astra_jax.runs.checkpoints import KEEP_LATEST, Checkpoints
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics, History
from astra_jax.training.trainer import TrainState


@dataclass(frozen=True, slots=True, kw_only=True)
class SavePolicy(Record):
    """How often a run is saved. Not a part of its recipe: it changes no result.

    Attributes:
        checkpoint_every: steps between two checkpoints inside an epoch; None saves at the end of
            every epoch only, where every policy does.
        keep: how many of the newest checkpoints stay; the best one is kept beside them.
    """

    checkpoint_every: int | None = None
    keep: int = KEEP_LATEST

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        self._require("keep", self.keep > 0, "positive")
        if self.checkpoint_every is not None:
            self._require("checkpoint_every", self.checkpoint_every > 0, "positive")

    def steps_until_due(self, step: int) -> int | None:
        """Returns the steps from `step` to the next checkpoint inside an epoch, if there is one."""
        every = self.checkpoint_every
        return None if every is None else every - step % every


class Training(NamedTuple):
    """Where a training stands.

    Attributes:
        state: what the steps change.
        history: what they have told.
    """

    state: TrainState
    history: History


class Saver:
    """The checkpoints of a run: the newest, and the best apart. Use as a context manager.

    Metrics are written before the checkpoint of their epoch and cut back to it on resuming, so a
    run that ends between the two neither loses nor doubles a line. The newest checkpoint is never
    followed by another before the best one of its epoch is whole.
    """

    def __init__(self, run: Run, policy: SavePolicy):
        """Opens the run's folders of checkpoints."""
        self.run, self.policy = run, policy
        self._newest = Checkpoints(run.checkpoints, policy.keep)
        self._best = Checkpoints(run.best, 1)
        self._saved_step: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._newest.__exit__(kind, error, trace)
        finally:
            self._best.__exit__(kind, error, trace)

    def restore(self, like: TrainState) -> Training | None:
        """Returns where the run stands; None where it has not begun.

        Args:
            like: a state, or its shapes and types.

        Raises:
            InputError: the newest checkpoint cannot be read, or it is not of this run as it is;
                or the run has been trained, and its checkpoints are gone.
        """
        if self._newest.latest_step is None:
            self._require_unbegun()
            self._best.remove_after(-1)
            self._write_metrics(History())
            return None
        training = read_training(self.run, self._newest, like)
        step = int(training.state.step)
        self._best.remove_after(step)
        self._saved_step = step
        self._write_metrics(training.history)
        best = training.history.best
        if best and best.step == step != self._best.latest_step:
            self._save(self._best, step, training)
        return training

    def save(self, step: int, training: Training) -> None:
        """Saves the newest state, inside an epoch or at its end; raises `StorageError`."""
        if step == self._saved_step:
            return
        self._best.wait()
        self._save(self._newest, step, training)
        self._saved_step = step

    def finish(self, epoch: EpochMetrics, training: Training) -> None:
        """Saves the end of an epoch, with its metrics; raises `StorageError`."""
        self._newest.wait()
        self._write_metrics(training.history)
        self.save(epoch.step, training)
        if training.history.best == epoch:
            if jax.process_count() > 1:  # Orbax's processes meet in one place for both folders.
                self._newest.wait()
            self._save(self._best, epoch.step, training)

    def _require_unbegun(self) -> None:
        # An epoch's line may be there before its checkpoint is, those of several may not.
        if len(told := self.run.metrics()) > 1:
            raise InputError(
                f"{self.run.folder} has the metrics of {len(told)} epochs and no checkpoint to go "
                "on from: put its checkpoints back, or begin another run"
            )

    def _write_metrics(self, history: History) -> None:
        if processes.is_primary():
            self.run.write_metrics(list(history.epochs))

    def _save(self, checkpoints: Checkpoints, step: int, training: Training) -> None:
        record = self.run.identity() | {"history": training.history.to_dict()}
        checkpoints.save(step, _fields(training.state), record)


def read_training(run: Run, checkpoints: Checkpoints, like: TrainState) -> Training:
    """Returns what the newest of some checkpoints of a run holds.

    Raises:
        InputError: it cannot be read, or the run's files are no longer those that it was
            trained with.
    """
    fields, record = checkpoints.restore(_fields(like))
    try:
        differences, history = run.differences(record), History.from_dict(record["history"])
    except (KeyError, TypeError) as error:  # A stranger's: a sha256 is made by whoever writes.
        raise InputError(
            f"checkpoint {checkpoints.latest_step} in {checkpoints.folder} has a record that is "
            f"not a run's ({type(error).__name__}: {error})"
        ) from error
    if differences:
        raise InputError(
            f"{run.folder} is not as it was when checkpoint {checkpoints.latest_step} was written: "
            f"{'; '.join(differences)}; put it back, or begin another run"
        )
    return Training(TrainState(**fields), history)


def _fields(state: TrainState) -> dict[str, Any]:
    """Returns what a state has, by name.

    Orbax has no place for what is None, and so earlier checkpoints are read that have no field of
    that name.
    """
    return {name: value for name, value in state._asdict().items() if value is not None}
