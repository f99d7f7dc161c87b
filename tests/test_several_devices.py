"""Several devices and several processes do what one does, but for the order of their sums."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from astra_jax.errors import InputError
from astra_jax.experiments import lifecycle
from astra_jax.machine import placement, processes
from astra_jax.presets import override
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.training import fitting
from astra_jax.training.options import FitOptions
from astra_jax.training.trainer import Trainer
from astra_torch.tolerances import FLOAT64
from tests.commands import SCRIPTS
from tests.trainings import TEXT, WORDS, Begin, Silent, Train, without_times

PRESET = override(TEXT, dtype="float64", batch_size=8, num_layers=1)


def assert_near(lines: list[EpochMetrics], others: list[EpochMetrics]) -> None:
    """Holds metrics to float64's rounding."""
    values, expected = (
        np.array([list(line.to_dict().values()) for line in without_times(each)])
        for each in (lines, others)
    )
    np.testing.assert_allclose(values, expected, rtol=FLOAT64, atol=0)


@pytest.mark.parametrize(
    "preset",
    [
        override(PRESET, num_layers=2, carry_state=True, decay="matrices"),
        override(WORDS, num_layers=1, dtype="float64", layer_norm=False),
    ],
    ids=["text", "words"],
)
def test_two_devices_train_as_one_does_and_hold_the_same_state(
    preset, begin: Begin, train: Train, monkeypatch: pytest.MonkeyPatch
):
    states = []
    run_steps = Trainer.run_steps

    def spy(*args: object, **kwargs: object):
        states.append(run_steps(*args, **kwargs))
        return states[-1]

    one = train(preset, "one")
    run, split = begin(preset, "two")
    monkeypatch.setattr(Trainer, "run_steps", spy)
    fitting.fit(run, split, Silent(), FitOptions(devices=2))
    assert_near(run.metrics(), one.metrics())
    for leaf in jax.tree.leaves(states[-1][0]):
        first, second = (shard.data for shard in leaf.addressable_shards)
        assert first.shape == leaf.shape
        assert np.asarray(first).tobytes() == np.asarray(second).tobytes()


def test_a_run_goes_on_on_another_number_of_devices(begin: Begin, train: Train):
    one = train(PRESET, "one")
    run, split = begin(PRESET, "parts")
    stop = Silent()
    stop.epoch = lambda lines: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(fitting.StoppedError):
        fitting.fit(run, split, stop, FitOptions(devices="all"))
    fitting.fit(*lifecycle.resume(run.folder), Silent(), FitOptions(devices=1))
    assert_near(run.metrics(), one.metrics())
    assert without_times(run.metrics()) != without_times(one.metrics())  # Two added up apart.


def test_impossible_numbers_of_devices_are_refused():
    with pytest.raises(InputError, match=r"--devices 3 is not possible: this training has 2 \(CPU"):
        placement.Placement.of(3, override(PRESET, batch_size=6))
    with pytest.raises(InputError, match="a batch of 7 cannot be shared by 2 devices"):
        placement.Placement.of("all", override(PRESET, batch_size=7))
    with pytest.raises(InputError, match="at least 0 and below --num-processes 2, got 2"):
        processes.connect("localhost:1", 2, 2)
    with pytest.raises(InputError, match="--num-processes must be at least 1, got 0"):
        processes.connect("localhost:1", 0, 0)


def command(run: Run, out: Path, *more: str) -> list[str]:
    assert run.corpus.path
    flags = "--model beta --num-layers 1 --embedding-dim 4 --hidden-dim 8 --batch-size 8"
    flags += " --seq-len 16 --epochs 2 --steps-per-epoch 7 --dtype float64 --no-compile-cache"
    flags += " --corpus"
    script = [sys.executable, str(SCRIPTS / "train.py")]
    return [*script, *flags.split(), run.corpus.path, "--out", str(out), *more]


def test_eight_devices_train_as_one_does(train: Train, tmp_path: Path):
    one = train(PRESET, "one")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run(
        command(one, tmp_path / "eight", "--devices", "8"), env=os.environ | flags, check=True
    )
    eight = Run.open(tmp_path / "eight")
    assert eight.preset == one.preset
    assert_near(eight.metrics(), one.metrics())
    assert without_times(eight.metrics()) != without_times(one.metrics())  # Eight added up apart.


