"""`scripts/validate.py` as a user runs it: tables, JSON, exit codes, nothing overwritten."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astra_jax.data.corpus import BUILTIN, load_corpus
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS, override
from astra_jax.storage.hashing import hash_arrays
from astra_jax.storage.marked_pages import BEGIN, END
from astra_torch import conversion
from astra_torch.parity.cases import random_arrays
from astra_torch.parity.certificate import Certificate
from astra_torch.parity.report import write_report
from astra_torch.parity.validation import choose_stages, subject_of_files
from astra_torch.trained_model import TrainedModel
from tests.commands import Result, call

SMALL = dict(embedding_dim=6, hidden_dim=8, num_layers=2)


def validate(*flags: object) -> Result:
    return call("validate.py", *flags)


pytestmark = pytest.mark.usefixtures("compiled_in_haste")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text("\n".join(load_corpus("names", BUILTIN).text.split("\n")[:200]))
    return path


def trained(corpus: Path, seed: int = 0) -> TrainedModel:
    text = load_corpus("names", str(corpus))
    vocabulary = conversion.corpus_vocabulary(text.text, "names")
    preset = override(PRESETS["names", "beta"], vocab_size=len(vocabulary), **SMALL)
    arrays = random_arrays(preset, seed)
    return TrainedModel(arrays=arrays, preset=preset, vocabulary=vocabulary, corpus=text.record)


@pytest.fixture(scope="module")
def files(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder and a .pth of the same weights."""
    folder = tmp_path_factory.mktemp("weights")
    model = trained(corpus)
    conversion.write(model, folder / "run")
    conversion.write(model, folder / "model.pth")
    return folder / "run", folder / "model.pth"


