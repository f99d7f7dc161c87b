"""ONNX: a model as a graph of standard operators, for other programs to run.

One `GRU` node a layer, with `linear_before_reset=0`: the reset gate acts before the recurrent
product, as in `astra_jax.gru.gru`. ONNX's z is the share of the old state and ours of the new
one; since 1 - sigmoid(a) = sigmoid(-a), z's weights and biases change their sign. Nothing else
is computed: first and second biases stay apart, ONNX has a place for each.

https://onnx.ai/onnx/operators/onnx__GRU.html
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import astra_jax
from astra_jax.config import ModelConfig
from astra_jax.errors import InputError
from astra_jax.model import LAYER_NORM_EPSILON
from astra_torch import sidecars
from astra_torch.files import HASH, OWN_METADATA, WeightFile, hash_of, to_text
from astra_torch.weights import Arrays, Layout, entries

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
"""The first operators with LayerNormalization, and the file format of their time (ONNX 1.12):
runtimes refuse formats newer than themselves, never older ones."""

MAX_BYTES = 2 * 10**9
"""Of weights: a protobuf message ends at 2 GiB, and the rest of the graph is small."""

_GATES = (("z", -1), ("r", 1), ("", 1))
"""ONNX's order of gates: the letter in our names (the candidate has none), and the sign."""


def write_onnx(path: Path, weights: WeightFile, config: ModelConfig, layout: Layout) -> None:
    """Writes a .onnx file, whole or not at all; see `to_onnx`.

    Raises:
        FileExistsError: the file exists.
        InputError: the model is too large for the format, or ONNX is not installed.
    """
    model = to_onnx(weights.arrays, config, layout, weights.metadata)
    data = model.SerializeToString()
    sidecars.write_with_hash(path, data, is_hashed=True)


def to_onnx(
    arrays: Arrays, config: ModelConfig, layout: Layout, metadata: dict[str, Any]
) -> "onnx.ModelProto":
    """Returns a model as a checked ONNX graph, without dropout.

    Inputs are `tokens`, int64 `[batch, time]`, and, if wanted, `h_0`, float32
    `[layers, batch, hidden]`, zeros by default. Outputs are `logits`, `[batch, time, V]`, and
    `h_n`, the layers' last states, to go on from as the next `h_0`. There must be at least one
    sequence of at least one id, each in `[0, V)`: over an empty batch, or no time at all,
    onnxruntime ends the whole process, and negative ids it counts from the end.

    All is float32, the one type that onnxruntime's GRU on the CPU has (it declares float64, and
    raises when it runs): float64 arrays are rounded, and a model trained in bfloat16 products is
    run in float32 ones.

    Args:
        arrays: the weights, which `weights.check` has found to fit.
        config: their shape.
        layout: how they are named.
        metadata: goes along as JSON text under the key `astra`, a hash of all under `sha256`.

    Raises:
        InputError: the model is too large for the format, or ONNX is not installed.
    """
    onnx = import_extra("onnx")
    if 4 * config.num_parameters > MAX_BYTES:
        raise InputError(
            f"a .onnx file holds at most 2 GiB, this model has {config.num_parameters:,} float32 "
            "parameters: write .safetensors"
        )
    constants, texts = _initializers(arrays, config, layout), {OWN_METADATA: to_text(metadata)}
    texts[HASH] = hash_of(constants, texts)
    model = assemble(constants, texts, config, layout)
    onnx.checker.check_model(model, full_check=True)
    return model


