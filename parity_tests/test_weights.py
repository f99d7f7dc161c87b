"""Weights in and out: exact round trips, the notebooks' files, and files that must be refused."""

import dataclasses
import errno
import json
import os
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import LATER
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.model import parameters
from astra_jax.presets import PRESETS, override
from astra_torch import conversion, models, notebook_files, sidecars
from astra_torch.models import build_model
from astra_torch.parity import random_case
from astra_torch.trained_model import TrainedModel
from astra_torch.weights import find_layout, to_arrays, to_model

SMALL = dict(embedding_dim=6, hidden_dim=10)


def trained(dataset: Any, name: str, **fields: Any) -> TrainedModel:
    preset = override(PRESETS[dataset, name], **fields)
    return TrainedModel(
        arrays=random_case(preset).arrays,
        preset=preset,
        vocabulary=published_vocabulary(dataset),
        corpus=CorpusRecord.unknown("a test"),
    )


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@pytest.mark.parametrize("key", PRESETS, ids=lambda key: "-".join(key))
def test_the_round_trip_through_flax_is_exact(key):
    model = trained(*key)
    flax = to_model(model.arrays, model.preset.model, model.layout, "float32")
    assert same_bits(to_arrays(parameters(flax), model.layout), model.arrays)


@given(
    dataset=st.sampled_from(["shakespeare", "names"]),
    shape=st.fixed_dictionaries(
        dict(
            embedding_dim=st.integers(1, 5),
            hidden_dim=st.integers(1, 5),
            num_layers=st.integers(1, 4),
            layer_norm=st.booleans(),
            dtype=st.sampled_from(["float32", "float64"]),
        )
    ),
    suffix=st.sampled_from([".pth", ".safetensors"]),
    order=st.sampled_from("CF"),
)
@settings(max_examples=25, deadline=None)
def test_a_model_of_any_shape_comes_back_from_a_file(
    dataset: Any, shape: Any, suffix: str, order: Any
):
    # Of as many layers, whose dropout is a names file's, which has no place for one.
    row = ("alpha", "beta", "gamma", "gamma")[shape["num_layers"] - 1]
    model = trained(dataset, row, **shape)
    wide = {name: array.astype(shape["dtype"]) / 3 for name, array in model.arrays.items()}
    arrays = {name: np.asarray(array, order=order) for name, array in wide.items()}
    corpus = dataclasses.replace(model.corpus, path="/home/somebody/text.txt")
    model = dataclasses.replace(model, arrays=arrays, corpus=corpus)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        conversion.write(model, path)
        read = conversion.read(path)
    assert same_bits(read.arrays, model.arrays)
    assert read.corpus.path is None  # Whoever gets the file learns nothing of its maker's folders.
    assert read.preset.model == model.preset.model
    assert (read.vocabulary, read.preset.train.dtype) == (model.vocabulary, shape["dtype"])


@pytest.mark.parametrize("key", PRESETS, ids=lambda key: "-".join(key))
def test_names_and_shapes_are_those_of_the_twin(key):
    model = trained(*key)
    twin = build_model(model.preset.model, key[0])
    expected = {name: tuple(value.shape) for name, value in twin.state_dict().items()}
    assert {name: array.shape for name, array in model.arrays.items()} == expected
    assert list(model.arrays) == list(expected) == [name for name, _ in twin.named_parameters()]
    assert type(twin).__name__ == model.layout.class_name


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_every_form_leads_to_every_other_without_a_changed_bit(dtype: str, tmp_path: Path):
    first = trained("names", "gamma", dtype=dtype, start_token=True, dedupe=True)
    if dtype == "float64":
        wide = {name: array.astype(np.float64) / 3 for name, array in first.arrays.items()}
        first = dataclasses.replace(first, arrays=wide)
    forms = [
        tmp_path / "b.safetensors",
        tmp_path / "a.pth",
        tmp_path / "run",
        tmp_path / "bare.pth",
    ]
    model = first
    for form in forms:
        bare = form.name == "bare.pth"
        conversion.write(model, form, weights_only=bare)
        model = conversion.read(form)
        assert same_bits(model.arrays, first.arrays), form
        expected = first.preset
        if bare:  # It knows of the model alone.
            kept = "float64" if dtype == "float64" else "float32"
            expected = override(expected, dtype=kept, **LATER["DataConfig"], **LATER["TrainConfig"])
        assert model.preset == expected, form
        assert model.vocabulary == first.vocabulary, form


