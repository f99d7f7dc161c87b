"""Tests of run folders: made whole, read again, refused where damaged or taken."""

import dataclasses
import errno
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astra_jax.config import LATER, Preset
from astra_jax.data.corpus import PUBLISHED, CorpusRecord
from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments.groups import Group, seeded
from astra_jax.presets import CUSTOM_NAMES, PRESETS, override
from astra_jax.published import is_published_setup
from astra_jax.runs import folder
from astra_jax.runs.checkpoints import Checkpoints
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics

ALPHA = PRESETS["shakespeare", "alpha"]
VOCABULARY = published_vocabulary("shakespeare")
CORPUS = CorpusRecord(
    name="Tiny Shakespeare",
    origin="cache",
    path=None,
    sha256=PUBLISHED["shakespeare"].sha256,
    characters=1_115_394,
)
METRICS = EpochMetrics(
    epoch=1,
    step=200,
    learning_rate=3e-3,
    train_loss_nats=2.25,
    val_estimate_nats=1.875,
    val_loss_nats=1.90000001,
    grad_norm=0.5,
    chars_per_s=1e6,
    train_seconds=1.5,
    eval_seconds=0.25,
)
LINE = json.dumps(METRICS.to_dict()).encode()


def create(
    folder: Path | None,
    preset: Preset = ALPHA,
    vocabulary: Vocabulary = VOCABULARY,
    corpus: CorpusRecord = CORPUS,
) -> Run:
    return Run.create(folder, preset, vocabulary, corpus)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Returns every file's bytes, and None for a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("existing", [True, False])
def test_run_is_opened_as_it_was_made(tmp_path: Path, existing: bool) -> None:
    folder = tmp_path / "deep" / "run"
    if existing:
        folder.mkdir(parents=True)
    preset = override(PRESETS["names", "beta"], seed=7, hidden_dim=3, vocab_size=4)
    made = create(
        folder, preset, Vocabulary.of_words(["bé"]), dataclasses.replace(CORPUS, name="é")
    )
    assert Run.open(folder) == made
    assert sorted(contents(tmp_path)) == [
        "deep",
        "deep/run",
        "deep/run/config.json",
        "deep/run/vocabulary.json",
    ]
    assert (made.folder, made.preset, made.corpus.name) == (folder, preset, "é")
    assert made.environment["jax"]
    assert made.checkpoints == folder / "checkpoints"
    assert made.metrics() == []


def test_a_record_from_before_a_field_came_is_of_a_run_without_it(tmp_path: Path) -> None:
    preset = PRESETS["names", "alpha"]
    vocabulary = published_vocabulary("names")
    run = create(tmp_path / "old", preset, vocabulary)
    record = run.identity()
    for field in LATER["DataConfig"]:
        del record["preset"]["data"][field]
    assert run.differences(record) == []
    changed = create(tmp_path / "new", override(preset, start_token=True), vocabulary)
    assert changed.differences(record) == ["start_token was False, now True"]


def test_run_describes_itself_in_one_line(tmp_path: Path) -> None:
    assert create(tmp_path).describe() == (
        "Astra-α: 86,913 parameters, on Tiny Shakespeare (cache), 65 classes"
    )


def test_run_is_never_made_where_one_is(tmp_path: Path) -> None:
    create(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError) as error:
        create(tmp_path, PRESETS["shakespeare", "beta"])
    assert str(error.value) == (
        f"{tmp_path} already holds a run: choose another folder, or go on with that run by "
        f"scripts/train.py --resume {tmp_path}"
    )
    assert contents(tmp_path) == before


def test_run_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError) as error:
        create(tmp_path)
    assert str(error.value) == f"{tmp_path} is not empty: choose another folder"
    assert contents(tmp_path) == {"thesis.txt": b"do not touch"}


def test_run_is_not_made_in_a_file_or_below_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("data")
    with pytest.raises(InputError) as error:
        create(path)
    assert str(error.value) == f"{path} is a file: choose a new folder"
    with pytest.raises(InputError) as error:
        create(path / "run")
    assert str(error.value) == f"cannot make the folder {path / 'run'}: Not a directory"
    assert contents(tmp_path) == {"file": b"data"}


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?", "a\\b", os.fsdecode(b"a\xff")])
def test_a_folder_that_checkpoints_are_not_found_in_is_refused(name: str, tmp_path: Path) -> None:
    what = name[1] if name.isprintable() else "bytes that are not UTF-8"
    with pytest.raises(InputError, match=re.escape(f"under a name with {what} in it")):
        create(tmp_path / name / "run")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=re.escape(what)):  # A run may have been moved there.
        Checkpoints(tmp_path / name, keep=1)
    Checkpoints(tmp_path / name)


def test_a_run_that_cannot_be_made_leaves_a_folder_to_begin_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folder.write_text

    def fill_up(path: Path, *rest: Any, **more: Any) -> None:
        if path == tmp_path / "seed-1" / "vocabulary.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *rest, **more)

    vocabulary, corpus = published_vocabulary("shakespeare"), CorpusRecord.unknown("x")
    group = tmp_path, seeded(ALPHA, 3), vocabulary, corpus
    monkeypatch.setattr(folder, "write_text", fill_up)
    with pytest.raises(InputError, match="No space left"):
        Group.create(*group)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert Group.open(Group.create(*group).folder).runs


