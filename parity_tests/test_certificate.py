"""`scripts/validate.py` as a user runs it: tables, JSON, exit codes, nothing overwritten."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astra_jax.corpus import BUILTIN, load_corpus
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS, override
from astra_torch import conversion
from astra_torch.conversion import TrainedModel
from astra_torch.parity.cases import random_arrays
from astra_torch.parity.certificate import Certificate, hash_arrays
from astra_torch.parity.validation import choose_stages, subject_of_files

ROOT = Path(__file__).parent.parent
SMALL = dict(embedding_dim=6, hidden_dim=8, num_layers=2)


def validate(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/validate.py", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


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


def test_a_certificate_of_all_levels(files, corpus: Path, tmp_path: Path):
    path = tmp_path / "certificate.json"
    run, pth = files
    done = validate(
        *("--weights", run, pth, "--corpus", corpus, "--characters", 500, "--steps", 3),
        *("--json", path),
    )
    assert done.returncode == 0, done.stderr
    assert "all within bounds" in done.stdout
    values = json.loads(path.read_text())
    assert values["ok"] is True
    assert set(values["levels"]) == {"logits", "gradients", "training", "onnx"}
    assert set(values["levels"]["training"]) == {"float64", "float32"}
    assert len(values["texts"]) == 8
    assert values["weights"]["logits"]["sha256"] == hash_arrays(trained(corpus).arrays)
    assert values["environment"]["torch"].startswith(torch.__version__)
    assert str(tmp_path) not in path.read_text()


def test_a_pair_that_is_not_one_is_out_of_bound(files, corpus: Path, tmp_path: Path):
    # One weight of a million differs in its last place.
    run, _ = files
    model = trained(corpus)
    weight = model.arrays["gru_layer_2.grucell.Wh.weight"]
    weight[3, 4] = np.nextafter(weight[3, 4], np.float32(9))
    conversion.write(model, tmp_path / "other.pth")
    flags = ("--weights", run, tmp_path / "other.pth", "--corpus", corpus, "--level", "logits")
    done = validate(*flags, "--json", tmp_path / "x.json")
    assert done.returncode == 1
    assert "weights gru_layer_2.grucell.Wh.weight, step 1: off by" in done.stdout
    assert "NOT all within bounds" in done.stdout
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
        (("--json", "no/such/folder/x.json"), "there is no folder no/such/folder"),
        (("--json", "README.md"), "README.md exists already"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(flags, message: str):
    done = validate(*flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


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
    with pytest.raises(InputError, match="different models"):
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


def test_nothing_compared_is_no_agreement():
    assert not certificate().ok
    assert not certificate(levels={"logits": {}}).ok


def test_onnx_needs_float32():
    assert "onnx" in choose_stages("all", ["float64", "float32"])
    assert "onnx" not in choose_stages("all", ["float64"])
