"""Tests of what a person sees while a model trains."""

import io

import pytest

from astra_jax.console import Console
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.training import progress
from astra_jax.training.progress import ConsoleProgress, Snapshot
from astra_jax.units import duration

SNAPSHOT = Snapshot(
    epoch=2,
    epochs=20,
    step=17,
    steps=400,
    losses_nats=(1.23456,),
    learning_rate=9.9e-4,
    chars_per_s=123456.7,
    seconds_left=3725.0,
)
LINE = "epoch 2/20  step 17/400  loss 1.2346  lr 9.90e-04  123,457 chars/s  1 h 02 min left"
METRICS = EpochMetrics(
    epoch=2,
    step=800,
    learning_rate=9.9e-4,
    train_loss_nats=1.39471,
    val_estimate_nats=1.48502,
    val_loss_nats=1.50113,
    grad_norm=0.5,
    chars_per_s=123456.7,
    train_seconds=1.0,
    eval_seconds=1.0,
)
EPOCH_LINE = (
    "epoch   2  train 1.3947  val 1.5011  (notebook's estimate 1.4850)  lr 9.90e-04  "
    "123,457 chars/s"
)


def test_describe_tells_where_training_stands() -> None:
    assert SNAPSHOT.describe() == LINE


def test_progress_writes_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")  # A line in a log is not broken to fit a screen.
    with ConsoleProgress() as shown:
        shown.steps(SNAPSHOT)  # Too soon after the start for a line.
        shown.epoch([METRICS])
        monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
        shown.steps(SNAPSHOT)
        shown.epoch([METRICS, METRICS])
    together = capsys.readouterr()
    assert together.err == ""
    *alone, of_two = together.out.splitlines()
    assert alone == [EPOCH_LINE, LINE]
    assert of_two.endswith(" 246,913 chars/s")  # What they train on together.


def test_progress_is_live_on_a_terminal_and_keeps_the_lines_of_epochs() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150, color_system=None)
    with ConsoleProgress(console) as shown:
        shown.steps(SNAPSHOT)
        shown.epoch([METRICS])
    assert LINE in screen.getvalue()
    assert f"{EPOCH_LINE}\n" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (12.4, "12 s"),
        (59.6, "1 min 00 s"),
        (200.0, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (14_700.0, "4 h 05 min"),
        (100 * 3600.0, "100 h 00 min"),
    ],
)
def test_duration_is_rounded_to_what_a_person_reads(seconds: float, text: str) -> None:
    assert duration(seconds) == text