def test_runs_that_are_a_link_to_nowhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to("/nowhere/runs")
    with pytest.raises(InputError, match="runs is a link to nothing: choose"):
        create(None)


def test_runs_without_a_folder_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = PRESETS["names", "gamma"]
    (tmp_path / "runs" / "shakespeare-alpha-2").mkdir(parents=True)  # Somebody's, though empty.
    made = [
        create(None),
        create(None),
        create(None, names, published_vocabulary("names")),
        create(None, override(ALPHA, hidden_dim=3)),
    ]
    assert [str(run.folder) for run in made] == [
        "runs/shakespeare-alpha-1",
        "runs/shakespeare-alpha-3",
        "runs/names-gamma-1",
        "runs/shakespeare-custom-1",
    ]
    assert all(Run.open(tmp_path / run.folder).preset == run.preset for run in made)


def edit_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        change(values)
        (folder / "config.json").write_text(json.dumps(values))

    return edit


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_config(lambda c: c.pop("corpus")), "config.json: CorpusRecord must be a JSON object"),
        (edit_config(lambda c: c["corpus"].update(sha256=5)), "config.json: sha256 must be text"),
        (lambda folder: (folder / "config.json").unlink(), "is not a run folder: it has no config"),
        (write("config.json", b"{"), "config.json is not valid JSON: .* line 1 column 2"),
        (write("config.json", b"\xff"), "config.json is not valid JSON: .* byte 0xff"),
        (write("config.json", b"[]"), "config.json is not of format 1, which this version reads"),
        (edit_config(lambda c: c.update(format=2)), "config.json is not of format 1"),
        (edit_config(lambda c: c.pop("preset")), "Preset must be a JSON object, got None"),
        (edit_config(lambda c: c["preset"].pop("train")), r"Preset: missing fields \['train'\]"),
        (edit_config(lambda c: c["preset"]["model"].update(hidden_dim="8")), "hidden_dim must be "),
        (
            edit_config(lambda c: c["preset"]["model"].update(vocab_size=64)),
            "vocabulary.json of 65 tokens and config.json of vocab_size 64 are not of one run",
        ),
        (
            lambda folder: (folder / "vocabulary.json").unlink(),
            "vocabulary.json cannot be read: No such file or directory",
        ),
        (write("vocabulary.json", b'{"tokens": ['), "vocabulary.json is not valid JSON"),
        (write("vocabulary.json", b"{}"), "a vocabulary must be an object of tokens"),
    ],
)
def test_damaged_run_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    create(tmp_path)
    damage(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        Run.open(tmp_path)
    assert contents(tmp_path) == before


def test_metrics_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = create(tmp_path)
    second = dataclasses.replace(METRICS, epoch=2, step=400, train_loss_nats=1 / 3)
    run.write_metrics([METRICS])
    run.write_metrics([METRICS, second])
    assert run.metrics() == Run.open(tmp_path).metrics() == [METRICS, second]
    lines = (tmp_path / "metrics.jsonl").read_text().split("\n")
    assert [json.loads(line) for line in lines[:2]] == [
        METRICS.to_dict(),
        dataclasses.asdict(second),
    ]
    assert lines[2:] == [""]


def test_metrics_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.write_metrics([METRICS])
    with pytest.raises(ValueError, match="grad_norm must be a finite number, got nan"):
        run.write_metrics([dataclasses.replace(METRICS, grad_norm=math.nan)])
    assert run.metrics() == [METRICS]


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", '{"epoch": 1}', json.dumps(METRICS.to_dict() | {"more": 1})],
)
def test_damaged_metrics_are_refused(tmp_path: Path, line: str) -> None:
    run = create(tmp_path)
    run.write_metrics([METRICS])
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged: "):
        run.metrics()


@pytest.mark.parametrize("line", [b"\xff", LINE.replace(b"2.25", b'"low"')])
def test_metrics_of_no_use_are_refused(tmp_path: Path, line: bytes) -> None:
    run = create(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(line + b"\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged: "):
        run.metrics()


def _published(run: Run) -> bool:
    return is_published_setup(run.preset, run.corpus)


def test_run_is_the_studies_own_only_with_their_model_recipe_and_corpus(tmp_path: Path) -> None:
    run = create(tmp_path)
    assert _published(run)
    assert _published(dataclasses.replace(run, preset=override(ALPHA, seed=5)))
    for fields in (
        dict(epochs=9),
        dict(steps_per_epoch=199),
        dict(batch_size=63),
        dict(dropout=0.0),
        dict(learning_rate=2e-3),
        dict(dtype="float64"),
        dict(train_fraction=0.8),
        dict(hidden_dim=129),
        dict(vocab_size=64),
    ):
        assert not is_published_setup(override(ALPHA, **fields), run.corpus)
    custom = dataclasses.replace(ALPHA, **CUSTOM_NAMES["shakespeare"])
    assert not _published(dataclasses.replace(run, preset=custom))
    for sha256 in ("0" * 64, None):
        unpublished = dataclasses.replace(CORPUS, sha256=sha256)
        assert not _published(dataclasses.replace(run, corpus=unpublished))


def test_run_on_the_builtin_text_knows_it(tmp_path: Path) -> None:
    run = create(tmp_path)
    assert not run.uses_builtin_text
    assert dataclasses.replace(
        run, corpus=dataclasses.replace(CORPUS, origin="built-in")
    ).uses_builtin_text
