"""What the README shows in Python does what it says."""

import re
from pathlib import Path

import pytest

from astra_jax import Run, fit, resume
from astra_jax.presets import override
from tests.trainings import TEXT, Train

README = Path(__file__).parent.parent / "README.md"


def example(name: str) -> str:
    """Returns the block of the README that imports a public name."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
    (block,) = (b for b in blocks if re.search(rf"^from astra_jax import .*\b{name}\b", b, re.M))
    return block


def test_a_model_is_trained_from_python(
    tmp_path: Path, corpora: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text(Path(corpora["shakespeare"]).read_text())
    shorter = example("begin").replace("epochs=3", "epochs=2, steps_per_epoch=2, batch_size=2")
    exec(shorter, {})
    run = Run.open("runs/mine")
    assert run.preset.model.hidden_dim == 192
    assert [line.epoch for line in run.metrics()] == [1, 2]
    assert capsys.readouterr().out.splitlines()[-1] == str(run.metrics()[-1].val_loss_nats)
    fit(*resume("runs/mine"))  # Nothing is left to do.


def test_texts_are_written_from_python(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
):
    train(override(TEXT, epochs=1), "runs/shakespeare-alpha-1")
    monkeypatch.chdir(tmp_path)
    names: dict[str, list[str]] = {}
    exec(example("Writer").replace("ROMEO", "KING"), names)
    assert len(names["texts"]) == 4
    assert all(text.startswith("KING: ") and len(text) == 86 for text in names["texts"])
