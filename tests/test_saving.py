"""Tests of the order in which a training's checkpoints and metrics are written."""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from astra_jax.errors import StorageError
from astra_jax.runs.checkpoints import Checkpoints
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics, History
from astra_jax.training import saving
from astra_jax.training.saving import SavePolicy, Saver, Training
from astra_jax.training.trainer import Trainer
from tests.trainings import TEXT, Begin


def line(epoch: int, loss: float = 2.0) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        step=7 * epoch,
        learning_rate=0.1,
        train_loss_nats=2.0,
        val_estimate_nats=loss,
        val_loss_nats=loss,
        grad_norm=1.0,
        chars_per_s=1.0,
        train_seconds=1.0,
        eval_seconds=1.0,
    )


def training(run: Run, history: History) -> Training:
    state = Trainer(run.preset, 7).init(jax.random.key(0))
    return Training(state._replace(step=jnp.int32(7 * len(history.epochs))), history)


def test_no_newest_checkpoint_is_begun_before_the_best_is_whole(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = begin(TEXT)
    history, save = History(), Checkpoints.save
    begun: list[tuple[str, int, bool]] = []
    with Saver(run, SavePolicy()) as saver:

        def spy(self: Checkpoints, step: int, *rest: Any) -> None:
            begun.append((self.folder.name, step, saver._best._pending is None))
            save(self, step, *rest)

        monkeypatch.setattr(Checkpoints, "save", spy)
        for epoch in (1, 2, 3):  # Each the best so far.
            history = history.finish(line(epoch, 3.0 - epoch))
            saver.finish(line(epoch, 3.0 - epoch), training(run, history))
    assert begun == [
        (name, 7 * epoch, True) for epoch in (1, 2, 3) for name in ("checkpoints", "best")
    ]


def test_of_several_processes_only_one_folder_is_written_at_a_time(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax's threads would take a meeting over one of them for that over the other."""
    run, _ = begin(TEXT)
    history = History().finish(line(1))
    calls = mock.Mock()
    monkeypatch.setattr(saving, "jax", mock.Mock(process_count=lambda: 2))
    saver = Saver(run, SavePolicy())
    saver._newest, saver._best = calls.newest, calls.best
    saver.finish(line(1), training(run, history))
    assert [name for name, *_ in calls.mock_calls][-3:] == [
        "newest.save",
        "newest.wait",
        "best.save",
    ]


def test_an_epoch_is_told_only_where_the_checkpoint_before_it_is_whole(begin: Begin) -> None:
    run, _ = begin(TEXT)
    history = History().finish(line(1))
    with Saver(run, SavePolicy()) as saver:
        saver.restore(jax.eval_shape(lambda: training(run, history).state))
        saver._newest._pending = mock.Mock(result=mock.Mock(side_effect=OSError("disk full")))
        run.write_metrics(list(history.epochs))
        with pytest.raises(StorageError, match="disk full"):
            saver.finish(line(2), training(run, history.finish(line(2))))
    assert run.metrics() == [line(1)]