@pytest.mark.parametrize("key", PRESETS, ids=lambda key: "-".join(key))
def test_exports_load_strictly_into_the_notebooks_classes(key, tmp_path: Path):
    model = trained(*key)
    versioned, latest = notebook_files.write(model, tmp_path)
    assert versioned.name == f"{model.preset.base_name}_v1.pth"
    assert latest.read_bytes() == versioned.read_bytes()
    checkpoint = torch.load(versioned, weights_only=True)
    names = "state_dict model_class n_classes embd_dim hidden_dim timestamp version"
    if key[0] == "shakespeare":
        names += " model_name dropout vocab_size num_layers"
    assert set(checkpoint) == set(names.split())
    assert {type(value) for name, value in checkpoint.items() if name != "state_dict"} <= {
        *(str, int, float)
    }
    sizes = [checkpoint[name] for name in ("n_classes", "embd_dim", "hidden_dim")]
    extra = [checkpoint["num_layers"]] if "num_layers" in checkpoint else []
    twin = getattr(models, checkpoint["model_class"])(*sizes, *extra)
    twin.load_state_dict(checkpoint["state_dict"], strict=True)
    assert notebook_files.write(model, tmp_path)[0].name.endswith("_v2.pth")


def notebook_checkpoint(**changes: Any) -> dict[str, Any]:
    """What the notebook's own save_model writes, here for a network that torch has drawn."""
    torch.manual_seed(0)
    model = models.MyGRUModel(65, 128, 256, 2)
    sizes = dict(n_classes=65, embd_dim=128, hidden_dim=256, vocab_size=65, num_layers=2)
    return {
        "state_dict": model.state_dict(),
        "model_class": "MyGRUModel",
        "model_name": "Astra-β",
        **sizes,
        "dropout": 0.1,
        "timestamp": "2025-01-01 00:00:00",
        "version": 1,
    } | changes


def test_a_notebooks_file_loads(tmp_path: Path):
    path = tmp_path / "Astra_beta_v1.pth"
    torch.save(notebook_checkpoint(), path)
    model = conversion.read(path)
    assert model.preset == PRESETS["shakespeare", "beta"]
    state = notebook_checkpoint()["state_dict"]
    assert same_bits(model.arrays, {name: value.numpy() for name, value in state.items()})


@pytest.mark.parametrize(
    ("file_name", "changes"),
    [
        ("Astra_alpha_v1.pth", {}),
        ("Astra_alpha_latest.pth", {}),
        ("Astra_alpha_v1.pth", {"model_name": "Astra-α", "embd_dim": 64, "hidden_dim": 128}),
        ("x.pth", {"num_layers": 3}),
        ("x.pth", {"model_name": "Astra-γ"}),
        ("x.pth", {"n_classes": 66}),
        ("x.pth", {"vocab_size": 66}),
        ("x.pth", {"embd_dim": 64}),
        ("x.pth", {"hidden_dim": 128}),
        ("x.pth", {"model_class": "GRU_MediumModel"}),
        ("x.pth", {"dropout": "0.7"}),
        ("x.pth", {"dropout": 1.0}),
        ("x.pth", {"dropout": True}),
    ],
)
def test_a_mislabelled_file_is_refused_unless_its_shapes_are_trusted(
    file_name: str, changes: dict[str, Any], tmp_path: Path
):
    path = tmp_path / file_name
    torch.save(notebook_checkpoint(**changes), path)
    with pytest.raises(InputError, match=r"mislabelled.*--trust-shapes"):
        conversion.read(path)
    trusted = conversion.read(path, trust_shapes=True)
    assert trusted.preset.title == "Astra-β"
    assert trusted.preset.model == PRESETS["shakespeare", "beta"].model


def test_a_dropout_that_is_not_that_of_the_files_own_preset_is_refused(tmp_path: Path):
    preset = json.dumps({"preset": PRESETS["shakespeare", "beta"].to_dict()})
    torch.save(notebook_checkpoint(dropout=0.5, astra=preset), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"it says dropout = 0\.5, its preset 0\.1"):
        conversion.read(tmp_path / "x.pth")


@pytest.mark.parametrize("key", PRESETS, ids=lambda key: "-".join(key))
def test_a_custom_model_of_a_notebook_takes_the_recipe_of_as_many_layers_and_says_so(
    key: tuple[Any, str], tmp_path: Path
):
    row = PRESETS[key]
    path, _ = notebook_files.write(trained(*key, **SMALL, dropout=0.3), tmp_path)
    model = conversion.read(path)
    assert model.preset.train == row.train
    # A names file has no place for it.
    assert model.preset.model.dropout == (0.3 if key[0] == "shakespeare" else row.model.dropout)
    (caveat,) = conversion.caveats(model, tmp_path / "run")
    assert "does not say how it was trained: its recipe" in caveat
    assert f"taken from {row.title}, whose" in caveat
    conversion.write(model, tmp_path / "run")
    assert not conversion.caveats(conversion.read(tmp_path / "run"), tmp_path / "x.pth")


