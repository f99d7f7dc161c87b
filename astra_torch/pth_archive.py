"""An untrusted .pth, checked before torch's unpickler and after it.

Such a file is a zip archive: a pickle of the whole dictionary, and each tensor's bytes as a record
of its own. `weights_only=True` makes sure that no code is run. This module makes sure that a small
file does not claim large tensors, and that torch reads exactly what was checked: the records that
count are read, compared with their checksums, and copied into an archive of our own making.
"""

import io
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from astra_jax.errors import InputError, first_line
from astra_jax.storage.strict_json import MAX_WHOLE

MAX_PICKLE_BYTES = 2**22
"""Of the dictionary without its tensors' values, about 150 bytes a tensor."""

MAX_DIRECTORY_BYTES = 2**23
"""Of the archive's list of records, about 100 bytes a tensor."""

MAX_PARTS = 2**18
"""Of the dictionary and all that is in it."""

MAX_DEPTH = 16

_NUMBERS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}Storage" for name in _NUMBERS),
}
"""What a checkpoint names: dictionaries, and dense tensors of numbers."""

_WRITTEN = """
PROTO STOP MARK GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET
EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
"""
_OPCODES = frozenset(_WRITTEN.split())
"""What torch.save writes: no other opcode needs to be understood."""

MAY_RUN_CODE = (
    "{} is no weight file, or holds more than tensors, text and numbers: such a file could run "
    "code, and is never loaded"
)

_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"


def repack(path: Path) -> io.BytesIO:
    """Returns what of a .pth torch may read, in a new archive.

    Raises:
        InputError: it is damaged, claims more than it holds, or could run code.
    """
    with path.open("rb") as file:
        try:
            _require_small_directory(file)
            with zipfile.ZipFile(file) as archive:
                return _copy(archive, path)
        except InputError:
            raise
        except Exception as error:  # Many, where an archive is damaged.
            what = first_line(error)
            if "CRC" in what:  # torch can be told to write none.
                what += "; if it was saved with set_crc32_options(False), save it with checksums"
            raise InputError(f"{path} is damaged or no torch file: {what}") from error


