"""TensorBoard's event files, for those who watch their runs there."""

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from astra_jax.errors import InputError
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.training.progress import Snapshot
from astra_jax.units import bits

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Finds out, before any work is done, whether events can be written.

    Raises:
        InputError: tensorboardX is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "--tensorboard needs tensorboardX, which is not installed: pip install "
            "'.[tensorboard]', or leave the flag out"
        )


class TensorBoardProgress:
    """Writes scalars over the optimiser steps since the run's beginning.

    Every session of a run begins a file of its own. Use as a context manager, after
    `require_tensorboard`.
    """

    def __init__(self, run_folder: Path, place: int = 0):
        """Begins a file in the run folder's own folder of events.

        Args:
            run_folder: of the run.
            place: which it is of those that are trained together.
        """
        self._place = place
        # The classes below SummaryWriter: it writes from a thread, whose failure nobody notices
        # before its queue is full and training stands still.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        folder = run_folder / FOLDER
        folder.mkdir(exist_ok=True)
        # Names have the second in them; two sessions may begin in the same one.
        earlier = sum(1 for _ in folder.iterdir())
        self._writer = EventsWriter(str(folder / "events"), f".{earlier}")
        self._messages: Any = event_pb2  # Made by protoc: no checker knows what is in it.
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def steps(self, snapshot: Snapshot) -> None:
        """Writes the newest batch's loss."""
        step = (snapshot.epoch - 1) * snapshot.steps + snapshot.step
        loss_nats = snapshot.losses_nats[self._place]
        if loss_nats is not None:
            self._write(step, {"loss_nats/newest_batch": loss_nats})

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        """Writes an epoch's line."""
        metrics = lines[self._place]
        scalars = {
            "loss_nats/train": metrics.train_loss_nats,
            "loss_nats/validation": metrics.val_loss_nats,
            "loss_nats/validation_estimate": metrics.val_estimate_nats,
            "bits_per_char/train": bits(metrics.train_loss_nats),
            "bits_per_char/validation": bits(metrics.val_loss_nats),
            "learning_rate": metrics.learning_rate,
            "grad_norm": metrics.grad_norm,
            "chars_per_s": metrics.chars_per_s,
        }
        self._write(metrics.step, scalars)

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        if not self._begun:
            # TensorBoard then forgets what an earlier session told of this step and later ones.
            log = self._messages.SessionLog(status=self._messages.SessionLog.START)
            self._writer.write_event(
                self._messages.Event(wall_time=time.time(), step=step, session_log=log)
            )
            self._begun = True
        event = self._messages.Event(wall_time=time.time(), step=step)
        for tag, value in scalars.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._writer.write_event(event)
        self._writer.flush()
