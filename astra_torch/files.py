"""Weight files, .pth as the notebooks write it and .safetensors: arrays and metadata."""

import io
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from astra_jax.errors import InputError, first_line
from astra_jax.storage import strict_json
from astra_jax.storage.hashing import hash_arrays
from astra_torch import pth_archive, sidecars
from astra_torch.weights import Arrays

OLDEST_SAFE_TORCH = (2, 10)
"""Unpickling with weights_only=True could corrupt memory before it (CVE-2026-24747)."""

MAX_BYTES = 2**34
"""Of a file: four thousand times the largest of the six models."""

MAX_HEADER_BYTES = 2**23
"""Of a .safetensors file's JSON, which has the metadata and about 100 bytes a tensor."""

OWN_METADATA, HASH = "astra", "sha256"
"""The keys under which a file has this project's JSON text, and the hash of all that is in it."""

OWN_FIELDS = ("preset", "vocabulary", "corpus")
"""What that text says. A key of such a name beside it is somebody else's."""

TRAINING_KEYS = ("optimizer_state_dict", "scheduler_state_dict")
"""The keys under which a .pth has what training goes on from, where it has it."""


class WeightFile(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: the state dict.
        metadata: text and numbers beside it, and what this project's own JSON text says.
        training: torch's state dicts of the optimizer and its schedule, by their names in the
            file; only a .pth has them.
    """

    arrays: Arrays
    metadata: dict[str, Any]
    training: Mapping[str, Any] = MappingProxyType({})


def read_pth(path: Path) -> WeightFile:
    """Reads a checkpoint of the notebooks' form: a dictionary with a `state_dict`.

    Raises:
        InputError: the file cannot be read, is no such checkpoint, has changed since it was
            written, or would run code.
    """
    torch = _import_torch()
    require_file(path)
    checked = pth_archive.repack(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # Of what is refused in the next moment.
            checkpoint = torch.load(checked, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(pth_archive.MAY_RUN_CODE.format(path)) from error
    except Exception as error:  # The unpickler raises whatever a damaged stream leads it to.
        raise InputError(f"{path} is damaged or no torch file: {first_line(error)}") from error
    pth_archive.require_tree(checkpoint, path)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if isinstance(state, dict):
        pth_archive.require_untied(state, path)
    pth_archive.require_plain(checkpoint, path)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise InputError(
            f"{path} is not a checkpoint of the notebooks' form: expected a dictionary with a "
            "'state_dict' of tensors"
        )
    training = {
        name: checkpoint[name] for name in TRAINING_KEYS if checkpoint.get(name) is not None
    }
    metadata = {
        name: value
        for name, value in checkpoint.items()
        if name not in ("state_dict", *TRAINING_KEYS)
    }
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float):
            raise InputError(
                f"{path}: {name!r} must be text or a number, got {type(value).__name__}: save the "
                "checkpoint without it"
            )
    arrays = {name: to_numpy(f"{path}: {name}", value) for name, value in state.items()}
    require_unchanged(metadata.pop(HASH, None), arrays, metadata, path, training)
    own = parse_metadata(metadata.pop(OWN_METADATA, "{}"), path)
    said = {name: value for name, value in metadata.items() if name not in OWN_FIELDS}
    return WeightFile(arrays, said | own, training)


def write_pth(path: Path, weights: WeightFile) -> None:
    """Writes a checkpoint of the notebooks' form, whole or not at all.

    One with this project's metadata has a hash beside it. The notebooks' own has exactly their
    keys; its hash stands in a file of its own.

    Raises:
        FileExistsError: the file exists.
    """
    torch = _import_torch()
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.arrays.items()}
    metadata = weights.metadata
    if OWN_METADATA in metadata:
        metadata = metadata | {HASH: hash_of(weights.arrays, metadata, weights.training)}
    # By way of memory: torch's own writer does not say that a disk is full.
    file = io.BytesIO()
    torch.save({"state_dict": state, **metadata, **weights.training}, file)
    is_hashed = HASH in metadata
    sidecars.write_with_hash(path, file.getvalue(), is_hashed=is_hashed)


def read_safetensors(path: Path) -> WeightFile:
    """Reads a .safetensors file; metadata is parsed as JSON where it is written by this project.

    Raises:
        InputError: the file cannot be read, is damaged, or has changed since it was written.
    """
    require_file(path)
    _require_small_header(path)
    try:
        with safe_open(path, framework="np") as file:
            texts = dict(file.metadata() or {})
            names, arrays = file.keys(), {}
            for name in names:
                _require_number_type(name, file.get_slice(name).get_dtype())
                arrays[name] = file.get_tensor(name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # Its own, and numpy's and Rust's of what it lets through.
        raise InputError(
            f"{path} is damaged or no safetensors file: {first_line(error)}"
        ) from error
    require_unchanged(texts.pop(HASH, None), arrays, texts, path)
    return WeightFile(arrays, parse_metadata(texts.get(OWN_METADATA, "{}"), path))


def write_safetensors(path: Path, weights: WeightFile) -> None:
    """Writes arrays, the metadata as one JSON text under the key `astra`, and a hash.

    Raises:
        FileExistsError: the file exists.
    """
    # The library would write a strided array's memory as it lies, under the shape that it has.
    arrays = {name: np.asarray(array, order="C") for name, array in weights.arrays.items()}
    texts = {OWN_METADATA: to_text(weights.metadata)}
    texts[HASH] = hash_of(arrays, texts)
    # By way of memory: its `save_file` would leave a file that only its owner may read.
    data = save(arrays, metadata=texts)
    sidecars.write_with_hash(path, data, is_hashed=True)


def to_text(metadata: dict[str, Any]) -> str:
    """Returns what stands under `OWN_METADATA` in a file."""
    return json.dumps(metadata, ensure_ascii=False)


def parse_metadata(text: Any, path: Path | str) -> dict[str, Any]:
    """Reads what stands under `OWN_METADATA` in a file.

    Raises:
        InputError: it is nothing that `strict_json.parse` takes, or no object.
    """
    if not isinstance(text, str):
        raise InputError(f"{path} is damaged: its metadata must be text, got {text!r}")
    try:
        metadata = strict_json.parse(text)
    except InputError as error:
        raise InputError(f"{path} is damaged: its metadata {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is damaged: its metadata must be an object, got {metadata!r}")
    return metadata


def hash_of(
    arrays: Arrays, metadata: dict[str, Any], training: Mapping[str, Any] | None = None
) -> str:
    """Returns the sha256 of all that a file holds: arrays, text and numbers, training state."""
    everything: Arrays = {f"state_dict/{name}": array for name, array in arrays.items()}
    plain: dict[str, Any] = {}
    _sort_out({**metadata, **(training or {})}, "", everything, plain)
    text = json.dumps(plain, sort_keys=True)
    return hash_arrays(everything | {"plain": np.frombuffer(text.encode(), np.uint8)})


def _sort_out(value: Any, path: str, arrays: Arrays, plain: dict[str, Any]) -> None:
    """Puts nested values by their paths: tensors into `arrays`, all others into `plain`."""
    if isinstance(value, dict | list | tuple):
        plain[path] = len(value)
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            _sort_out(part, f"{path}/{key!r}", arrays, plain)
    elif hasattr(value, "detach"):
        arrays[path] = to_numpy(path, value)
    else:
        plain[path] = value


def require_unchanged(
    digest: Any,
    arrays: Arrays,
    metadata: dict[str, Any],
    path: Path | str,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Raises `InputError` if a file has a hash, and it is not that of what it holds."""
    if digest is not None and digest != hash_of(arrays, metadata, training):
        raise InputError(
            f"{path} does not hold what was written: its {HASH} is another; fetch or export it "
            f"again, or leave the key {HASH!r} out of it if the change was meant"
        )


def _import_torch() -> Any:
    """Returns the module: it is slow to import, and .safetensors files do without it."""
    try:
        import torch
    except ImportError as error:
        raise InputError("a .pth file needs PyTorch: pip install 'torch>=2.10'") from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_SAFE_TORCH:
        raise InputError(
            f"torch {torch.__version__} is not safe with .pth files: pip install 'torch>=2.10'"
        )
    return torch


def require_file(path: Path) -> None:
    """Finds out that there is a file, of a size that can be read, and not another than it was.

    Raises:
        InputError: there is none, it is too large, or `sidecars.verify` finds it changed.
    """
    if not path.is_file():
        what = f"{path} is not a file" if os.path.lexists(path) else f"there is no file {path}"
        raise InputError(what)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes, more than the {MAX_BYTES:,} that are read")
    sidecars.verify(path)


def _require_small_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"{path} is damaged or no safetensors file: a header of {length:,} bytes, more than "
            f"the {MAX_HEADER_BYTES:,} that are read"
        )


def _require_number_type(name: str, dtype: str) -> None:
    if re.fullmatch(r"[FIU](8|16|32|64)|BOOL", dtype) is None:  # As numpy has them.
        raise InputError(f"{name} is {dtype}, expected F32 or F64: convert it first")


def to_numpy(name: str, tensor: Any) -> np.ndarray:
    """Returns a torch tensor as an array; raises `InputError` where numpy has no such type."""
    try:
        return tensor.detach().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{name} is {tensor.dtype}, expected float32 or float64: convert it first"
        ) from error