def two_processes(
    run: Run, out: Path, *flags_of_second: str, epochs: int = 3, everyone: Sequence[str] = ()
) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = []
    for number in ("0", "1"):
        flags = ["--coordinator", address, "--num-processes", "2", "--process-id", number]
        flags += ["--epochs", str(epochs), "--checkpoint-every", "1"]
        flags += [*everyone, *(flags_of_second if number == "1" else ())]
        environment = os.environ | {"XLA_FLAGS": ""}
        processes.append(
            subprocess.Popen(
                command(run, out, *flags), env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    return processes


def test_two_processes_train_as_one_stop_together_and_go_on_alone(train: Train, tmp_path: Path):
    # So many epochs that the signal comes before their end, at a checkpoint every step.
    one, out = train(override(PRESET, epochs=10), "one"), tmp_path / "two"
    processes = two_processes(one, out, epochs=10)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)  # One of them is told, and both stop.
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], errors
    assert len(Run.open(out).metrics()) < 10
    fitting.fit(*lifecycle.resume(out), Silent())
    assert_near(Run.open(out).metrics(), one.metrics())


def test_a_mesh_of_other_axes_is_refused():
    for mesh in (
        jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,)),
        jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,)),
    ):
        with pytest.raises(InputError, match="expected one, data, of type Auto"):
            Trainer(PRESET, 7, mesh)
    Trainer(PRESET, 7, jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,)))


def test_what_one_process_is_refused_ends_both(begin: Begin, tmp_path: Path):
    one, _ = begin(PRESET, "one")
    for who, out, flags, message in (
        (0, one.folder, [], "already holds a run"),
        (1, tmp_path / "new", ["--backend", "none"], "unknown --backend 'none'"),
    ):
        processes = two_processes(one, out, *flags)
        errors = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [2, 2], errors
        said = [error.strip().splitlines()[-1] for error in errors]
        assert message in said[who]
        assert said[1 - who] == "error: another process cannot go on, and has said why"


def test_a_process_whose_fellow_is_killed_ends_with_one_line(begin: Begin, tmp_path: Path):
    out = tmp_path / "two"
    flags = ["--steps-per-epoch", "1000", "--checkpoint-every", "1000000", "--epochs", "100"]
    first, second = two_processes(begin(PRESET, "one")[0], out, everyone=flags)
    deadline = time.monotonic() + 60
    while not (out / "best" / "1000").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)  # By then both are in the midst of the second epoch.
    second.kill()
    error = first.communicate(timeout=60)[1]
    assert first.returncode == 2, error
    assert "another process has ended, or cannot be reached" in error.splitlines()[-1]
    assert "Traceback" not in error
    second.communicate()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning-rate", "0.1"], "recipe or corpus of process 1 is not that of process 0"),
        (["--checkpoint-every", "2"], "how it trains of process 1 is not that of process 0"),
        (["--dry-run"], "what is to be done of process 1 is not that of process 0"),
        (["--seeds", "2"], "what is to be done of process 1 is not that of process 0"),
    ],
    ids=["recipe", "options", "dry run", "seeds"],
)
def test_processes_that_were_told_different_things_are_refused(
    flags: list[str], said: str, begin: Begin, tmp_path: Path
):
    processes = two_processes(begin(PRESET, "one")[0], tmp_path / "two", *flags)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    assert all(said in error.strip().splitlines()[-1] for error in errors)


def test_a_folder_that_one_process_does_not_see_is_refused_by_both(begin: Begin, tmp_path: Path):
    processes = two_processes(begin(PRESET, "one")[0], tmp_path / "a", "--out", str(tmp_path / "b"))
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    said = [error.strip().splitlines()[-1] for error in errors]
    assert said[0] == "error: another process cannot go on, and has said why"
    assert "is not a run folder" in said[1]


@pytest.mark.parametrize(
    ("coordinator", "said"),
    [
        ("somewhere", "must be HOST:PORT of process 0, got 'somewhere'"),
        ("nowhere.invalid:1", "there is no --coordinator nowhere.invalid:1"),
        ("localhost:1", "process 0 does not answer at localhost:1"),
    ],
)
def test_a_coordinator_that_is_not_there_is_told(
    coordinator: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processes, "FINDING_SECONDS", 0.0)
    with pytest.raises(InputError, match=said):
        processes.connect(coordinator, 2, 1)


def test_what_is_brought_to_the_device_is_not_what_was_given():
    # Aligned as XLA likes it: such memory it would read in place.
    room = np.zeros(64 + 4 * 8, np.uint8)
    given = room[-room.ctypes.data % 64 :][: 4 * 8].view(np.int32)
    brought = placement.to_device({"rows": given, "nothing": None})
    given += 1
    np.testing.assert_array_equal(brought["rows"], np.zeros(8))
    assert brought["nothing"] is None
