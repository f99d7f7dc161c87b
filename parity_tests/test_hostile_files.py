"""Files that claim more than they hold, that have changed, or that several processes write."""

import dataclasses
import io
import json
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("onnx")  # One of the forms.

from astra_jax.errors import InputError
from astra_torch import conversion, files, notebook_files
from astra_torch.trained_model import TrainedModel
from parity_tests.fuzz import BAD, examine_some, summarize, tiny_model

SHA256SUM = ["sha256sum", "--strict", "--check", "--quiet"]


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return tiny_model()


@pytest.fixture(scope="module")
def weights(model: TrainedModel) -> TrainedModel:
    return dataclasses.replace(model, optimizer=None)


def test_a_few_hundred_hostile_files_are_refused_or_as_good_as_the_original():
    outcomes = examine_some(range(270), seed=0)
    summary = summarize(outcomes)
    assert [outcome for outcome in outcomes if outcome.verdict in BAD] == []
    assert summary["ok"]
    assert summary["verdicts"]["refused"] > 200
    assert len(summary["forms"]) == 9


def test_the_harness_tells_a_reader_that_is_careless(monkeypatch: pytest.MonkeyPatch):
    def careless(path: Path) -> io.BytesIO:
        return io.BytesIO(path.read_bytes())

    def load(*arguments: Any, weights_only: bool, **options: Any) -> Any:
        return right(*arguments, weights_only=False, **options)

    right = torch.load
    monkeypatch.setattr(files.pth_archive, "repack", careless)
    monkeypatch.setattr(torch, "load", load)
    monkeypatch.setattr(files, "require_unchanged", lambda *_: None)
    verdicts = summarize(examine_some(range(0, 9 * 60, 9), seed=0))["verdicts"]
    assert verdicts["code run"] > 0
    assert verdicts["changed unnoticed"] > 0


def change_weight(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"]["embedding.weight"][1, 1] += 1e-7


def change_moment(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer_state_dict"]["state"][3]["exp_avg"][0] *= 2


def change_text(checkpoint: dict[str, Any]) -> None:
    assert '"seed": 0' in checkpoint["astra"]
    checkpoint["astra"] = checkpoint["astra"].replace('"seed": 0', '"seed": 1')


def change_number(checkpoint: dict[str, Any]) -> None:
    checkpoint["version"] = 7


@pytest.mark.parametrize("change", [change_weight, change_moment, change_text, change_number])
def test_a_change_of_anything_in_a_pth_is_noticed_and_can_be_meant(
    change: Callable[[dict[str, Any]], None], model: TrainedModel, tmp_path: Path
):
    path = tmp_path / "x.pth"
    conversion.write(model, path)
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint, path)
    assert conversion.read(path).optimizer is not None  # Other bytes, and the same values.
    change(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"x\.pth does not hold what was written: its sha256"):
        conversion.read(path)
    del checkpoint["sha256"]
    torch.save(checkpoint, path)
    conversion.read(path)


def test_every_export_can_be_checked(weights: TrainedModel, model: TrainedModel, tmp_path: Path):
    for name in ("a.pth", "a.safetensors", "a.onnx"):
        conversion.write(model, tmp_path / name)
        assert b"sha256" in (tmp_path / name).read_bytes()
    conversion.write(weights, tmp_path / "b\\n.pth", weights_only=True)
    notebook_files.write(weights, tmp_path)
    sidecars = sorted(tmp_path.glob("*.sha256"))
    assert [path.name for path in sidecars] == [
        "Astra_custom_v1.pth.sha256",
        "b\\n.pth.sha256",
    ]
    for sidecar in sidecars:
        subprocess.run([*SHA256SUM, sidecar.name], cwd=tmp_path, check=True)
        path = sidecar.with_suffix("")
        conversion.read(path)
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(InputError, match="is damaged: its sha256 is not the one in"):
            conversion.read(path)
        sidecar.write_text("x")
        with pytest.raises(InputError, match="is no line of sha256sum: remove it"):
            conversion.read(path)


def test_the_notebooks_next_save_is_no_damage(weights: TrainedModel, tmp_path: Path):
    (tmp_path / "Astra_custom_latest.pth.sha256").write_text("of an earlier file")
    versioned, latest = notebook_files.write(weights, tmp_path)
    checkpoint = torch.load(versioned, weights_only=True) | {"version": 2}
    for path in (versioned.with_name("Astra_custom_v2.pth"), latest):
        torch.save(checkpoint, path)
        assert conversion.read(path).arrays.keys() == weights.arrays.keys()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.onnx"])
def test_exports_have_the_permissions_of_any_new_file(
    name: str, weights: TrainedModel, tmp_path: Path
):
    (tmp_path / "any").touch()
    conversion.write(weights, tmp_path / name)
    assert (tmp_path / name).stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.onnx"])
def test_a_hash_of_an_earlier_file_does_not_outlive_it(
    name: str, model: TrainedModel, tmp_path: Path
):
    (tmp_path / f"{name}.sha256").write_text(f"{'0' * 64}  {name}\n")
    conversion.write(model, tmp_path / name)
    subprocess.run([*SHA256SUM, f"{name}.sha256"], cwd=tmp_path, check=True)


def test_exports_that_race_take_a_number_each(weights: TrainedModel, tmp_path: Path):
    racers = [
        dataclasses.replace(
            weights, arrays={name: array + number for name, array in weights.arrays.items()}
        )
        for number in range(6)
    ]
    with ThreadPoolExecutor(len(racers)) as pool:
        written = list(pool.map(notebook_files.write, racers, [tmp_path] * len(racers)))
    versioned = [paths[0] for paths in written]
    assert {path.name for path in versioned} == {
        f"Astra_custom_v{number}.pth" for number in range(1, 7)
    }
    for racer, path in zip(racers, versioned, strict=True):
        read = conversion.read(path)
        assert all((read.arrays[name] == array).all() for name, array in racer.arrays.items())
    latest = tmp_path / "Astra_custom_latest.pth"
    assert latest.read_bytes() in [path.read_bytes() for path in versioned]
    assert len(list(tmp_path.iterdir())) == 2 * 6 + 1
    for sidecar in tmp_path.glob("*.sha256"):
        subprocess.run([*SHA256SUM, sidecar.name], cwd=tmp_path, check=True)


def _deflated(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    return file.getvalue()


def _expanded(data: bytes) -> bytes:
    checkpoint = torch.load(io.BytesIO(data), weights_only=True)
    checkpoint["state_dict"]["embedding.weight"] = torch.zeros(1).expand(2**30, 2**10)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def _flipped(data: bytes) -> bytes:
    weight = torch.load(io.BytesIO(data), weights_only=True)["state_dict"]["embedding.weight"]
    place = data.index(weight.numpy().tobytes())
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_deflated, "it is compressed, which torch.save does not do"),
        (_expanded, "has tensors of 4,398,046,5.* show values of others, or one value many times"),
        (_flipped, "Bad CRC-32"),
        (lambda data: data + b"\0" * 30, "does not end as torch's archives do"),
    ],
)
def test_an_archive_that_is_not_torchs_own_is_refused(
    change: Callable[[bytes], bytes], message: str, weights: TrainedModel, tmp_path: Path
):
    path = tmp_path / "x.pth"
    conversion.write(weights, path, weights_only=True)
    (tmp_path / "x.pth.sha256").unlink()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        conversion.read(path)


