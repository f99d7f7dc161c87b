"""An oracle that nobody here wrote: ONNX's operators, by its reference and by onnxruntime."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from astra_jax.config import Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS, override
from astra_torch import conversion, sampling
from astra_torch.models import GRULanguageModel, build_model
from astra_torch.onnx_models import to_onnx
from astra_torch.onnx_runtime import OnnxModel, continue_greedily
from astra_torch.parity import random_case
from astra_torch.tolerances import FLOAT32_EPSILON, FLOAT32_FACTOR, FLOAT64
from astra_torch.trained_model import TrainedModel
from astra_torch.weights import Arrays, find_layout
from parity_tests.faults import ONNX, Inject

SMALL = dict(embedding_dim=6, hidden_dim=10)
all_presets = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.base_name)


class Outputs(NamedTuple):
    logits: np.ndarray
    h_n: np.ndarray


def export(preset: Preset) -> Any:
    metadata = dict(
        preset=preset.to_dict(),
        vocabulary=published_vocabulary(preset.data.dataset).to_dict(),
    )
    layout = find_layout(preset.model, preset.data.dataset)
    return to_onnx(weights(preset), preset.model, layout, metadata)


@functools.cache
def weights(preset: Preset) -> Arrays:
    return random_case(preset).arrays


exported = functools.cache(export)


@functools.cache
def runtime(preset: Preset) -> OnnxModel:
    return OnnxModel(exported(preset).SerializeToString(), num_threads=1)


@functools.cache
def twin(preset: Preset, dtype: torch.dtype) -> GRULanguageModel:
    model = build_model(preset.model, preset.data.dataset).eval()
    state = {name: torch.from_numpy(array) for name, array in weights(preset).items()}
    model.load_state_dict(state)
    return model.to(dtype)


def run_twin(model: GRULanguageModel, tokens: np.ndarray) -> Outputs:
    with torch.inference_mode():
        return Outputs(*(value.numpy() for value in model(torch.from_numpy(tokens))))


def random_tokens(preset: Preset, *shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(preset.model.vocab_size, size=shape)


def errors(results: Outputs, oracle: Outputs) -> np.ndarray:
    """Returns the largest difference of logits and of states, each relative to the largest."""
    assert [one.shape for one in results] == [one.shape for one in oracle]
    return np.array(
        [
            np.abs(np.float64(result) - true).max() / np.abs(true).max()
            for result, true in zip(results, oracle, strict=True)
        ]
    )


def share_of_bound(results: Outputs, preset: Preset, tokens: np.ndarray) -> float:
    """Returns the part of the float32 bound that is used up: at most 1 is right."""
    oracle = run_twin(twin(preset, torch.float64), tokens)
    reference = errors(run_twin(twin(preset, torch.float32), tokens), oracle)
    bounds = FLOAT32_FACTOR * np.maximum(reference, FLOAT32_EPSILON)
    return float((errors(results, oracle) / bounds).max())


@all_presets
def test_each_layer_is_one_gru_node_that_resets_before_the_product(preset: Preset):
    graph = exported(preset).graph
    nodes = [node for node in graph.node if node.op_type == "GRU"]
    assert len(nodes) == preset.model.num_layers
    for node in nodes:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        assert attributes == {"hidden_size": preset.model.hidden_dim, "linear_before_reset": 0}
    norms = sum(node.op_type == "LayerNormalization" for node in graph.node)
    assert norms == preset.model.layer_norm


@all_presets
def test_no_bit_of_the_weights_is_lost(preset: Preset):
    constants = {one.name: numpy_helper.to_array(one) for one in exported(preset).graph.initializer}
    layout = find_layout(preset.model, preset.data.dataset)
    found = {name: array for name, array in constants.items() if name in weights(preset)}
    found[f"{layout.head}.weight"] = constants[f"{layout.head}.kernel"].T
    for cell in layout.cells:
        (w,), (r,), (b,) = (constants[f"{cell}.{name}"] for name in ("W", "R", "B"))
        wz, wr, wn = np.split(w, 3)
        rz, rr, rn = np.split(r, 3)
        wbz, wbr, wbn, rbz, rbr, rbn = np.split(b, 6)
        assert not rbn.any()
        parts = {"Wzx.weight": -wz, "Wrx.weight": wr, "Wx.weight": wn}
        parts |= {"Wzh.weight": -rz, "Wrh.weight": rr, "Wh.weight": rn}
        parts |= {"Wzx.bias": -wbz, "Wrx.bias": wbr, "Wx.bias": wbn}
        parts |= {"bias_z": -rbz, "bias_r": rbr}
        found |= {f"{cell}.{name}": array for name, array in parts.items()}
    assert set(found) == set(weights(preset))
    for name, array in weights(preset).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def run_reference(model: Any, tokens: np.ndarray) -> Outputs:
    """Runs a graph in float64, which ONNX's own definition in numpy does and onnxruntime not."""
    wide = type(model)()
    wide.CopyFrom(model)
    for constant in wide.graph.initializer:
        array = numpy_helper.to_array(constant)
        if array.dtype == np.float32:
            constant.CopyFrom(numpy_helper.from_array(array.astype(np.float64), constant.name))
    return Outputs(*map(np.asarray, ReferenceEvaluator(wide).run(None, {"tokens": tokens})))