def _require_small_directory(file: IO[bytes]) -> None:
    """Looks at the archive's end: `zipfile` makes an object for each record that is listed."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read()
    if tail[-22:-18] != _END or tail[-2:] != b"\0\0":
        raise ValueError(
            "it does not end as torch's archives do; one of before torch 1.6, or saved with "
            "_use_new_zipfile_serialization=False, is to be saved anew"
        )
    (listed,) = struct.unpack("<I", tail[-10:-6])
    if tail[:4] == _END_64:
        (listed,) = struct.unpack("<Q", tail[40:48])
    if listed > MAX_DIRECTORY_BYTES:
        raise ValueError(f"its directory of {listed:,} bytes is larger than any checkpoint's")


def _copy(archive: zipfile.ZipFile, path: Path) -> io.BytesIO:
    records = archive.infolist()
    names = [record.filename for record in records]
    roots = [
        name.removesuffix("data.pkl") for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)
    ]
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{path} is a TorchScript archive, a program: save a checkpoint of its state_dict"
        )
    if len(roots) != 1 or len(set(names)) != len(names):
        raise ValueError("it must have one data.pkl, and every record once")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("it is compressed, which torch.save does not do: unpack it first")
    claimed, size = sum(record.file_size for record in records), path.stat().st_size
    if claimed > size:
        raise ValueError(f"it claims {claimed:,} bytes and has {size:,}")
    wanted = re.compile(re.escape(roots[0]) + r"(data\.pkl|version|byteorder|data/\d+)")
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as new:
        for record in records:
            match = wanted.fullmatch(record.filename)
            if match is None:
                continue
            data = archive.read(record)  # Compared with its CRC, which torch leaves alone.
            if match[1] == "data.pkl":
                _require_plain_pickle(data, path)
            new.writestr(f"archive/{match[1]}", data)
    copy.seek(0)
    return copy


def _require_plain_pickle(data: bytes, path: Path) -> None:
    if len(data) > MAX_PICKLE_BYTES:
        raise ValueError(f"its dictionary of {len(data):,} bytes is larger than any checkpoint's")
    if data[:1] == pickle.PROTO and data[1:2] != b"\2":
        raise InputError(
            f"{path} was saved with pickle protocol {data[1]}: save it with torch.save's own, 2"
        )
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL" and argument not in _GLOBALS:
            raise InputError(
                f"{MAY_RUN_CODE.format(path)}; it names {argument!r}: save plain numbers, as "
                "float(value), and dense tensors of float32 or float64"
            )
        if opcode.name not in _OPCODES:
            raise InputError(MAY_RUN_CODE.format(path))
        if isinstance(argument, int) and abs(argument) > MAX_WHOLE:
            raise ValueError("it has a whole number that does not fit into 64 bits")
        if isinstance(argument, str):
            argument.encode()  # Half a surrogate pair is no text.


def require_tree(checkpoint: Any, path: Path) -> None:
    """Finds out that an unpickled checkpoint may be looked into.

    A pickle can give a dictionary of torch's attributes of its own, which then stand in for its
    methods: `values`, say.

    Raises:
        InputError: one has others than torch gives it, or the containers are large or no tree.
    """
    for _ in _leaves(checkpoint, path):
        pass


def require_untied(state: dict[Any, Any], path: Path) -> None:
    """Finds out that no two tensors of a state dict are one: in Astra's models none are.

    Raises:
        InputError: two begin at the same place of memory, which training would part.
    """
    import torch

    owners: dict[int, Any] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            continue
        owner = owners.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if owner != name:
            raise InputError(
                f"{path}: {owner} and {name} share their values, and no weights of Astra's models "
                "are tied: save copies of them, by tensor.clone(), if each is to be trained alone"
            )


def require_plain(checkpoint: Any, path: Path) -> None:
    """Finds out that an unpickled checkpoint is a small tree of ordinary tensors, text and numbers.

    Args:
        checkpoint: what torch has made of the file.
        path: where it is, for messages.

    Raises:
        InputError: something in it is of another type or contains itself, or tensors show more
            values than the file has.
    """
    import torch

    shown = 0
    for leaf in _leaves(checkpoint, path):
        if type(leaf) in (torch.Tensor, torch.nn.Parameter):
            if leaf.layout != torch.strided or leaf.device.type != "cpu" or leaf.is_quantized:
                raise InputError(f"{path} has a tensor that is not dense: {leaf.layout}")
            shown += leaf.numel() * leaf.element_size()
        elif leaf is not None and type(leaf) not in (str, int, float, bool):
            raise InputError(f"{path} has a {type(leaf).__name__}, expected tensors, text, numbers")
    if shown > (size := path.stat().st_size):
        raise InputError(
            f"{path} has tensors of {shown:,} bytes in a file of {size:,}: some show values of "
            "others, or one value many times; save copies of them, by tensor.clone()"
        )


def _leaves(value: Any, path: Path) -> Iterator[Any]:
    """Yields what nested containers hold, keys too; of a tree, where a pickle can be any graph."""
    waiting, parts = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        if not isinstance(value, dict | list | tuple):
            yield value
            continue
        if set(getattr(value, "__dict__", ())) - {"_metadata"}:
            raise InputError(f"{path} is no checkpoint: a dictionary in it has attributes")
        inner = [*dict.keys(value), *dict.values(value)] if isinstance(value, dict) else value
        parts += len(inner)
        if parts > MAX_PARTS or depth == MAX_DEPTH:
            raise InputError(
                f"{path} is no checkpoint: its dictionary has more than {MAX_PARTS:,} parts, or "
                f"is nested deeper than {MAX_DEPTH}"
            )
        waiting += [(part, depth + 1) for part in inner]
