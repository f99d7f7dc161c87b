"""A .onnx file of this project, read with care, and onnxruntime's own kernels to run it.

A graph is a program. Only the one that this project writes for a model of the file's shape is run:
the file is taken apart into constants and texts, put together again, and must come out the same.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astra_jax.config import ModelConfig, Preset
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError, first_line
from astra_torch.files import (
    HASH,
    OWN_METADATA,
    parse_metadata,
    require_file,
    require_unchanged,
)
from astra_torch.onnx_models import FIXED_CONSTANTS, assemble, blank_constants, import_extra
from astra_torch.weights import Arrays, Layout, find_layout


class OnnxFile(NamedTuple):
    """What a file holds.

    Attributes:
        preset: the shape and the recipe of its model.
        vocabulary: its characters.
        constants: arrays of its graph by their names.
        data: its bytes, as they were looked at.
    """

    preset: Preset
    vocabulary: Vocabulary
    constants: Arrays
    data: bytes


def read_onnx(source: Path | bytes) -> OnnxFile:
    """Reads a .onnx file.

    Args:
        source: a file, or what would be in it.

    Raises:
        InputError: there is no such file, it is damaged, has changed since it was written or is
            not of this project, or ONNX is not installed.
    """
    onnx = import_extra("onnx")
    name = str(source) if isinstance(source, Path) else "the ONNX model"
    data = _read_bytes(source) if isinstance(source, Path) else source
    try:
        return _take_apart(onnx, data, name)
    except InputError:
        raise
    except Exception as error:  # Many: some bytes are looked at only when they are needed.
        raise InputError(f"{name} is damaged or no ONNX file: {first_line(error)}") from error


def _take_apart(onnx: Any, data: bytes, name: str) -> OnnxFile:
    model = onnx.load_model_from_string(data)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if OWN_METADATA not in texts:
        raise InputError(f"{name} was not written by this project: it has no vocabulary")
    preset, vocabulary = _describe(texts[OWN_METADATA], name)
    layout = find_layout(preset.model, preset.data.dataset)
    constants = _constants(onnx, model, name)
    try:
        _require_own_graph(model, constants, preset.model, layout)
    except InputError as error:
        raise InputError(f"{name} cannot be used: {error}") from error
    require_unchanged(texts.pop(HASH, None), constants, texts, name)
    return OnnxFile(preset, vocabulary, constants, data)


def _read_bytes(path: Path) -> bytes:
    require_file(path)
    if path.stat().st_size > 2**31:
        raise InputError(f"{path} is damaged or no ONNX file: they end at 2 GiB")
    return path.read_bytes()


def _describe(text: str, name: str) -> tuple[Preset, Vocabulary]:
    metadata = parse_metadata(text, name)
    try:
        preset = Preset.from_dict(metadata.get("preset"))
        vocabulary = Vocabulary.from_dict(metadata.get("vocabulary"))
    except InputError as error:
        raise InputError(f"{name} has unusable metadata: {error}") from error
    if len(vocabulary) != preset.model.vocab_size:
        raise InputError(
            f"{name} has unusable metadata: {len(vocabulary)} tokens for "
            f"{preset.model.vocab_size} classes"
        )
    return preset, vocabulary


def _constants(onnx: Any, model: Any, name: str) -> Arrays:
    """Returns a graph's arrays, which must be in the file itself and not in any other."""
    constants: Arrays = {}
    for tensor in model.graph.initializer:
        known = tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64)
        if not known or tensor.data_location or tensor.external_data:
            raise InputError(f"{name} has a constant that this project does not write")
        array = onnx.numpy_helper.to_array(tensor)
        if not np.isfinite(array).all():
            raise InputError(f"{name} cannot be used: {tensor.name} has values that are no numbers")
        constants[tensor.name] = array
    return constants