@all_presets
def test_in_float64_the_graph_is_the_twin(preset: Preset, monkeypatch: pytest.MonkeyPatch):
    oracle = twin(preset, torch.float64)
    if oracle.final_norm is not None:
        # ONNX has the epsilon as a float32.
        monkeypatch.setattr(oracle.final_norm, "eps", float(np.float32(1e-5)))
    tokens = random_tokens(preset, 3, 7)
    outputs = run_reference(exported(preset), tokens)
    assert errors(outputs, run_twin(oracle, tokens)).max() <= FLOAT64


@all_presets
def test_one_file_takes_every_batch_and_length(preset: Preset):
    tokens = random_tokens(preset, 3, 7)
    assert share_of_bound(Outputs(*runtime(preset)(tokens)), preset, tokens) <= 1
    # Each id alone: of a single one, torch's own error may be small by luck.
    ids = np.arange(preset.model.vocab_size)[:, None]
    logits, states = zip(*(runtime(preset)(ids[i : i + 1]) for i in range(len(ids))), strict=True)
    alone = Outputs(np.concatenate(logits), np.concatenate(states, axis=1))
    assert share_of_bound(alone, preset, ids) <= 1


@all_presets
def test_two_halves_with_carried_state_are_the_whole(preset: Preset):
    tokens = random_tokens(preset, 3, 40)
    first, state = runtime(preset)(tokens[:, :17])
    second, h_n = runtime(preset)(tokens[:, 17:], state)
    halves = Outputs(np.concatenate([first, second], axis=1), h_n)
    assert share_of_bound(halves, preset, tokens) <= 1
    forgotten, _ = runtime(preset)(tokens[:, 17:])
    assert share_of_bound(halves._replace(logits=np.hstack([first, forgotten])), preset, tokens) > 1


@pytest.mark.parametrize("stateful", [True, False], ids=["stateful", "stateless"])
@all_presets
def test_greedy_text_is_the_same(preset: Preset, stateful: bool):
    # 3,200 characters. Where two logits are nearer to each other than they are rounded, the texts
    # could part; with these prompts the two best are never nearer than 19 times that.
    prompt, steps = random_tokens(preset, 16, 7), 200
    ours = continue_greedily(runtime(preset), prompt, steps, stateful=stateful)
    theirs = sampling.continue_ids(
        twin(preset, torch.float32),
        torch.from_numpy(prompt),
        torch.zeros(steps, len(prompt)),
        temperature=None,
        stateful=stateful,
    )
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert len(np.unique(ours)) > 8


@pytest.mark.parametrize("inject", ONNX.values(), ids=ONNX)
def test_onnxs_own_definition_finds_a_fault_in_float64(
    inject: Inject, monkeypatch: pytest.MonkeyPatch
):
    preset = override(PRESETS["names", "gamma"], **SMALL)
    tokens = random_tokens(preset, 3, 7)
    inject(monkeypatch)
    faulty = export(preset)
    oracle = run_twin(twin(preset, torch.float64), tokens)
    assert errors(run_reference(faulty, tokens), oracle).max() > 100 * FLOAT64