def test_a_norm_that_the_notebooks_class_does_not_have_is_told(tmp_path: Path):
    model = trained("shakespeare", "alpha", **SMALL, layer_norm=True)
    (caveat,) = notebook_files.caveats(model)
    assert "MyGRUModel has no LayerNorm" in caveat
    assert conversion.caveats(model, tmp_path / "x.pth") == [caveat]
    assert not conversion.caveats(model, tmp_path / "x.safetensors")
    assert not notebook_files.caveats(trained("names", "gamma", **SMALL))


def _remove(state: dict[str, Any]) -> None:
    del state["fc.linear_projection.bias"]


def _add(state: dict[str, Any]) -> None:
    state["layers.2.grucell.bias_z"] = torch.zeros(256)


def _transpose(state: dict[str, Any]) -> None:
    state["fc.linear_projection.weight"] = state["fc.linear_projection.weight"].T.contiguous()


def _poison(state: dict[str, Any]) -> None:
    state["layers.1.grucell.Wh.weight"][3, 4] = float("nan")


def _halve(state: dict[str, Any]) -> None:
    state["embedding.weight"] = state["embedding.weight"].half()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, "missing fc.linear_projection.bias"),
        (_add, "layers.2.grucell"),
        (_transpose, r"shape \(256, 65\), expected \(65, 256\) \(transposed\?\)"),
        (_poison, "layers.1.grucell.Wh.weight has 1 values that are NaN"),
        (_halve, "expected float32 or float64 throughout"),
    ],
)
def test_a_damaged_state_dict_is_refused(damage, message: str, tmp_path: Path):
    checkpoint = notebook_checkpoint()
    checkpoint["state_dict"] = dict(checkpoint["state_dict"])
    damage(checkpoint["state_dict"])
    torch.save(checkpoint, tmp_path / "x.pth")
    with pytest.raises(InputError, match=message):
        conversion.read(tmp_path / "x.pth")