@pytest.mark.parametrize(("prefix", "wrapper"), [("module.", "Data"), ("_orig_mod.", "torch")])
def test_names_of_a_wrapped_model_are_refused_with_what_to_do(
    prefix: str, wrapper: str, weights: TrainedModel, tmp_path: Path
):
    arrays = {prefix + name: torch.from_numpy(array) for name, array in weights.arrays.items()}
    torch.save({"state_dict": arrays}, tmp_path / "x.pth")
    message = rf"begin with '{prefix}', as {wrapper}.* makes them: save model\.{prefix}state_dict"
    with pytest.raises(InputError, match=message):
        conversion.read(tmp_path / "x.pth")


def test_a_torch_that_is_not_safe_reads_nothing(
    weights: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    conversion.write(weights, tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(InputError, match=r"torch 2\.9\.1\+cpu is not safe .* 'torch>=2\.10'"):
        conversion.read(tmp_path / "x.pth")


@pytest.mark.parametrize("length", [2**23 + 1, 2**63, 2**64 - 1])
def test_a_header_of_terabytes_is_refused(length: int, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + json.dumps({}).encode())
    with pytest.raises(InputError, match=f"a header of {length:,} bytes, more than"):
        conversion.read(path)


def test_a_folder_may_have_a_dot_in_its_name(weights: TrainedModel, tmp_path: Path):
    for name in ("v1.2", "a.b/v10.0-beta"):
        conversion.write(weights, tmp_path / name)
        assert conversion.read(tmp_path / name).preset == weights.preset
    with pytest.raises(InputError, match=r"model\.pht must end in \.pth"):
        conversion.write(weights, tmp_path / "model.pht")


@pytest.mark.parametrize("instead", ["no function", OrderedDict], ids=["text", "type"])
def test_a_dictionary_with_methods_of_its_own_is_refused(
    instead: Any, weights: TrainedModel, tmp_path: Path
) -> None:
    conversion.write(weights, tmp_path / "x.pth")
    checkpoint = torch.load(tmp_path / "x.pth", weights_only=True)
    state = OrderedDict(checkpoint["state_dict"])
    state.values = instead  # pyright: ignore[reportAttributeAccessIssue]
    torch.save(checkpoint | {"state_dict": state}, tmp_path / "y.pth")
    with pytest.raises(InputError, match="a dictionary in it has attributes"):
        conversion.read(tmp_path / "y.pth")