def trained(dtype: Any = "float32", **fields: Any) -> TrainedModel:
    vocabulary = Vocabulary.of_text("\n\"\\'aßΩ漢😀")
    preset = override(
        PRESETS["shakespeare", "beta"],
        vocab_size=len(vocabulary),
        dtype=dtype,
        **{**SMALL, **fields},
    )
    arrays = {name: array.astype(dtype) for name, array in random_case(preset).arrays.items()}
    record = CorpusRecord.unknown("a test")
    return TrainedModel(arrays=arrays, preset=preset, vocabulary=vocabulary, corpus=record)


def test_a_file_says_what_it_is(tmp_path: Path):
    model = trained()
    conversion.write(model, tmp_path / "x.onnx")
    loaded = OnnxModel(tmp_path / "x.onnx", num_threads=1)
    assert loaded.preset == model.preset
    assert loaded.vocabulary == model.vocabulary
    graph = onnx.load(tmp_path / "x.onnx")
    assert graph.producer_name == "astra-gru"
    dims = [
        [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*graph.graph.input, *graph.graph.output)
    ]
    assert dims == [
        ["batch", "time"],
        [2, "batch", 10],
        ["batch", "time", 9],
        [2, "batch", 10],
    ]


def test_float64_weights_are_rounded(tmp_path: Path):
    conversion.write(trained("float32"), tmp_path / "narrow.onnx")
    conversion.write(trained("float64"), tmp_path / "wide.onnx")
    narrow, wide = (OnnxModel(tmp_path / f"{name}.onnx") for name in ("narrow", "wide"))
    tokens = np.array([[0, 1, 2]])
    np.testing.assert_array_equal(narrow(tokens)[0], wide(tokens)[0])
    assert wide.preset.train.dtype == "float64"


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path):
    path = tmp_path / "x.onnx"
    path.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        conversion.write(trained(), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    conversion.write(trained(), tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[onnx\]'"):
        if missing == "onnx":
            conversion.write(trained(), tmp_path / "y.onnx")
        else:
            OnnxModel(tmp_path / "x.onnx")
    assert not (tmp_path / "y.onnx").exists()


def test_a_model_too_large_for_the_format_is_refused_before_it_is_made():
    config = dataclasses.replace(trained().preset.model, hidden_dim=2**14)
    layout = find_layout(config, "shakespeare")
    with pytest.raises(InputError, match=r"at most 2 GiB.*write \.safetensors"):
        to_onnx({}, config, layout, {})


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path):
    path = tmp_path / "x.onnx"
    with pytest.raises(InputError, match="there is no file"):
        OnnxModel(path)
    conversion.write(trained(), path)
    with pytest.raises(InputError, match="made for other programs, and is not read back"):
        conversion.read(path)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            OnnxModel(path)
    foreign = onnx.load_from_string(whole)
    foreign.metadata_props[0].value = '{"preset": 1}'
    with pytest.raises(InputError, match="unusable metadata"):
        OnnxModel(foreign.SerializeToString())
    del foreign.metadata_props[:]
    with pytest.raises(InputError, match="not written by this project"):
        OnnxModel(foreign.SerializeToString())


@pytest.mark.parametrize(
    ("tokens", "h_0", "message"),
    [
        ([[0, 9]], None, "below 9, got 0 to 9"),
        ([[-1]], None, "at least 0"),
        ([0, 1], None, r"\[B, T\]"),
        ([[], []], None, "at least one"),
        ([[0.5]], None, "whole numbers"),
        ([[0], [1]], np.zeros((2, 1, 10)), r"h_0 must be .* = \[2, 2, 10\], got \[2, 1, 10\]"),
    ],
)
def test_wrong_inputs_are_refused(tokens: list[Any], h_0: Any, message: str, tmp_path: Path):
    conversion.write(trained(), tmp_path / "x.onnx")
    model = OnnxModel(tmp_path / "x.onnx", num_threads=1)
    with pytest.raises(InputError, match=message):
        model(np.array(tokens), h_0)
    with pytest.raises(InputError, match="num_steps"):
        continue_greedily(model, np.array([[0]]), 0)