class _Code:
    """A pickle of this runs a call when it is loaded, if it is loaded carelessly."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path: Path):
    torch.save({"state_dict": _Code(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="could run code, and is never loaded"):
        conversion.read(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


def test_what_a_checkpoint_holds_that_it_should_not_is_named(tmp_path: Path):
    state = dict(models.MyGRUModel(65, 8, 8, 1).state_dict())
    path = tmp_path / "x.pth"
    torch.save({"state_dict": state, "val_loss": np.float64(1.5)}, path)
    with pytest.raises(InputError, match=r"it names '.*scalar': save plain numbers, as float"):
        conversion.read(path)
    torch.save({"state_dict": {**state, "a": torch.zeros(2, dtype=torch.bfloat16)}}, path)
    with pytest.raises(InputError, match=r"x\.pth: a is torch\.bfloat16, expected float32"):
        conversion.read(path)
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated; its files live on.
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), str(path))
    with pytest.raises(InputError, match="is a TorchScript archive, a program: save a checkpoint"):
        conversion.read(path)


@pytest.mark.parametrize("width", [6, 128])
def test_tied_weights_are_refused_at_any_size(width: int, tmp_path: Path):
    model = models.MyGRUModel(65, width, width, 1)
    model.fc.linear_projection.weight = model.embedding.weight
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"embedding\.weight and fc\..* share their values"):
        conversion.read(tmp_path / "x.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_at_every_length(suffix: str, tmp_path: Path):
    path = tmp_path / f"x{suffix}"
    conversion.write(trained("names", "alpha", **SMALL), path)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            conversion.read(path)


def test_an_existing_file_is_not_overwritten(tmp_path: Path):
    path = tmp_path / "x.pth"
    path.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        conversion.write(trained("names", "alpha", **SMALL), path)
    assert path.read_text() == "precious"


def test_a_vocabulary_of_another_size_needs_its_corpus(tmp_path: Path):
    model = trained("shakespeare", "alpha", vocab_size=3, **SMALL)
    model = dataclasses.replace(model, vocabulary=published_vocabulary("names"))
    conversion.write(model, tmp_path / "x.pth", weights_only=True)
    with pytest.raises(InputError, match="--corpus FILE"):
        conversion.read(tmp_path / "x.pth")
    (tmp_path / "abc.txt").write_text("abcabc")
    loaded = conversion.read(tmp_path / "x.pth", corpus=str(tmp_path / "abc.txt"))
    assert loaded.vocabulary.tokens == ("a", "b", "c")


def test_shapes_without_a_class_of_their_own_take_the_general_one(tmp_path: Path):
    model = trained("names", "beta", num_layers=4, layer_norm=True, **SMALL)
    assert model.layout == find_layout(model.preset.model, "names")
    conversion.write(model, tmp_path / "x.pth")
    loaded = conversion.read(tmp_path / "x.pth")
    assert loaded.layout.class_name == "MyGRUModel"
    assert loaded.preset.title == "names-custom"
    assert loaded.vocabulary == model.vocabulary


def test_a_file_cannot_choose_where_an_export_goes(tmp_path: Path):
    model = trained("names", "alpha", **SMALL)
    conversion.write(model, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    honest, escaping = b"GRU_custom_model", b"../escaped_model"
    assert honest in data
    data = data.replace(honest, escaping).replace(b'"sha256"', b'"sha000"')
    (tmp_path / "y.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="base_name must be letters, digits and underscores"):
        conversion.read(tmp_path / "y.safetensors")


def test_a_file_whose_hash_does_not_fit_onto_the_disk_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(sidecars, "write", mock.Mock(side_effect=full))
    with pytest.raises(InputError, match="No space left"):
        conversion.write(
            trained("shakespeare", "alpha", **SMALL), tmp_path / "x.pth", weights_only=True
        )
    assert not list(tmp_path.iterdir())


def test_what_cannot_have_its_hash_is_not_written(tmp_path: Path):
    model = trained("shakespeare", "alpha", **SMALL)
    (tmp_path / "x.pth.sha256").mkdir()
    for name in ("x.pth", f"{'y' * 249}.pth"):
        with pytest.raises(
            InputError, match=r"cannot write .*: (Is a directory|File name too long)"
        ):
            conversion.write(model, tmp_path / name, weights_only=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth.sha256"]
    conversion.write(model, tmp_path / f"{'y' * 249}.pth")  # It has its hash inside.
    assert same_bits(conversion.read(tmp_path / f"{'y' * 249}.pth").arrays, model.arrays)
    latest = tmp_path / f"{model.preset.base_name}_latest.pth"
    latest.mkdir()
    with pytest.raises(InputError, match="cannot write into"):
        notebook_files.write(model, tmp_path)
    assert not list(tmp_path.glob("*_v1.pth"))


def test_a_full_disk_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    for suffix in (".pth", ".safetensors", ".onnx"):
        with pytest.raises(InputError, match=r"cannot write .*: No space left on device"):
            conversion.write(trained("shakespeare", "alpha", **SMALL), tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf_8_has_its_hash(tmp_path: Path):
    path = tmp_path / os.fsdecode(b"w\xff\\.pth")
    model = trained("shakespeare", "alpha", **SMALL)
    conversion.write(model, path, weights_only=True)
    check = ["sha256sum", "--check", "--status", f"{path.name}.sha256"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    conversion.read(path)


def test_keys_of_other_programs_do_not_stand_for_ours(tmp_path: Path):
    model = trained("names", "alpha", **SMALL)
    conversion.write(model, tmp_path / "x.pth")
    checkpoint = torch.load(tmp_path / "x.pth", weights_only=True)
    del checkpoint["sha256"]
    torch.save(checkpoint | {"corpus": "mine", "preset": "alpha"}, tmp_path / "y.pth")
    assert conversion.read(tmp_path / "y.pth").preset == model.preset


def test_a_file_of_bytes_without_a_vocabulary_takes_its_own_text(tmp_path: Path):
    bare = trained("shakespeare", "alpha", **SMALL, vocab_size=256)
    bare = dataclasses.replace(bare, vocabulary=Vocabulary.of_bytes())
    conversion.write(bare, tmp_path / "x.pth", weights_only=True)
    assert "256 classes are taken for bytes" in conversion.read(tmp_path / "x.pth").assumed
    (tmp_path / "text.txt").write_text("its own text " * 20)
    read = conversion.read(tmp_path / "x.pth", corpus=str(tmp_path / "text.txt"))
    assert (read.vocabulary, read.preset.data.level) == (Vocabulary.of_bytes(), "byte")
    assert "taken for bytes" not in read.assumed


def test_a_folder_is_not_a_file_and_protocols_are_named(tmp_path: Path):
    model = trained("shakespeare", "alpha", **SMALL)
    (tmp_path / "x.pth").mkdir()
    with pytest.raises(InputError, match=r"x\.pth is a folder: choose another name"):
        conversion.write(model, tmp_path / "x.pth")
    conversion.write(model, tmp_path / "y.PTH")
    checkpoint = torch.load(tmp_path / "y.PTH", weights_only=True)
    torch.save(checkpoint, tmp_path / "z.pth", pickle_protocol=4)
    with pytest.raises(InputError, match="saved with pickle protocol 4: save it with"):
        conversion.read(tmp_path / "z.pth")
    arrays = {name: array.astype(np.float64) for name, array in model.arrays.items()}
    arrays["embedding.weight"][0, 0] = 1e39
    with pytest.raises(InputError, match=r"embedding\.weight has values that are no float32"):
        conversion.write(dataclasses.replace(model, arrays=arrays), tmp_path / "x.onnx")
