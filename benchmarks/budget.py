"""Where a training step's time goes: a profile's operations, by the function that asked for them.

python -m benchmarks.budget results/benchmarks
"""

import glob
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from tyro.conf import Positional

from astra_jax import cli
from astra_jax.errors import InputError
from astra_jax.machine import placement
from astra_jax.presets import find_preset
from astra_jax.storage.atomic import write_text
from astra_jax.storage.marked_pages import fill_in
from astra_jax.training.pace import steps_of_a_call
from benchmarks.jax_peers import JaxPeer, our_trainer
from benchmarks.records import describe_machine
from benchmarks.rounds import clocked
from benchmarks.setting import Precision, Setting
from benchmarks.tables import Table

RECURRENCE = "recurrence"
PARTS: Mapping[str, str] = {
    "draw_keep": "random bits",
    "project": RECURRENCE,
    "_look_up_backward": RECURRENCE,
    "fused_gru": RECURRENCE,
    "scan_gru": RECURRENCE,
    "gru": RECURRENCE,  # What its backward pass consists of stands where it is called.
    "Linear.__call__": "head and loss",
    "cross_entropy_sum": "head and loss",
    "Trainer.apply_gradients": "optimiser",
    "Trainer.update": "optimiser",
    "TextWindows.batch": "batch",
    "PaddedWords.batch": "batch",
}
"""What a step is made of, by the innermost function of the product that an operation stands in."""

KINDS = "products", "other arithmetic"
CONTAINERS = ("while", "call", "conditional", "tuple", "get-tuple-element", "parameter")

MODELS: tuple[tuple[str, str, Precision], ...] = (
    *(("shakespeare", model, "highest") for model in ("alpha", "beta", "gamma")),
    ("shakespeare", "gamma", "bf16"),
    *(("names", model, "highest") for model in ("alpha", "beta", "gamma")),
)
"""Dataset, model, and precision of the products."""
PAGE, RECORD = "where-time-goes.md", "where-time-goes/steps.json"


class Origins:
    """Which part of a step each instruction of a compiled program belongs to."""

    def __init__(self, program: str):
        """Reads a program's text, with the tables of stack frames that it ends with."""
        self._functions = dict(re.findall(r'^(\d+) "([^"/]+)"$', program, re.M))
        self._locations = dict(
            re.findall(r"^(\d+) \{file_name_id=\d+ function_name_id=(\d+) ", program, re.M)
        )
        frames = re.findall(
            r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}", program, re.M
        )
        self._frames = {number: (location, int(parent) - 1) for number, location, parent in frames}
        self.parts = dict(self._instructions(program))

    def _instructions(self, program: str) -> Iterator[tuple[str, str]]:
        pattern = r"^\s*(?:ROOT )?%?([\w.-]+) = .*?[\])}] ([\w-]+)\((.*)$"
        for name, operation, rest in re.findall(pattern, program, re.M):
            frame = re.search(r"stack_frame_id=(\d+)", rest)
            if operation not in CONTAINERS:
                yield name, self._part(operation, rest, frame.group(1) if frame else "0")

    def _part(self, operation: str, rest: str, frame: str) -> str:
        if operation == "all-reduce":
            return "sum over devices"
        names = (re.sub(r"\.<locals>.*", "", name) for name in self._stack(frame))
        part = next((PARTS[name] for name in names if name in PARTS), "everything else")
        path = re.search(r'op_name="([^"]*)"', rest)
        return _of_recurrence(path.group(1) if path else "") if part == RECURRENCE else part

    def _stack(self, frame: str) -> Iterator[str]:
        """Yields the functions that an instruction stands in, from the inside out."""
        while frame in self._frames:
            location, parent = self._frames[frame]
            yield self._functions.get(self._locations.get(location, ""), "")
            frame = str(parent)


def _of_recurrence(path: str) -> str:
    """Returns which part of the recurrence an operation is, by its name, which JAX composes.

    Outside the scans projections and weight gradients are one: the compiler joins their products.
    """
    kind = KINDS[not path.endswith("dot_general")]
    if "while/body" not in path.split("jvp()")[-1]:
        return f"outside the scans: {kind}"
    return f"{'backward' if 'transpose(' in path else 'forward'} scan: {kind}"


def compiled(setting: Setting) -> tuple[JaxPeer, Origins]:
    """Returns who trains, its program being compiled, and where that comes from."""
    peer = JaxPeer(setting, our_trainer(setting))
    return peer, Origins(peer.prepare_training().as_text() or "")


def profile(setting: Setting) -> dict[str, Any]:
    """Returns how long a training step takes, and each of its parts, in milliseconds.

    An operation's time is that on the thread that ran it; on several devices the mean of them.
    """
    peer, origins = compiled(setting)
    peer.train(3)
    count = steps_of_a_call(clocked(lambda: peer.train(1)))
    plain = clocked(lambda: peer.train(count))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            traced = clocked(lambda: peer.train(count))
        times = _times(folder, origins.parts)
    num_devices = setting.place.mesh.size
    scale = 1000 / count / num_devices
    return dict(
        devices=num_devices,
        steps=count,
        step_ms=1000 * plain / count,
        traced_step_ms=1000 * traced / count,
        parts_ms={part: seconds * scale for part, seconds in times.most_common()},
    )


def _title(dataset: str, model: str, precision: Precision) -> str:
    return " ".join([dataset, model, *["bfloat16"] * (precision == "bf16")])


def _times(folder: str, parts: Mapping[str, str]) -> Counter[str]:
    """Returns the seconds of each part in the profile of a folder."""
    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    times: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in parts:
                    times[parts[event.name]] += event.duration_ns / 1e9
    return times


def table(budgets: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the parts of each model's step beside each other, the largest of all first."""
    total: Counter[str] = Counter()
    for budget in budgets:
        spent = sum(budget["parts_ms"].values())
        total.update({part: ms / spent for part, ms in budget["parts_ms"].items()})
    rows = [
        (part, *(_cell(budget["parts_ms"], part) for budget in budgets))
        for part, _ in total.most_common()
    ]
    steps = [
        (what, *(f"{budget[name]:.3g} ms" for budget in budgets))
        for what, name in (
            ("a step, profiled", "traced_step_ms"),
            ("a step, not profiled", "step_ms"),
        )
    ]
    counts = [
        (what, *(str(budget[name]) for budget in budgets))
        for what, name in (("steps of the call", "steps"), ("devices", "devices"))
    ]
    return Table(
        title="Milliseconds of each part, and its share of all of them",
        head=("", *(budget["model"] for budget in budgets)),
        rows=(*rows, *steps, *counts),
    )


def _cell(parts: Mapping[str, float], part: str) -> str:
    ms = parts.get(part, 0.0)
    return f"{ms:.3g} ({100 * ms / sum(parts.values()):.0f} %)"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where the record and the table go."""

    folder: Positional[Path]
    """A folder of benchmarks, with its page where-time-goes.md."""


def main(arguments: Arguments) -> None:
    """Profiles the models, writes the record, and the table into the folder's page."""
    folder = arguments.folder
    if not (folder / PAGE).is_file():
        raise InputError(f"there is no {folder / PAGE}: give the folder that has it")
    placement.split_cpu()
    budgets = [
        dict(model=_title(*one), **profile(Setting(find_preset(one[1], one[0]), one[2])))
        for one in MODELS
    ]
    record = dict(environment=describe_machine(), budgets=budgets)
    (folder / RECORD).parent.mkdir(exist_ok=True)
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    fill_in(folder / PAGE, table(budgets).markdown())


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
