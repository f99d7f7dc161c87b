"""What is measured, as JSON: everything that is needed to know what a number means."""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from astra_jax.errors import InputError
from astra_jax.machine.environment import describe_environment, vector_instructions
from astra_jax.storage.atomic import write_text
from benchmarks.contest import contest
from benchmarks.growth import growth
from benchmarks.lengths import lengths_contest
from benchmarks.lineup import Rules
from benchmarks.memory import memory_of_all
from benchmarks.peers import EVAL, MEMORY, SAMPLE, TRAIN
from benchmarks.seeds import seeds_contest
from benchmarks.setting import Setting
from benchmarks.start import start_times
from benchmarks.writing import writing_contest

LENGTHS, START, GROWTH, SEEDS = "length", "start", "growth", "seeds"

_PACKAGES = ("torch", "onnxruntime")


MEASUREMENTS: Mapping[str, Callable[[Setting, Rules], dict[str, Any]]] = {
    TRAIN: lambda setting, rules: contest(TRAIN, setting, rules) | memory_of_all(setting, rules),
    EVAL: lambda setting, rules: contest(EVAL, setting, rules),
    SAMPLE: writing_contest,
    LENGTHS: lengths_contest,
    MEMORY: memory_of_all,
    START: start_times,
    GROWTH: growth,
    SEEDS: seeds_contest,
}
"""What can be measured, by the name that the command line has for it."""

OF_BATCHES = TRAIN, EVAL, MEMORY, START
"""What `--devices` is for: the others choose theirs by the work."""

ALL = tuple(what for what in MEASUREMENTS if what != MEMORY)  # Training steps come with theirs.


def measure(what: str, setting: Setting, rules: Rules) -> dict[str, Any]:
    """Measures one thing, and returns its record."""
    return {
        "what": what,
        "commit": _commit(),
        **_of(setting),
        **({"devices": setting.place.mesh.size} if what in OF_BATCHES else {}),
        "torch_device": str(setting.torch_device),
        "torch_threads": setting.num_threads,
        "repeats": rules.repeats,
        "seconds_a_turn": rules.seconds,
        **MEASUREMENTS[what](setting, rules),
    }


def _of(setting: Setting) -> dict[str, Any]:
    """Returns what all records of a file have in common."""
    return {"preset": setting.preset.to_dict(), "precision": setting.precision}


def _commit() -> str | None:
    """Returns which program it is that is measured; None where git does not know."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # There is no git.
        return None
    return done.stdout.strip() or None


def measure_all(
    wanted: Mapping[str, Rules], setting: Setting, path: Path | None
) -> Iterator[dict[str, Any]]:
    """Measures one thing after the other, and writes each into a file once it is known.

    What the file has of the same model and machine stays there until it is measured anew.

    Args:
        wanted: what is measured, and how.
        setting: what for.
        path: the file, which need not be there; None writes nothing.

    Yields:
        Each record.

    Raises:
        InputError: as `read_same` does.
    """
    found = {} if path is None else read_same(path, setting)
    for what, rules in wanted.items():
        found[what] = measure(what, setting, rules)
        yield found[what]  # It is shown first: the file may not be writable any more.
        if path is not None:
            write(path, found.values())


def read_same(path: Path, setting: Setting) -> dict[str, dict[str, Any]]:
    """Returns the records of a file, which need not be there, by what they measured.

    Args:
        path: the file.
        setting: what they are to be of.

    Raises:
        InputError: the file is of another machine, other versions, another model or precision.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first, or give another --json")
    if not path.exists():
        return {}
    document = _parse(path)
    if document is None:
        raise InputError(f"{path} is no record of benchmarks: give another file to --json")
    was, now = document["environment"], describe_machine()
    other = [name for name in was | now if was.get(name) != now.get(name)]
    for record in document["records"]:
        other += [name for name, value in _of(setting).items() if record[name] != value]
    if other:
        raise InputError(
            f"{path} was measured otherwise ({', '.join(dict.fromkeys(other))}): give another file "
            "to --json, or move it away"
        )
    return {record["what"]: record for record in document["records"]}


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes records, with versions and machine."""
    order = list(MEASUREMENTS)
    records = sorted(records, key=lambda record: order.index(record["what"]))
    document = {"environment": describe_machine(), "records": records}
    write_text(path, json.dumps(document, indent=1) + "\n")


def describe_machine() -> dict[str, Any]:
    """Returns versions and machine of a measurement, with the vectors that its processor has."""
    return describe_environment(_PACKAGES) | {"vector_instructions": vector_instructions()}


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the documents of a folder by the names of their files, sorted.

    Raises:
        InputError: there is none, or one is no such document.
    """
    documents = {}
    for path in sorted(folder.glob("*.json")):
        document = _parse(path)
        if document is None:
            raise InputError(f"{path} is no record of benchmarks: move it away")
        documents[path.stem] = document
    if not documents:
        raise InputError(
            f"{folder} holds no record of benchmarks: make some by scripts/benchmark.py --json"
        )
    return documents


def _parse(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        known = all(
            record["what"] in MEASUREMENTS and record.keys() >= {"preset", "precision"}
            for record in document["records"]
        )
    except (ValueError, LookupError, TypeError):
        return None
    return document if known and "environment" in document else None