def assemble(
    constants: Arrays, texts: dict[str, str], config: ModelConfig, layout: Layout
) -> "onnx.ModelProto":
    """Returns the one graph that a model of a shape has, with given constants and metadata."""
    onnx = import_extra("onnx")
    model = onnx.helper.make_model(
        _graph(onnx, constants, config, layout),
        producer_name="astra-gru",
        producer_version=astra_jax.__version__,
        doc_string=(
            "GRU language model of characters: the logits of each next one. Give it at least one "
            "sequence of at least one id: onnxruntime aborts on an empty batch."
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.helper.set_model_props(model, texts)
    return model


def _graph(onnx: Any, constants: Arrays, config: ModelConfig, layout: Layout) -> "onnx.GraphProto":
    def value(name: str, *shape: int | str) -> Any:
        kind = onnx.TensorProto.INT64 if name == "tokens" else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    states = (config.num_layers, "batch", config.hidden_dim)
    return onnx.helper.make_graph(
        _nodes(onnx, config, layout),
        layout.class_name,
        inputs=[value("tokens", "batch", "time"), value("h_0", *states)],
        outputs=[value("logits", "batch", "time", config.vocab_size), value("h_n", *states)],
        initializer=[
            onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
        ],
    )


def _nodes(onnx: Any, config: ModelConfig, layout: Layout) -> list[Any]:
    node = onnx.helper.make_node
    nodes = [
        # GRU wants time first. Ids are the smallest thing to transpose, logits the next.
        node("Transpose", ["tokens"], ["ids"], perm=[1, 0]),
        node("Gather", ["embedding.weight", "ids"], ["embedded"]),
        node("Shape", ["tokens"], ["batch_size"], start=0, end=1),
        node("Concat", ["one", "batch_size", "one"], ["state_shape"], axis=0),
        node("Expand", ["h_0", "state_shape"], ["states"]),
        node("Split", ["states"], [f"{cell}.h_0" for cell in layout.cells], axis=0),
    ]
    hidden = "embedded"
    for cell in layout.cells:
        nodes += _layer_nodes(onnx, cell, hidden, config.hidden_dim)
        hidden = f"{cell}.hidden"
    return nodes + _output_nodes(onnx, layout, hidden)


def _layer_nodes(onnx: Any, cell: str, inputs: str, hidden_dim: int) -> list[Any]:
    gru = onnx.helper.make_node(
        "GRU",
        [inputs, *(f"{cell}.{name}" for name in ("W", "R", "B")), "", f"{cell}.h_0"],
        [f"{cell}.directions", f"{cell}.h_n"],
        name=cell,
        hidden_size=hidden_dim,
        linear_before_reset=0,
    )
    # [T, 1, B, H]: the axis of directions goes.
    squeeze = onnx.helper.make_node("Squeeze", [f"{cell}.directions", "one"], [f"{cell}.hidden"])
    return [gru, squeeze]


def _output_nodes(onnx: Any, layout: Layout, hidden: str) -> list[Any]:
    node, nodes = onnx.helper.make_node, []
    if layout.layer_norm:
        inputs, norm = [hidden, "norm.weight", "norm.bias"], dict(epsilon=LAYER_NORM_EPSILON)
        nodes, hidden = [node("LayerNormalization", inputs, ["normed"], axis=-1, **norm)], "normed"
    return [
        *nodes,
        node("MatMul", [hidden, f"{layout.head}.kernel"], ["products"]),
        node("Add", ["products", f"{layout.head}.bias"], ["time_major_logits"]),
        node("Transpose", ["time_major_logits"], ["logits"], perm=[1, 0, 2]),
        node("Concat", [f"{cell}.h_n" for cell in layout.cells], ["h_n"], axis=0),
    ]


def _initializers(arrays: Arrays, config: ModelConfig, layout: Layout) -> dict[str, np.ndarray]:
    """Returns the graph's constants, and the state that `h_0` has where none is given."""
    constants = {
        "h_0": np.zeros((config.num_layers, 1, config.hidden_dim)),
        "embedding.weight": arrays["embedding.weight"],
        f"{layout.head}.kernel": arrays[f"{layout.head}.weight"].T,
        f"{layout.head}.bias": arrays[f"{layout.head}.bias"],
    }
    for cell in layout.cells:
        constants |= _cell_constants(arrays, cell)
    if layout.layer_norm:
        constants |= {name: arrays[name] for name in ("norm.weight", "norm.bias")}
    with np.errstate(over="ignore"):
        rounded = {name: array.astype(np.float32) for name, array in constants.items()}
    for name, array in rounded.items():
        if not np.isfinite(array).all():
            raise InputError(f"{name} has values that are no float32, which ONNX computes in")
    return {"one": np.ones(1, np.int64), **rounded}


FIXED_CONSTANTS = ("one", "h_0")
"""The constants that are the same in every model of a shape."""


def blank_constants(config: ModelConfig, layout: Layout) -> dict[str, np.ndarray]:
    """Returns the graph's constants for weights that are all zero."""
    zeros = {entry.name: np.zeros(entry.shape_in(config), np.float32) for entry in entries(layout)}
    return _initializers(zeros, config, layout)


def _cell_constants(arrays: Arrays, cell: str) -> Arrays:
    """Returns W `[1, 3H, I]`, R `[1, 3H, H]` and B `[1, 6H]`, for one direction, as ONNX does.

    B is the first biases of all gates, then the second ones. The candidate has no second one.
    """
    arrays = {**arrays, f"{cell}.bias_": np.zeros_like(arrays[f"{cell}.bias_r"])}

    def gates(name: str) -> np.ndarray:
        rows = [sign * arrays[f"{cell}.{name.format(gate)}"] for gate, sign in _GATES]
        return np.concatenate(rows)

    biases = np.concatenate([gates("W{}x.bias"), gates("bias_{}")])
    constants = dict(W=gates("W{}x.weight"), R=gates("W{}h.weight"), B=biases)
    return {f"{cell}.{name}": value[None] for name, value in constants.items()}


def require_onnx() -> None:
    """Raises `InputError` if the optional extra is not installed."""
    for name in ("onnx", "onnxruntime"):
        import_extra(name)


def import_extra(name: str) -> Any:
    """Returns a module of the optional extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError("a .onnx file needs the onnx extra: pip install -e '.[onnx]'") from error
