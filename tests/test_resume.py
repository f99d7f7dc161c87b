"""A run that is interrupted, saved, or broken anywhere: what it leaves, and how it goes on."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from astra_jax.config import Preset
from astra_jax.data.datasets import Dataset
from astra_jax.errors import DivergedError, InputError, StoppedError, StorageError
from astra_jax.experiments import lifecycle, restoring
from astra_jax.losses import IGNORE
from astra_jax.model import GRULanguageModel
from astra_jax.presets import override
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochSoFar
from astra_jax.storage.locks import locked
from astra_jax.training import fitting, pace
from astra_jax.training.options import FitOptions
from astra_jax.training.progress import Snapshot
from astra_jax.training.saving import SavePolicy
from astra_jax.training.trainer import Keys
from astra_torch import conversion
from tests.commands import call
from tests.kill_runs import kill_runs
from tests.trainings import TEXT, WORDS, Begin, Silent, Train, final_params, without_times


class Signal(Silent):
    """Sends a signal to this process when a training has done so many steps of an epoch."""

    def __init__(self, number: int, epoch: int, step: int):
        super().__init__()
        self.number, self.place = number, (epoch, step)

    def steps(self, snapshot: Snapshot) -> None:
        if (snapshot.epoch, snapshot.step) >= self.place:
            self.place = (10**9, 0)
            signal.raise_signal(self.number)


@pytest.fixture(autouse=True)
def _short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace.Pace, "steps", lambda self, remaining: min(2, remaining))


def every(steps: int, keep: int = 2) -> FitOptions:
    return FitOptions(saving=SavePolicy(checkpoint_every=steps, keep=keep))


def assert_same_end(run: Run, whole: Run) -> None:
    assert without_times(run.metrics()) == without_times(whole.metrics())
    one, other = (restoring.restore_state(each) for each in (run, whole))
    assert int(one.step) == int(other.step)
    for left, right in zip(final_params(run), final_params(whole), strict=True):
        assert left.dtype == ("float64" if run.preset.train.dtype == "float64" else "float32")
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize(
    "preset",
    [
        TEXT,
        override(WORDS, optimizer="adam", dtype="float64", layer_norm=False),
        override(
            TEXT, carry_state=True, schedule="cosine-by-step", warmup_steps=3, decay="matrices"
        ),
    ],
    ids=["adamw-cosine-clip", "adam-words-float64", "carried-by-step"],
)
def test_a_run_stopped_inside_each_epoch_ends_as_the_uninterrupted_run_to_the_bit(
    preset: Preset, begin: Begin, train: Train
):
    whole = train(preset, "whole")
    run, split = begin(preset, "parts")
    for number, epoch, step in ((signal.SIGTERM, 1, 4), (signal.SIGINT, 2, 2)):
        with pytest.raises(StoppedError) as error:
            fitting.fit(run, split, Signal(number, epoch, step))
        assert error.value.number == number
        assert 0 < error.value.step % 7 < 7
        assert error.value.step == int(restoring.restore_state(run).step)
        assert len(run.metrics()) == epoch - 1
        run, split = lifecycle.resume(run.folder)
    fitting.fit(run, split, Silent())
    assert_same_end(run, whole)


def test_a_training_that_is_asked_to_stop_at_its_end_has_ended(begin: Begin, train: Train):
    whole = train(TEXT, "whole")
    run, split = begin(TEXT, "asked")
    fitting.fit(run, split, Signal(signal.SIGTERM, 2, 7))
    assert_same_end(run, whole)


def test_a_run_that_dies_without_a_word_goes_on_from_its_newest_checkpoint(
    begin: Begin, train: Train, monkeypatch: pytest.MonkeyPatch
):
    whole = train(TEXT, "whole")
    run, split = begin(TEXT, "parts")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    # After the line of an epoch is written and before its checkpoint is, and then inside one.
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("astra_jax.training.saving.Saver.save", die)
        fitting.fit(run, split, Silent())
    assert len(run.metrics()) == 1
    mid_epoch = Silent()
    mid_epoch.steps = lambda snapshot: die() if snapshot.step == 6 else None
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(run, split, mid_epoch, every(3))
    assert run.metrics() == []
    (run.folder / "metrics.jsonl").write_text("damaged")  # A checkpoint has its lines as well.
    assert int(restoring.restore_state(run).step) == 3
    fitting.fit(*lifecycle.resume(run.folder), Silent())
    assert_same_end(run, whole)


def test_the_best_checkpoint_is_kept_apart(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    losses = iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(fitting._Loop, "_evaluate", lambda *_: [(0.0, next(losses))])
    run, split = begin(override(TEXT, epochs=4))
    fitting.fit(run, split, Silent(), every(5, keep=1))
    kept = {
        folder: {path.name for path in folder.iterdir()} for folder in (run.checkpoints, run.best)
    }
    assert kept == {run.checkpoints: {"28"}, run.best: {"14"}}
    newest, best = (restoring.restore_state(run, best=best) for best in (False, True))
    assert (int(newest.step), int(best.step)) == (28, 14)
    greedy = (call("sample.py", run.folder, "--greedy", *flag) for flag in ([], ["--best"]))
    assert len({result.out for result in greedy}) == 2
    assert call("sample.py", "x.pth", "--best").code == 2
    for flags, step in ([], 28), (["--best"], 14):
        card, pth = run.folder / f"{step}.json", run.folder / f"{step}.pth"
        assert call("evaluate.py", run.folder, *flags, "--batches", 3, "--json", card).code == 0
        (scores,) = json.loads(card.read_text())["subjects"][0]["runs"]
        assert (scores["step"], scores["checkpoint"]) == (step, "best" if flags else "newest")
        assert scores["evaluation"]["one_batch"]["num_batches"] == 3
        assert call("convert.py", run.folder, pth, *flags).code == 0
        optimizer = conversion.read(pth).optimizer
        assert optimizer is not None
        assert optimizer.step == step


@pytest.fixture
def two_epochs(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose second epoch is its best; of its third, if it has one, the loss is worse."""
    losses = iter([1.5, 1.0, 2.0])
    monkeypatch.setattr(fitting._Loop, "_evaluate", lambda *_: [(0.0, next(losses))])
    run, split = begin(TEXT)
    fitting.fit(run, split, Silent())
    assert [path.name for path in run.best.iterdir()] == ["14"]
    return run


