"""Tests of TensorBoard's event files, which are read back as TensorBoard reads them."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from astra_jax.experiments import lifecycle
from astra_jax.report.tensorboard import FOLDER, TensorBoardProgress
from astra_jax.runs.folder import Run
from astra_jax.training import fitting, pace
from astra_jax.training.progress import Several, Snapshot
from astra_jax.units import bits
from tests.commands import call
from tests.trainings import TEXT, Begin, Silent

messages: Any = event_pb2


def read_events(path: Path) -> Iterator[Any]:
    """Yields the events of a file: length, its checksum, the message, its checksum."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield messages.Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, value) by tag; a session's start removes what came later before it."""
    kept: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run.folder / FOLDER).iterdir(), key=lambda path: path.suffix):
        for event in read_events(path):
            if event.session_log.status == messages.SessionLog.START:
                for values in kept.values():
                    values[:] = [(step, value) for step, value in values if step < event.step]
            for value in event.summary.value:
                kept.setdefault(value.tag, []).append((event.step, value.simple_value))
    return kept


@pytest.fixture
def _short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace.Pace, "steps", lambda self, remaining: min(2, remaining))


class PowerCut(Silent):
    """Ends a training where nothing of the epoch's steps has been saved."""

    def steps(self, snapshot: Snapshot) -> None:
        if snapshot.epoch == 2 and snapshot.step > 3:
            raise ZeroDivisionError


def train(run: Run, split: Any, *listeners: Silent) -> None:
    with TensorBoardProgress(run.folder) as events:
        fitting.fit(run, split, Several([events, *listeners]))


@pytest.mark.usefixtures("_short_calls")
def test_events_go_on_where_an_interrupted_run_does(begin: Begin) -> None:
    run, split = begin(TEXT)
    told = Silent()
    with pytest.raises(ZeroDivisionError):
        train(run, split, told, PowerCut())
    resumed, split = lifecycle.resume(run.folder)
    train(resumed, split, told)
    read = scalars(run)
    lines = run.metrics()
    assert read["loss_nats/validation"] == [
        (line.step, pytest.approx(line.val_loss_nats)) for line in lines
    ]
    assert read["bits_per_char/train"] == [
        (line.step, pytest.approx(bits(line.train_loss_nats))) for line in lines
    ]
    assert read["learning_rate"][0] == (7, pytest.approx(lines[0].learning_rate))
    snapshots = {
        7 * (seen.epoch - 1) + seen.step: pytest.approx(seen.loss_nats)
        for seen in told.seen
        if isinstance(seen, Snapshot)
    }
    assert max(snapshots) == 14
    assert read["loss_nats/newest_batch"] == sorted(snapshots.items())


def test_train_refuses_tensorboard_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    out = tmp_path / "run"
    result = call("train.py", "--corpus", "builtin", "--out", out, "--tensorboard")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: --tensorboard needs tensorboardX")
    assert len(result.err.splitlines()) == 1
    assert not out.exists()
