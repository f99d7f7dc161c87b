"""JSON from strangers: no more of it, no deeper and with no larger numbers than anyone needs."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from astra_jax.errors import InputError

MAX_BYTES = 2**22
"""Of a document; the largest vocabulary that a model may have fits in."""

MAX_FILE_BYTES = 2**26
"""Of a file with many of them, one on each line: more epochs' metrics than a run may have."""

MAX_DEPTH = 32
"""Of objects and lists in each other; ours have four."""

MAX_WHOLE = 2**63 - 1


def parse(text: str | bytes) -> Any:
    """Returns the value of a JSON document.

    Raises:
        InputError: it is too long, no UTF-8, no JSON as the standard has it, nested too deeply,
            names a field twice, or has a whole number beyond 64 bits or half a character.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"is longer than the {MAX_BYTES:,} bytes that are read at most")
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
    except InputError:
        raise
    except RecursionError:
        raise InputError(_TOO_DEEP) from None
    except ValueError as error:
        raise InputError(f"is not valid JSON: {error}") from error
    _check(value)
    return value


def read(path: Path) -> Any:
    """Returns the value of a JSON file; raises as `parse` does, and where it cannot be read."""
    try:
        return parse(_read_bytes(path, MAX_BYTES))
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def read_lines(path: Path) -> Iterator[Any]:
    """Yields the values of a file that has one on each line; raises as `parse` does."""
    data = _read_bytes(path, MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"is longer than the {MAX_FILE_BYTES:,} bytes that are read at most")
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        yield parse(line)


def _read_bytes(path: Path, limit: int) -> bytes:
    """Returns what a file holds, at most one byte more than is allowed."""
    if path.exists() and not path.is_file():  # A pipe or a device may have no end.
        raise InputError("is not a file")
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} objects and lists"


def _refuse(constant: str) -> NoReturn:
    raise InputError(f"is not valid JSON: {constant} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InputError("has a field twice in one object")
    return values


def _check(value: Any, depth: int = 0) -> None:
    """Refuses what Python's parser takes and other parts of a program choke on."""
    if isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise InputError(_TOO_DEEP)
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(part, depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError("has half a surrogate pair, which is no character") from None
    elif isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise InputError("has a whole number that does not fit into 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError("has a number that is too large for a float")
