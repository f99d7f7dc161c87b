"""Runs of several seeds in one program: each is what it would be alone, and all are summed up."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from astra_jax.config import Preset
from astra_jax.data import datasets, token_files
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.splits import Split
from astra_jax.data.vocabulary import published_vocabulary
from astra_jax.errors import DivergedError, InputError, StoppedError
from astra_jax.experiments import lifecycle, restoring
from astra_jax.experiments.groups import SUMMARY, Group, fit_group, seeded
from astra_jax.presets import override
from astra_jax.runs.folder import Run
from astra_jax.training import fitting, pace, replicas
from astra_jax.training.options import FitOptions
from astra_jax.training.progress import Snapshot
from astra_jax.training.saving import SavePolicy
from astra_torch.tolerances import FLOAT64
from tests.commands import call
from tests.test_resume import Signal, assert_same_end
from tests.trainings import TEXT, WORDS, Silent, final_params, without_times

SEEDS = 3
SMALL = override(TEXT, num_layers=1)
SMALL_WORDS = override(WORDS, num_layers=1)
ONE = FitOptions(devices=1)

BeginGroup = Callable[..., tuple[Group, list[Split]]]
TrainAlone = Callable[[Preset], list[Run]]


@pytest.fixture
def begin_group(corpora: dict[str, str], tmp_path: Path) -> BeginGroup:
    def begin(preset: Preset, name: str = "group", num: int = SEEDS) -> tuple[Group, list[Split]]:
        corpus = corpora[preset.data.dataset]
        return lifecycle.begin_group(preset, corpus, tmp_path / name, num)

    return begin


@pytest.fixture
def train_alone(corpora: dict[str, str], tmp_path: Path) -> TrainAlone:
    def train(preset: Preset) -> list[Run]:
        runs = []
        for seed in range(preset.train.seed, preset.train.seed + SEEDS):
            seeded, corpus = override(preset, seed=seed), corpora[preset.data.dataset]
            run, split = lifecycle.begin(seeded, corpus, tmp_path / f"alone {seed}")
            fitting.fit(run, split, Silent(), ONE)
            runs.append(run)
        return runs

    return train


@pytest.mark.parametrize(
    "preset", [override(SMALL, carry_state=True), SMALL_WORDS], ids=["text", "words"]
)
def test_every_run_is_to_the_bit_what_it_would_be_alone(
    preset: Preset, begin_group: BeginGroup, train_alone: TrainAlone
):
    preset = override(preset, seed=5)
    group, splits = begin_group(preset)
    fit_group(group, splits, Silent(), ONE)
    for run, single in zip(group.runs, train_alone(preset), strict=True):
        assert_same_end(run, single)
        best, other = (restoring.restore_state(each, best=True) for each in (run, single))
        assert int(best.step) == int(other.step)
        for name in ("config.json", "vocabulary.json"):
            assert (run.folder / name).read_bytes() == (single.folder / name).read_bytes()
    assert len({final_params(run)[0].tobytes() for run in group.runs}) == SEEDS


@pytest.mark.usefixtures("optimized")
def test_devices_share_runs_in_either_way_within_the_bound(
    begin_group: BeginGroup, train_alone: TrainAlone, monkeypatch: pytest.MonkeyPatch
):
    preset = override(SMALL_WORDS, dtype="float64", layer_norm=False, epochs=1)
    singles = train_alone(preset)
    for axis in (replicas.one_by_one, replicas.all_at_once):
        spy = mock.Mock(side_effect=axis)
        monkeypatch.setitem(replicas.DEFAULT_MAPS, "cpu", spy)
        group, splits = begin_group(preset, axis.__name__)
        fit_group(group, splits, Silent(), FitOptions(devices=2))  # One of them has an idle run.
        spy.assert_called()
        for run, single in zip(group.runs, singles, strict=True):
            assert_near(run, single)


def assert_near(run: Run, single: Run) -> None:
    values, expected = (
        np.array([list(line.to_dict().values()) for line in without_times(each.metrics())])
        for each in (run, single)
    )
    np.testing.assert_allclose(values, expected, rtol=FLOAT64, atol=0)
    for one, other in zip(final_params(run), final_params(single), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=FLOAT64 * np.abs(other).max())


def test_a_text_too_large_for_memory_is_read_for_all_runs_at_once(
    begin_group: BeginGroup, monkeypatch: pytest.MonkeyPatch
):
    preset = override(SMALL, epochs=1)
    memory, splits = begin_group(preset, "memory")
    fit_group(memory, splits, Silent(), ONE)
    monkeypatch.setattr(token_files, "LARGE_BYTES", 0)
    monkeypatch.setattr(datasets, "STAGE_TOKENS", SEEDS * 3 * 4 * 17)
    stored, splits = begin_group(preset, "stored")
    assert isinstance(splits[0].train, datasets.StoredWindows)
    fit_group(stored, splits, Silent(), ONE)
    for run, other in zip(stored.runs, memory.runs, strict=True):
        assert_same_end(run, other)


def test_a_group_stopped_inside_an_epoch_goes_on_also_where_one_run_is_behind_or_ahead(
    begin_group: BeginGroup, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pace.Pace, "steps", lambda self, remaining: min(2, remaining))
    whole, splits = begin_group(SMALL, "whole")
    fit_group(whole, splits, Silent(), ONE)
    group, splits = begin_group(SMALL, "parts")
    often = FitOptions(devices=1, saving=SavePolicy(checkpoint_every=3))
    with pytest.raises(StoppedError) as error:
        fit_group(group, splits, Signal(signal.SIGTERM, 2, 2), often)
    steps = {int(restoring.restore_state(run).step) for run in group.runs}
    assert steps == {error.value.step}
    assert 7 < error.value.step < 14
    # As if a power cut had come between two runs' checkpoints, and as if one had gone on alone.
    (newest,) = group.runs[1].checkpoints.glob(str(error.value.step))
    shutil.rmtree(newest)
    fitting.fit(*lifecycle.resume(group.runs[2].folder), Silent(), ONE)
    steps = [int(restoring.restore_state(run).step) for run in group.runs]
    assert steps[1] < steps[0] < steps[2] == 14
    told = Silent()
    resumed, splits = lifecycle.resume_group(group.folder)
    fit_group(resumed, splits, told, ONE)
    for run, other in zip(resumed.runs, whole.runs, strict=True):
        assert_same_end(run, other)
    assert resumed.summary() == whole.summary()
    waiting = [s.losses_nats[2] for s in told.seen if isinstance(s, Snapshot)]
    assert waiting
    assert set(waiting) == {None}


def test_the_summary_is_of_what_the_runs_have_told(begin_group: BeginGroup):
    group, splits = begin_group(SMALL)
    fit_group(group, splits, Silent(), ONE)
    text = (group.folder / SUMMARY).read_text()
    summary = json.loads(text)
    lines = [
        [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        for run in group.runs
    ]
    assert summary["seeds"] == [0, 1, 2]
    assert [epoch["step"] for epoch in summary["epochs"]] == [7, 14]
    for number, epoch in enumerate(summary["epochs"]):
        for name in ("train_loss_nats", "val_estimate_nats", "val_loss_nats", "grad_norm"):
            values = np.array([line[number][name] for line in lines])
            expected = [values.mean(), values.std(ddof=1), values.min(), values.max()]
            np.testing.assert_allclose(list(epoch[name].values()), expected, rtol=1e-13)
    best = [min(line["val_loss_nats"] for line in of_run) for of_run in lines]
    assert summary["best_val_loss_nats"]["mean"] == pytest.approx(np.mean(best), rel=1e-14)
    (group.folder / SUMMARY).unlink()  # A finished group makes it anew.
    fit_group(*lifecycle.resume_group(group.folder), Silent(), ONE)
    assert (group.folder / SUMMARY).read_text() == text


def test_a_group_in_which_one_run_diverges_stops_and_names_it(
    begin_group: BeginGroup, monkeypatch: pytest.MonkeyPatch
):
    group, splits = begin_group(override(SMALL, clip=None))
    run_steps = replicas.Replicas.run_steps

    def poison(self, state, *args):
        embedding = state.params["embedding"]["embedding"]
        embedding[...] = embedding[...].at[1].multiply(np.nan)
        return run_steps(self, state, *args)

    monkeypatch.setattr(replicas.Replicas, "run_steps", poison)
    with pytest.raises(DivergedError, match=r"seed-1 at step 1, .* parameter embedding"):
        fit_group(group, splits, Silent(), ONE)


def test_groups_that_make_no_sense_are_refused(
    begin_group: BeginGroup, corpora: dict[str, str], tmp_path: Path
):
    with pytest.raises(InputError, match="--seeds must be from 2 to 1024, got 1"):
        begin_group(SMALL, num=1)
    with pytest.raises(InputError, match=r"seed must be at least 0 and below 2\*\*32"):
        begin_group(override(SMALL, seed=2**32 - 2))
    assert not (tmp_path / "group").exists()
    group, splits = begin_group(SMALL, num=2)
    with pytest.raises(InputError, match=r"--devices 3 .*: 2 runs can be shared by 2 at most"):
        fit_group(group, splits, Silent(), FitOptions(devices=3))
    with pytest.raises(InputError, match="group already holds a run: choose another folder"):
        begin_group(SMALL)
    with pytest.raises(InputError, match="is a folder of runs: give one of the run folders in it"):
        Run.open(group.folder)
    with pytest.raises(InputError, match=r"learning_rate was 0.002, now 0.1"):
        lifecycle.resume_group(group.folder, expected=dict(learning_rate=0.1))
    with pytest.raises(InputError, match=r"begun on text.txt .* found words.txt"):
        lifecycle.resume_group(group.folder, corpora["names"])
    shutil.rmtree(group.runs[1].folder)
    shutil.copytree(group.runs[0].folder, group.runs[1].folder)
    with pytest.raises(InputError, match=r"seed-1 is not of the recipe of .*seed-0 with seed 1"):
        Group.open(group.folder)
    for seeds in ("[0]", "[0, 0]", '["../x", 1]', "null"):
        (group.folder / "group.json").write_text(f'{{"format": 1, "seeds": {seeds}}}')
        with pytest.raises(InputError, match=r"group\.json: seeds must be"):
            Group.open(group.folder)


def test_a_command_trains_a_group_of_whole_run_folders(corpora: dict[str, str], tmp_path: Path):
    out = tmp_path / "out"
    tiny = "--hidden-dim 8 --embedding-dim 4 --epochs 1 --steps-per-epoch 2 --batch-size 4"
    flags = [*tiny.split(), "--seq-len", 16, "--corpus", corpora["shakespeare"], "--seeds", 2]
    result = call("train.py", *flags, "--out", out, "--tensorboard")
    assert result.code == 0, result.err
    first, epoch, done = result.out.splitlines()
    assert first.endswith(f"classes, seeds 0 to 1, into {out}")
    spread = r"4\.\d{4} ± 0\.\d{4}"
    estimate = rf"\(notebook's estimate {spread}\)"
    assert re.match(rf"epoch   1  train {spread}  val {spread}  {estimate}  lr", epoch)
    assert re.match(rf"done: validation loss {spread} nats per character, of 2 seeds, all", done)
    for seed in (0, 1):
        names = {path.name for path in (out / f"seed-{seed}").iterdir()}
        assert {"best", "checkpoints", "samples.txt", "loss.png", "tensorboard"} <= names
        assert call("sample.py", out / f"seed-{seed}", "--length", 9).code == 0
    again = call("train.py", "--resume", out, "--quiet")
    assert (again.code, again.out) == (0, f"{done}\n")
    refused = call("train.py", "--resume", out, "--seeds", 2)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    dry = call("train.py", *flags, "--dry-run")
    assert "a dry run of 2 seeds: nothing is trained" in dry.out


def test_a_group_that_cannot_be_made_leaves_a_folder_to_begin_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    create = Run.create

    def fail(folder: Path, preset: Preset, *rest: object) -> Run:
        if preset.train.seed == 2:
            raise KeyboardInterrupt
        return create(folder, preset, *rest)  # pyright: ignore[reportArgumentType]

    vocabulary, corpus = published_vocabulary("shakespeare"), CorpusRecord.unknown("a test")
    what = tmp_path / "group", seeded(TEXT, 3), vocabulary, corpus
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "create", fail)
        Group.create(*what)
    assert list((tmp_path / "group").iterdir()) == []
    assert len(Group.create(*what).runs) == 3