def test_an_import_that_is_stopped_leaves_no_run_behind(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "import_state", stopped)
    with pytest.raises(KeyboardInterrupt):
        conversion.write(trained(corpus), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def certified(files, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What a run over all levels printed, and its certificate."""
    path = tmp_path_factory.mktemp("certificates") / "names-small.json"
    flags = ("--corpus", corpus, "--characters", 500, "--steps", 3, "--json", path)
    return validate("--weights", *files, *flags), path


def test_a_certificate_of_all_levels(certified, corpus: Path):
    done, path = certified
    assert done.code == 0, done.err
    assert "all within bounds" in done.out
    values = json.loads(path.read_text())
    assert values["ok"] is True
    assert set(values["levels"]) == {"logits", "gradients", "training", "onnx"}
    assert set(values["levels"]["training"]) == {"float64", "float32"}
    assert values["levels"]["training"]["float32"]["drift"]["step"] == [1, 2, 3]
    assert len(values["texts"]) == 8
    assert values["weights"]["logits"]["sha256"] == hash_arrays(trained(corpus).arrays)
    assert values["environment"]["torch"].startswith(torch.__version__)
    assert str(path.parent.parent) not in path.read_text()


def test_a_report_stands_between_its_marks_and_replaces_itself(certified, tmp_path: Path):
    _, path = certified
    with pytest.raises(InputError, match="holds no certificate"):
        write_report(tmp_path)
    shutil.copy(path, tmp_path)
    with pytest.raises(InputError, match="must have the lines"):
        write_report(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_report(tmp_path)
    first = readme.read_text()
    assert first.startswith("before\n")
    assert first.endswith("after\n")
    assert "old" not in first
    assert "(names-small.json) | training | 3 |" in first
    assert (tmp_path / "drift.png").stat().st_size > 10_000
    write_report(tmp_path)
    assert readme.read_text() == first


def test_a_pair_that_is_not_one_is_out_of_bound(files, corpus: Path, tmp_path: Path):
    # One weight of a million differs in its last place.
    run, _ = files
    model = trained(corpus)
    weight = model.arrays["gru_layer_2.grucell.Wh.weight"]
    weight[3, 4] = np.nextafter(weight[3, 4], np.float32(9))
    conversion.write(model, tmp_path / "other.pth")
    flags = ("--weights", run, tmp_path / "other.pth", "--corpus", corpus, "--level", "logits")
    done = validate(*flags, "--json", tmp_path / "x.json")
    assert done.code == 1
    assert "weights gru_layer_2.grucell.Wh.weight, step 1: off by" in done.out
    assert "NOT all within bounds" in done.out
    assert json.loads((tmp_path / "x.json").read_text())["ok"] is False


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", 1), "--steps must be at least 2, got 1"),
        (("--characters", -1), "--characters must be at least 1, got -1"),
        (("--level", "onnx", "--dtype", "float64"), "leave out --dtype float64"),
        (("--level", "depth"), "--level"),
        (("--model", "omega"), "unknown model 'omega'"),
        (("--weights", "nothing.pth"), "there is no file nothing.pth"),
        (("--weights", "a.pth", "--model", "beta"), "leave out --model"),
        (("--json", "no/such/folder/x.json"), "cannot write no/such/folder/x.json"),
        (("--weights", "--level", "logits"), "--weights takes one or two models, got 0"),
        (("--steps", 2001), "the training has 2000 steps"),
        (("--json", "README.md"), "README.md exists already"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(flags, message: str):
    done = validate(*flags)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("error: ") == 1
    assert done.err.splitlines()[-1].startswith("error: ")


def test_different_models_and_texts_are_refused(files, corpus: Path, tmp_path: Path):
    run, pth = files
    other = tmp_path / "other.pth"
    model = trained(corpus)
    small = override(model.preset, hidden_dim=5)
    conversion.write(
        TrainedModel(
            arrays=random_arrays(small),
            preset=small,
            vocabulary=model.vocabulary,
            corpus=model.corpus,
        ),
        other,
    )
    with pytest.raises(InputError, match="differ in the names or shapes"):
        subject_of_files([pth, other], str(corpus))
    with pytest.raises(InputError, match="takes one or two"):
        subject_of_files([run, pth, other], str(corpus))
    (tmp_path / "abc.txt").write_text("abc\nbca\nabc\ncab\nbac\n")
    with pytest.raises(InputError, match="other characters"):
        subject_of_files([run], str(tmp_path / "abc.txt"))


def certificate(**changes: Any) -> Certificate:
    preset = PRESETS["names", "alpha"]
    corpus = load_corpus("names", BUILTIN).record
    return Certificate(**{**dict(preset=preset, corpus=corpus, weights={}, levels={}), **changes})


def test_a_model_of_a_recipe_that_pytorch_does_not_know_is_compared_without_its_training(
    corpus: Path, tmp_path: Path
):
    model = trained(corpus)
    for name, fields in {
        "tuned": dict(schedule="cosine-by-step", warmup_steps=2, decay="matrices"),
        "outputs": dict(dropout_on="outputs"),
    }.items():
        changed = dataclasses.replace(model, preset=override(model.preset, **fields))
        conversion.write(changed, tmp_path / name)
    flags = ("--corpus", corpus, "--characters", 200, "--dtype", "float64")

    def level(weights: str, name: str) -> Result:
        return validate("--weights", tmp_path / weights, *flags, "--level", name)

    for name in ("logits", "gradients", "texts"):
        done = level("tuned", name)
        assert done.code == 0, done.err
    for weights, name, message in (
        ("tuned", "training", "which knows no schedule cosine-by-step, warmup_steps 2, decay"),
        ("outputs", "logits", "this model drops outputs"),
    ):
        done = level(weights, name)
        assert done.code == 2
        assert message in done.err
        assert "comparing" not in done.err


def test_nothing_compared_is_no_agreement():
    assert not certificate().ok
    assert not certificate(levels={"logits": {}}).ok


def test_onnx_needs_float32():
    assert "onnx" in choose_stages("all", ["float64", "float32"])
    assert "onnx" not in choose_stages("all", ["float64"])
