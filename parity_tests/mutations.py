"""How a file can be damaged, or made to do harm."""

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

Mutation = Callable[[bytes, np.random.Generator], bytes]
"""Makes a hostile file of a good one, and does it again for the same generator."""

HUGE = (0, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**400)
VALUES: tuple[Any, ...] = (
    *HUGE,
    *(-1e400, 1e400, float("nan"), -0.0, 1e-320, True, None),
    *("", "\0", "\ud800", "../../x", "/dev/zero", "\x1b[2J", "a" * 5000, "NaN"),
    *([], {}, [None], {"": 0}),
)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(8 * len(data), size=rng.choice([1, 1, 1, 2, 8])).tolist():
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    place, length = rng.integers(len(data)), int(rng.integers(1, 33))
    return data[:place] + rng.bytes(length) + data[place + length :]


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    source, target, length = rng.integers(len(data), size=3)
    piece = data[source : source + rng.integers(1, 2 + length)]
    return data[:target] + piece + data[target + len(piece) * rng.integers(2) :]


def cut_out(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = sorted(rng.integers(len(data), size=2))
    return data[:begin] + data[end:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = rng.integers(len(data))
    return data[:place] + rng.bytes(int(rng.integers(1, 2000))) + data[place:]


def write_huge_number(data: bytes, rng: np.random.Generator) -> bytes:
    form = rng.choice(["<Q", "<I", "<H", ">Q"])
    number = struct.pack(form, HUGE[rng.integers(10)] % 2 ** (8 * struct.calcsize(form)))
    place = rng.integers(len(data))
    return data[:place] + number + data[place + len(number) :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    return data * int(rng.integers(2, 4))


BYTES: dict[str, Mutation] = {
    "truncated": truncate,
    "bits flipped": flip_bits,
    "bytes overwritten": overwrite,
    "spliced": splice,
    "a piece missing": cut_out,
    "bytes inserted": insert,
    "a huge number": write_huge_number,
    "twice in one": repeat,
}


def _zip(records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return file.getvalue()


def _records(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def damage_record(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages the pickle or a tensor inside the archive, whose checksums are right again."""
    records = _records(data)
    pickles = [name for name in records if name.endswith(".pkl")]
    name = rng.choice(pickles if rng.integers(4) else list(records))
    records[name] = _any(BYTES, rng)(records[name], rng)
    return _zip(records)


def rename_record(data: bytes, rng: np.random.Generator) -> bytes:
    records = list(_records(data).items())
    names = rng.permutation([name for name, _ in records])
    return _zip({str(new): value for new, (_, value) in zip(names, records, strict=True)})


def bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """Claims much in few bytes: by compression, by its directory, by its dictionary."""
    records = _records(data)
    name = str(rng.choice(list(records)))
    kind = rng.integers(4)
    if kind == 0:
        return _zip(records | {name: bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    if kind == 1:
        return _zip(records | {f"archive/data/{10**6 + n}": b"" for n in range(3000)})
    if kind == 2:
        laughs: Any = []
        for _ in range(12):
            laughs = [laughs] * 12
        return _save({"state_dict": {}, "optimizer_state_dict": laughs})
    depth = int(10 ** rng.integers(1, 6))
    lists = b"]" * depth + b"a" * (depth - 1)
    return _zip(records | {"archive/data.pkl": b"\x80\x02}X\x01\0\0\0x" + lists + b"s."})


def _load(data: bytes) -> dict[str, Any]:
    checkpoint = torch.load(io.BytesIO(data), weights_only=True)
    checkpoint["state_dict"] = dict(checkpoint["state_dict"])
    return checkpoint


def _save(checkpoint: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint, file, **options)
    return file.getvalue()


def swap_keys(data: bytes, rng: np.random.Generator) -> bytes:
    checkpoint = _load(data)
    state = checkpoint["state_dict"]
    kind = rng.integers(5)
    one, other = (str(name) for name in rng.choice(list(state), 2, replace=False))
    if kind == 0:
        state[one], state[other] = state[other], state[one]
    elif kind == 1:
        del state[one]
    elif kind == 2:
        state[f"{one}.more"] = state[other]
    elif kind == 3:
        prefix = rng.choice(["module.", "_orig_mod."])
        checkpoint["state_dict"] = {prefix + name: value for name, value in state.items()}
    else:
        metadata = [name for name in checkpoint if name not in ("state_dict", "sha256")]
        checkpoint[rng.choice(metadata)] = VALUES[rng.integers(len(VALUES))]
    return _save(checkpoint)


TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    torch.Tensor.half,
    torch.Tensor.bfloat16,
    torch.Tensor.double,
    torch.Tensor.int,
    torch.Tensor.bool,
    lambda t: t.to(torch.complex64),
    lambda t: t.to_sparse(),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda t: t.flatten()[:1].expand(10**9),
    lambda t: t.flatten()[:1].expand(2**40, 2**20),
    lambda t: t.mT.contiguous() if t.ndim == 2 else t[None],
    lambda t: t[None],
    lambda t: t[:0],
    lambda t: torch.empty_like(t, device="meta"),
    lambda t: torch.nn.Parameter(t),
    lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged),
    lambda t: torch.where(torch.rand(t.shape) < 0.3, torch.nan, t),
    lambda t: t * torch.inf,
    lambda t: t + 1,
    lambda t: torch.nextafter(t, t + 1),
    lambda t: -t,
    lambda t: t.numpy(),
    lambda t: t.tolist(),
    lambda t: None,
)


def change_tensor(data: bytes, rng: np.random.Generator) -> bytes:
    """Makes something else of a tensor of the weights or of the optimiser's state."""
    checkpoint = _load(data)
    holders = [checkpoint["state_dict"]]
    if "optimizer_state_dict" in checkpoint:
        holders += checkpoint["optimizer_state_dict"]["state"].values()
    holder = holders[rng.integers(len(holders)) if rng.integers(2) else 0]
    name = str(rng.choice(list(holder)))
    if holder[name].ndim:
        holder[name] = TENSORS[rng.integers(len(TENSORS))](holder[name])
    else:  # The number of steps.
        holder[name] = torch.tensor([-1.0, 0.5, 3.0, 2e9, 1e38, torch.nan][rng.integers(6)])
    return _save(checkpoint)


def share_one_storage(data: bytes, rng: np.random.Generator) -> bytes:
    checkpoint = _load(data)
    state = checkpoint["state_dict"]
    values = torch.zeros(max(value.numel() for value in state.values()))
    for name, value in state.items():
        state[name] = values[: value.numel()].view(value.shape)
    return _save(checkpoint)


def change_training(data: bytes, rng: np.random.Generator) -> bytes:
    checkpoint = _load(data)
    parts = [checkpoint[name] for name in checkpoint if name.endswith("_state_dict")]
    _change_json(parts or [checkpoint], rng)
    return _save(checkpoint)


class Code:
    """A pickle of this calls a function when it is loaded, if it is loaded carelessly."""

    def __init__(self, rng: np.random.Generator, marker: Path):
        self.call = (
            (Path.touch, (marker,)),
            (exec, (f"open({str(marker)!r}, 'w').close()",)),
            (eval, (f"open({str(marker)!r}, 'w').close()",)),
            (__import__("os").system, (f"touch {marker}",)),
            (__import__("shutil").copyfile, (__file__, str(marker))),
        )[rng.integers(5)]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def put_code_in(marker: Path) -> Mutation:
    """Returns what puts code into a file that makes `marker` when it is run."""

    def mutate(data: bytes, rng: np.random.Generator) -> bytes:
        code = Code(rng, marker)
        checkpoint = _load(data)
        kind = rng.integers(6)
        if kind == 0:
            return pickle.dumps(code, protocol=int(rng.integers(6)))
        if kind == 1:
            return _save(code)
        if kind == 2:
            checkpoint["state_dict"][str(rng.choice(list(checkpoint["state_dict"])))] = code
        elif kind == 3:
            checkpoint[str(rng.choice([*checkpoint, "more"]))] = code
        elif kind == 4:
            checkpoint["optimizer_state_dict"] = {"state": {0: code}, "param_groups": [code]}
        else:
            return _save(checkpoint | {"x": code}, _use_new_zipfile_serialization=False)
        return _save(checkpoint, pickle_protocol=int(rng.integers(2, 6)))

    return mutate


def pth_mutations(marker: Path) -> dict[str, Mutation]:
    return BYTES | {
        "a record damaged": damage_record,
        "records renamed": rename_record,
        "a bomb": bomb,
        "keys swapped": swap_keys,
        "a tensor of another kind": change_tensor,
        "one storage for all": share_one_storage,
        "training state changed": change_training,
        "code": put_code_in(marker),
    }


def change_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Changes the JSON at the beginning of a .safetensors file, and its length with it."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    one, other = (str(name) for name in rng.choice(names, 2, replace=False))
    kind = rng.integers(7)
    if kind == 0:
        header[one], header[other] = header[other], header[one]
    elif kind == 1:
        types = ("F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", "I64")
        header[one]["dtype"] = rng.choice(types)
    elif kind == 2:
        header[one]["shape"] = [HUGE[n] for n in rng.integers(len(HUGE), size=rng.integers(4))]
    elif kind == 3:
        header[one]["data_offsets"] = [HUGE[n] for n in rng.integers(len(HUGE), size=2)]
    elif kind == 4:
        header["x" * int(10 ** rng.integers(1, 7))] = header[one]
    elif kind == 5:
        header["__metadata__"]["astra"] = "[" * int(10 ** rng.integers(2, 6))
    else:
        metadata = json.loads(header["__metadata__"]["astra"])
        _change_json([metadata], rng)
        header["__metadata__"]["astra"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def damage_body(data: bytes, rng: np.random.Generator) -> bytes:
    begin = 8 + int.from_bytes(data[:8], "little")
    return data[:begin] + flip_bits(data[begin:], rng)


SAFETENSORS: dict[str, Mutation] = BYTES | {
    "header changed": change_header,
    "values changed": damage_body,
}


def change_graph(data: bytes, rng: np.random.Generator) -> bytes:
    model = onnx.load_model_from_string(data)
    graph = model.graph
    tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
    node = graph.node[int(rng.integers(len(graph.node)))]
    kind = rng.integers(9)
    if kind == 0:
        tensor.raw_data = flip_bits(tensor.raw_data, rng)
    elif kind == 1:
        tensor.dims[0] = [0, -1, 2**31, 2**40, 2**62][rng.integers(5)]
    elif kind == 2:
        tensor.data_type = int(rng.integers(30))
    elif kind == 3:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(rng.choice(["/etc/passwd", "../x"])))
    elif kind == 4:
        node.op_type = str(rng.choice(["Sub", "Loop", "If", "ConstantOfShape", "Tile", "GRU"]))
    elif kind == 5:
        node.input.append(tensor.name)
    elif kind == 6:
        graph.node.append(node)
    elif kind == 7:
        for attribute in node.attribute:
            attribute.i = 1 - attribute.i
    else:
        entry = next(entry for entry in model.metadata_props if entry.key == "astra")
        metadata = json.loads(entry.value)
        _change_json([metadata], rng)
        entry.value = json.dumps(metadata)
    return model.SerializeToString()


ONNX: dict[str, Mutation] = BYTES | {"graph changed": change_graph}


def change_json(data: bytes, rng: np.random.Generator) -> bytes:
    values = [json.loads(data)]
    _change_json(values, rng)
    return json.dumps(values[0], ensure_ascii=bool(rng.integers(2))).encode(errors="surrogatepass")


def nest_json(data: bytes, rng: np.random.Generator) -> bytes:
    depth = int(10 ** rng.integers(1, 6))
    inner = b'{"a":' * depth + b"1" + b"}" * depth if rng.integers(2) else b"[" * depth
    return re.sub(rb":\s*[^,{\[]+,", b": " + inner + b",", data, count=1)


def lengthen_json(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b'"', b'"' + b"x" * int(10 ** rng.integers(3, 8)), 1)


JSON: dict[str, Mutation] = BYTES | {
    "a value changed": change_json,
    "nested deeply": nest_json,
    "long": lengthen_json,
}


def _change_json(values: list[Any], rng: np.random.Generator) -> None:
    """Puts something else in one place of nested values, removes it, or gives it another name."""
    holder: Any = values
    key: Any = int(rng.integers(len(values)))
    while isinstance(holder[key], dict | list) and holder[key] and rng.integers(6):
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[int(rng.integers(len(keys)))]
    kind = rng.integers(6)
    if kind == 0 and holder is not values:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == 2 and isinstance(holder[key], int | float):
        holder[key] = holder[key] + float(rng.choice([1, -1, 0.5, 1e-9]))
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]


def _any(mutations: dict[str, Mutation], rng: np.random.Generator) -> Mutation:
    return list(mutations.values())[rng.integers(len(mutations))]