def _require_own_graph(model: Any, constants: Arrays, config: ModelConfig, layout: Layout) -> None:
    """Raises `InputError` unless the graph is the one of a shape, and has room for its weights."""
    if 4 * config.num_parameters > sum(array.nbytes for array in constants.values()):
        raise InputError("its metadata tells of a larger model")
    expected = blank_constants(config, layout)
    kinds = {name: (array.dtype, array.shape) for name, array in constants.items()}
    if kinds != {name: (array.dtype, array.shape) for name, array in expected.items()}:
        raise InputError("its constants are not those of the model that its metadata tells of")
    if any(not np.array_equal(constants[name], expected[name]) for name in FIXED_CONSTANTS):
        raise InputError("it does not begin with a state of zeros")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    again = assemble(constants, texts, config, layout)
    again.producer_version, again.doc_string = model.producer_version, model.doc_string
    if again != model:
        raise InputError("its graph is not the one that this version writes: export it again")


class OnnxModel:
    """A .onnx file of this project in onnxruntime, on the CPU.

    Attributes:
        preset: the shape and the recipe of the model.
        vocabulary: its characters.
    """

    preset: Preset
    vocabulary: Vocabulary

    def __init__(self, source: Path | bytes, *, num_threads: int | None = None):
        """Loads a model.

        Args:
            source: a file, or what would be in it.
            num_threads: that one operator may use; None leaves it to onnxruntime.

        Raises:
            InputError: as `read_onnx`, or onnxruntime is not installed.
        """
        file = read_onnx(source)
        self.preset, self.vocabulary = file.preset, file.vocabulary
        self._session = _session(file.data, num_threads)

    def __call__(
        self, tokens: np.ndarray, h_0: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits `[B, T, V]` and the layers' last states `[L, B, H]`, float32.

        Args:
            tokens: ids `[B, T]`, at least one.
            h_0: the layers' first states `[L, B, H]`; None is zeros.

        Raises:
            InputError: the ids or the states are not what they must be.
        """
        feeds = _feeds(self.preset.model, tokens, h_0)
        logits, h_n = self._session.run(["logits", "h_n"], feeds)
        return logits, h_n


def _feeds(model: ModelConfig, tokens: np.ndarray, h_0: np.ndarray | None) -> Arrays:
    if tokens.ndim != 2 or tokens.size == 0 or tokens.dtype.kind not in "iu":
        raise InputError(
            f"tokens must be whole numbers [B, T], at least one, got {tokens.dtype} "
            f"{list(tokens.shape)}"
        )
    if tokens.min() < 0 or tokens.max() >= model.vocab_size:
        raise InputError(
            f"tokens must be at least 0 and below {model.vocab_size}, got {tokens.min()} to "
            f"{tokens.max()}"
        )
    if h_0 is None:
        return {"tokens": tokens.astype(np.int64)}
    wanted = (model.num_layers, len(tokens), model.hidden_dim)
    if h_0.shape != wanted:
        raise InputError(f"h_0 must be [L, B, H] = {list(wanted)}, got {list(h_0.shape)}")
    return {"tokens": tokens.astype(np.int64), "h_0": h_0.astype(np.float32)}


def _session(data: bytes, num_threads: int | None) -> Any:
    runtime = import_extra("onnxruntime")
    options = runtime.SessionOptions()
    # What fails is raised; the rest is a warning that the default of h_0 is no constant.
    options.log_severity_level = 4
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def continue_greedily(
    model: OnnxModel, prompt: np.ndarray, num_steps: int, *, stateful: bool = True
) -> np.ndarray:
    """Continues N prompts by the most likely ids, as `Sampler.continue_ids` does.

    Args:
        model: what predicts.
        prompt: ids `[N, P]`, at least one each.
        num_steps: S, new ids of each, at least one.
        stateful: whether the state is carried; if not, each step sees the newest id alone.

    Returns:
        New ids `[N, S]`.

    Raises:
        InputError: the prompt has no ids of the model, or no steps are asked for.
    """
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, got {num_steps}")
    ids = prompt if stateful else prompt[:, -1:]
    state, new = None, []
    for _ in range(num_steps):
        logits, last = model(ids, state)
        ids = logits[:, -1:].argmax(axis=-1)
        state = last if stateful else None
        new.append(ids)
    return np.concatenate(new, axis=1)
