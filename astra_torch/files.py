"""Weight files, .pth as the notebooks write it and .safetensors: arrays and metadata."""

import json
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from astra_jax.atomic import replacing
from astra_jax.errors import InputError
from astra_torch.weights import Arrays

OLDEST_SAFE_TORCH = (2, 10)
"""Unpickling with weights_only=True could corrupt memory before it (CVE-2026-24747)."""


OWN_METADATA = "astra"
"""The key under which a file has this project's JSON text."""

TRAINING = ("optimizer_state_dict", "scheduler_state_dict")
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
    training: dict[str, Any] = {}  # noqa: RUF012  # never changed


def read_pth(path: Path) -> WeightFile:
    """Reads a checkpoint of the notebooks' form: a dictionary with a `state_dict`.

    Raises:
        InputError: the file cannot be read, is no such checkpoint, or would run code.
    """
    torch = _import_torch()
    _require_file(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is no weight file, or holds more than tensors, text and numbers: such a file "
            "could run code, and is never loaded"
        ) from error
    except Exception as error:  # The unpickler raises whatever a damaged stream leads it to.
        raise InputError(f"{path} is damaged or no torch file: {_first_line(error)}") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise InputError(
            f"{path} is not a checkpoint of the notebooks' form: expected a dictionary with a "
            "'state_dict' of tensors"
        )
    training = {name: checkpoint[name] for name in TRAINING if checkpoint.get(name) is not None}
    metadata = {
        name: value for name, value in checkpoint.items() if name not in ("state_dict", *TRAINING)
    }
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float):
            raise InputError(f"{path}: {name} must be text or a number, got {type(value).__name__}")
    own = _parse(metadata.pop(OWN_METADATA, "{}"), path)
    arrays = {name: to_numpy(name, value) for name, value in state.items()}
    return WeightFile(arrays, own | metadata, training)


def write_pth(path: Path, weights: WeightFile, *, overwrite: bool = False) -> None:
    """Writes a checkpoint of the notebooks' form, whole or not at all.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
    """
    torch = _import_torch()
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.arrays.items()}
    with replacing(path, overwrite=overwrite) as temporary:
        torch.save({"state_dict": state, **weights.metadata, **weights.training}, temporary)


def read_safetensors(path: Path) -> WeightFile:
    """Reads a .safetensors file; metadata is parsed as JSON where it is written by this project.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    _require_file(path)
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get(OWN_METADATA, "{}")
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged or no safetensors file: {_first_line(error)}"
        ) from error
    return WeightFile(arrays, _parse(text, path))


def write_safetensors(path: Path, weights: WeightFile, *, overwrite: bool = False) -> None:
    """Writes arrays, and the metadata as one JSON text under the key `astra`.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
    """
    with replacing(path, overwrite=overwrite) as temporary:
        save_file(weights.arrays, temporary, metadata={OWN_METADATA: to_text(weights.metadata)})


def to_text(metadata: dict[str, Any]) -> str:
    """Returns what stands under `OWN_METADATA` in a file."""
    return json.dumps(metadata, ensure_ascii=False)


def _parse(text: Any, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: its metadata is no JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is damaged: its metadata must be an object, got {metadata!r}")
    return metadata


def _import_torch() -> Any:
    """Returns the module: it is slow to import, and .safetensors files do without it."""
    try:
        import torch
    except ImportError as error:
        raise InputError("a .pth file needs PyTorch: pip install 'torch>=2.10'") from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_SAFE_TORCH:
        raise InputError(f"torch {torch.__version__} is not safe with .pth files: install 2.10")
    return torch


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"there is no file {path}")


def to_numpy(name: str, tensor: Any) -> np.ndarray:
    """Returns a torch tensor as an array; raises `InputError` where numpy has no such type."""
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{name} is {tensor.dtype}, expected float32 or float64: convert it first"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