def test_a_best_checkpoint_that_a_crash_left_out_is_made_up_for(two_epochs: Run):
    shutil.rmtree(two_epochs.best / "14")
    fitting.fit(*lifecycle.resume(two_epochs.folder), Silent())
    newest, best = (restoring.restore_state(two_epochs, best=best) for best in (False, True))
    assert int(best.step) == 14
    for left, right in zip(jax.tree.leaves(newest), jax.tree.leaves(best), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def test_a_run_that_goes_back_forgets_the_best_of_what_it_left(two_epochs: Run):
    shutil.rmtree(two_epochs.checkpoints / "14")
    fitting.fit(*lifecycle.resume(two_epochs.folder), Silent())
    assert [line.val_loss_nats for line in two_epochs.metrics()] == [1.5, 2.0]
    assert [path.name for path in two_epochs.best.iterdir()] == ["7"]


def test_a_run_whose_checkpoints_are_gone_is_left_as_it_is(two_epochs: Run):
    shutil.rmtree(two_epochs.checkpoints)
    before = two_epochs.metrics()
    with pytest.raises(InputError, match="metrics of 2 epochs and no checkpoint"):
        fitting.fit(*lifecycle.resume(two_epochs.folder), Silent())
    assert two_epochs.metrics() == before
    assert [path.name for path in two_epochs.best.iterdir()] == ["14"]


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    run, split = begin(override(TEXT, epochs=1))
    fitting.fit(run, split, Silent())
    shutil.rmtree(run.checkpoints)  # Its metrics had been written, and best is not of this time.
    fitting.fit(*lifecycle.resume(run.folder), Silent())
    assert [path.name for path in run.best.iterdir()] == ["7"]
    assert len(run.metrics()) == 1


def batch_losses(model: GRULanguageModel, data: Dataset, rows: Any) -> list[np.ndarray]:
    """Returns, by NumPy, the losses of each batch's targets that count."""
    found = []
    for row in np.asarray(rows):
        batch = data.batch(jnp.asarray(row))
        targets, logits = np.asarray(batch.targets), np.asarray(model(batch.inputs)[0])
        counted = np.nonzero(targets != IGNORE)
        found.append(-log_softmax(np.float64(logits), -1)[*counted, targets[counted]])
    return found


@pytest.mark.parametrize("preset", [TEXT, WORDS], ids=["text", "words"])
def test_an_epochs_line_is_what_its_steps_and_batches_say(
    preset: Preset, begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    told: list[tuple[np.ndarray, np.ndarray, float]] = []
    add = EpochSoFar.add

    def spy(so_far: EpochSoFar, losses: np.ndarray, norms: np.ndarray, seconds: float = 0.0):
        told.append((losses, norms, seconds))
        return add(so_far, losses, norms, seconds)

    monkeypatch.setattr(EpochSoFar, "add", spy)
    run, split = begin(override(preset, epochs=1))
    fitting.fit(run, split, Silent())
    (line,) = run.metrics()
    losses, norms = (np.concatenate([part[place] for part in told]) for place in (0, 1))
    assert len(losses) == line.step == 7
    assert line.train_loss_nats == pytest.approx(losses.mean(dtype=np.float64), rel=1e-12)
    assert line.grad_norm == pytest.approx(norms.mean(dtype=np.float64), rel=1e-12)
    seconds = sum(part[2] for part in told)
    assert line.chars_per_s == pytest.approx(7 * 4 * 16 / seconds, rel=1e-3)

    model, data = restoring.restore_model(run), split.validation

    key = jax.random.fold_in(Keys.from_seed(0).validation, 0)
    every = batch_losses(model, data, data.cover_rows())
    estimate = batch_losses(model, data, data.estimate_rows(key))
    assert line.val_loss_nats == pytest.approx(np.concatenate(every).mean(), rel=1e-5)
    assert line.val_estimate_nats == pytest.approx(np.mean([b.mean() for b in estimate]), rel=1e-5)
    assert abs(line.val_loss_nats - line.val_estimate_nats) > 1e-4 * line.val_loss_nats


def edit(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_run_whose_recipe_or_corpus_was_changed_is_refused(train: Train):
    run = train(override(TEXT, epochs=1))
    with pytest.raises(
        InputError, match=r"epochs was 1, now 2; learning_rate was 0.002, now 0.1; leave"
    ):
        lifecycle.resume(run.folder, expected=dict(epochs=2, learning_rate=0.1, dropout=0.1))
    before = (run.folder / "config.json").read_text()
    edit(run.folder / "config.json", lambda c: c["preset"]["train"].update(epochs=2, seed=5))
    with pytest.raises(InputError, match=r"not as it was .* 7 .*: epochs was 1, now 2; seed was 0"):
        fitting.fit(*lifecycle.resume(run.folder), Silent())
    (run.folder / "config.json").write_text(before)
    edit(run.folder / "vocabulary.json", lambda v: v["tokens"].reverse())
    with pytest.raises(InputError, match="vocabulary_sha256 was"):
        restoring.restore_model(Run.open(run.folder))


def test_two_processes_do_not_train_one_run(begin: Begin):
    run, split = begin(TEXT)
    (run.folder / ".lock").write_text("process 1 on a machine that was switched off\n")
    holder = f"in use by process {os.getpid()} on {socket.gethostname()}: wait"
    with locked(run.folder), pytest.raises(InputError, match=holder):
        fitting.fit(run, split, Silent())
    fitting.fit(run, split, Silent())


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_good_one(
    begin: Begin, train: Train, monkeypatch: pytest.MonkeyPatch
):
    whole = train(TEXT, "whole")
    run, split = begin(TEXT, "full disk")
    usage = shutil.disk_usage

    def fill_up(folder: Path) -> Any:
        full = folder == run.checkpoints and (folder / "7").exists()
        return usage(folder)._replace(free=100) if full else usage(folder)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", fill_up)
        with pytest.raises(StorageError, match=r"no space left: .*last good one is of step 7"):
            fitting.fit(run, split, Silent())
    fitting.fit(*lifecycle.resume(run.folder), Silent())
    assert_same_end(run, whole)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_training_that_diverges_stops_before_the_step_and_names_the_tensor(
    steps: int, begin: Begin
):
    fields = dict(learning_rate=1e38, clip=None, steps_per_epoch=steps, schedule="constant")
    run, split = begin(override(TEXT, **fields))
    with pytest.raises(DivergedError) as error:
        fitting.fit(run, split, Silent(), every(1))
    # The first update is finite and as large as a float32 can be; what it leads to is not.
    if steps == 1:
        assert str(error.value).startswith("the validation loss is ")
    else:
        assert re.match(
            r"at step 2, \d+ of \d+ values of the hidden states .* \(NaN\)", str(error.value)
        )
        assert int(restoring.restore_state(run).step) == 1
        assert all(np.isfinite(leaf).all() for leaf in final_params(run))


@pytest.mark.parametrize("devices", [1, 2])
def test_debug_nans_finds_the_operation(begin: Begin, devices: int):
    run, split = begin(override(TEXT, learning_rate=1e38, clip=None, schedule="constant"))
    options = FitOptions(debug_nans=True, devices=devices)
    with pytest.raises(DivergedError, match=r"invalid value .* at projection\.py:\d+ `"):
        fitting.fit(run, split, Silent(), options)


def test_sums_do_not_depend_on_where_they_were_interrupted():
    values = np.random.default_rng(0).lognormal(0, 9, (2, 1000)).astype(np.float32)
    whole = EpochSoFar().add(*values)
    parts = EpochSoFar()
    for part in np.array_split(values, [1, 17, 400], axis=1):
        parts = parts.add(*part)
    assert whole == parts


def in_this_process(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    _, script, *flags = command
    code, out, err = call(Path(script).name, *flags)
    return subprocess.CompletedProcess(command, code, out, err)


def test_runs_that_are_killed_end_as_those_that_are_not():
    # What is killed needs a process of its own; what it is held against is compiled as that is.
    outcomes = kill_runs(1, seed=0, recipes=["adam"], run_whole=in_this_process)
    assert [outcome["differences"] for outcome in outcomes] == [[]]
    assert [outcome["moment"] for outcome in outcomes] != ["after its end"]
