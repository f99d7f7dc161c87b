"""Thousands of hostile files: each must be refused in one line, or be as good as the original.

python -m parity_tests.fuzz results/hostile-files.json --inputs 20000 --seed 0
"""

import contextlib
import json
import multiprocessing
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tyro.conf import Positional

from astra_jax import cli
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.vocabulary import published_vocabulary
from astra_jax.errors import InputError
from astra_jax.machine.environment import describe_environment
from astra_jax.presets import PRESETS, override
from astra_jax.runs.folder import CONFIG, METRICS, VOCABULARY, Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.storage.atomic import require_new_file, write_text
from astra_jax.storage.hashing import hash_arrays
from astra_torch import conversion, files, sidecars
from astra_torch.onnx_runtime import read_onnx
from astra_torch.parity.cases import random_arrays
from astra_torch.trained_model import TrainedModel
from astra_torch.training_state import OptimizerState
from parity_tests.mutations import JSON, ONNX, SAFETENSORS, Mutation, pth_mutations

SECONDS, MEGABYTES = 20.0, 512
"""What one input may cost: the largest file that is written here has ten megabytes."""

CHUNK = 500

GOOD = ("refused", "equal", "accepted")
BAD = ("changed unnoticed", "crash", "hang", "memory", "code run")
"""What may and what must not come of an input. A changed file without a hash is accepted if it is
a whole model; a changed file that has one must not be."""


Reader = Callable[[Path], str]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A kind of file, and what reads it.

    Attributes:
        path: of the good file, beside which the hostile ones are put.
        mutations: what can be done to it.
        read: reads one, and returns all that it holds in one comparable value.
    """

    path: Path
    mutations: dict[str, Mutation]
    read: Reader


@dataclass(frozen=True)
class Outcome:
    """What came of one input."""

    form: str
    mutation: str
    verdict: str
    detail: str
    seconds: float


class TooLongError(Exception):
    """An input took longer than it may."""


def tiny_model() -> TrainedModel:
    """Returns a model in training, as small as can be."""
    preset = override(
        PRESETS["shakespeare", "beta"],
        **dict(embedding_dim=3, hidden_dim=4, num_layers=1),
        **dict(epochs=6, steps_per_epoch=2),
    )
    arrays = random_arrays(preset)
    moments = {name: np.abs(array) / 100 for name, array in arrays.items()}
    return TrainedModel(
        arrays=arrays,
        preset=preset,
        vocabulary=published_vocabulary("shakespeare"),
        corpus=CorpusRecord.unknown("a test"),
        optimizer=OptimizerState(4, moments, moments, 2),
    )


def make_forms(folder: Path) -> dict[str, Form]:
    """Writes the good files into a folder, of every form with and without a hash."""
    model = tiny_model()
    conversion.write(model, folder / "notebook.pth", weights_only=True)
    for suffix in (".pth", ".safetensors", ".onnx"):
        conversion.write(model, folder / f"hash{suffix}")
    _without_hash(folder)
    run = Run.create(folder / "run", model.preset, model.vocabulary, model.corpus)
    run.write_metrics([EpochMetrics(**dict.fromkeys(EpochMetrics.__dataclass_fields__, 1))])
    pth = pth_mutations(folder / "marker")
    rows: dict[str, tuple[str, dict[str, Mutation], Reader]] = {
        ".pth": ("hash.pth", pth, _weights),
        ".pth of the notebooks, FILE.sha256": ("notebook.pth", pth, _weights),
        ".pth without hash": ("plain.pth", pth, _weights),
        ".safetensors": ("hash.safetensors", SAFETENSORS, _weights),
        ".safetensors without hash": ("plain.safetensors", SAFETENSORS, _weights),
        ".onnx": ("hash.onnx", ONNX, _onnx),
    }
    for name in (CONFIG, VOCABULARY, METRICS):
        rows[f"run folder, {name}"] = (f"run/{name}", JSON, _run)
    return {
        form: Form(path=folder / name, mutations=mutations, read=read)
        for form, (name, mutations, read) in rows.items()
    }


def _without_hash(folder: Path) -> None:
    """Writes what an older version, or another program, would have written."""
    checkpoint = torch.load(folder / "hash.pth", weights_only=True)
    del checkpoint["sha256"]
    torch.save(checkpoint, folder / "plain.pth")
    with safe_open(folder / "hash.safetensors", framework="np") as file:
        texts = {"astra": file.metadata()["astra"]}
    save_file(load_file(folder / "hash.safetensors"), folder / "plain.safetensors", texts)


def has_hash(path: Path) -> bool:
    """Whether a hash belongs to a file that has been read, in it or beside it."""
    if sidecars.path_of(path).exists():
        return True
    if path.suffix == ".pth":
        return "sha256" in torch.load(path, weights_only=True)
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            return "sha256" in (file.metadata() or {})
    return path.suffix == ".onnx" and "sha256" in [
        entry.key for entry in onnx.load(path).metadata_props
    ]


def _weights(path: Path) -> str:
    """Reads a weight file as every command does, and returns all that it holds."""
    trained = conversion.read(path)
    read = files.read_pth if path.suffix == ".pth" else files.read_safetensors
    whole = read(path)
    optimizer = trained.optimizer
    parts = dict(trained.arrays)
    if optimizer:
        parts |= {f"exp_avg {name}": array for name, array in optimizer.exp_avg.items()}
        parts |= {f"exp_avg_sq {name}": array for name, array in optimizer.exp_avg_sq.items()}
    _require_finite(parts)
    texts = [trained.preset, trained.vocabulary, trained.corpus, sorted(whole.metadata.items())]
    texts += [(optimizer.step, optimizer.steps_per_epoch) if optimizer else None]
    return f"{hash_arrays(parts)} {texts!r}"


def _onnx(path: Path) -> str:
    file = read_onnx(path)
    _require_finite(file.constants)
    return f"{hash_arrays(file.constants)} {file.preset!r} {file.vocabulary!r}"


def _run(path: Path) -> str:
    run = Run.open(path.parent)
    run.describe()
    return f"{run!r} {run.metrics()!r}"


def _require_finite(arrays: dict[str, np.ndarray]) -> None:
    assert all(np.isfinite(array).all() for array in arrays.values()), "a value is no number"


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Range:
    """A folder with the good files, in which hostile ones are made and read."""

    def __init__(self, folder: Path):
        """Writes the good files."""
        self.folder, self.forms = folder, make_forms(folder)
        self.good = {name: form.path.read_bytes() for name, form in self.forms.items()}
        self.held = {name: form.read(form.path) for name, form in self.forms.items()}

    def examine(self, number: int, seed: int) -> Outcome:
        """Makes one hostile file and has it read."""
        rng = np.random.default_rng([seed, number])
        torch.manual_seed(number)
        name = list(self.forms)[number % len(self.forms)]
        form = self.forms[name]
        mutation = list(form.mutations)[rng.integers(len(form.mutations))]
        data = form.mutations[mutation](self.good[name], rng)
        form.path.write_bytes(data)
        peak, begun = _peak_megabytes(), time.monotonic()
        verdict, detail = self._read(name, form)
        seconds = time.monotonic() - begun
        if _peak_megabytes() - peak > MEGABYTES:
            verdict, detail = "memory", f"{_peak_megabytes() - peak} MiB"
        if (self.folder / "marker").exists():
            (self.folder / "marker").unlink()
            verdict = "code run"
        form.path.write_bytes(self.good[name])
        return Outcome(name, mutation, verdict, detail, seconds)

    def _read(self, name: str, form: Form) -> tuple[str, str]:
        try:
            with _limited(SECONDS):
                held = form.read(form.path)
        except InputError as error:
            one_line = "\n" not in str(error)
            return ("refused", "") if one_line else ("crash", f"several lines: {error}")
        except TooLongError:
            return "hang", ""
        except BaseException as error:  # Whatever it is, a person would have seen a traceback.
            return "crash", f"{type(error).__name__}: {error}"[:300]
        if held == self.held[name]:
            return "equal", ""
        return ("changed unnoticed" if has_hash(form.path) else "accepted"), ""


def _peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def examine_some(numbers: range, seed: int) -> list[Outcome]:
    """Examines inputs in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        arena = Range(Path(folder))
        return [arena.examine(number, seed) for number in numbers]


def examine_in_processes(numbers: range, seed: int) -> Iterator[list[Outcome]]:
    """Examines inputs in processes that may die of them."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context)
    for begin in range(0, len(numbers), CHUNK):
        chunk = numbers[begin : begin + CHUNK]
        try:
            yield pool.submit(examine_some, chunk, seed).result()
        except BrokenProcessPool:
            for number in chunk:
                with ProcessPoolExecutor(1, mp_context=context) as alone:
                    try:
                        yield alone.submit(examine_some, range(number, number + 1), seed).result()
                    except BrokenProcessPool:
                        yield [Outcome("?", "?", "crash", f"input {number} ended the process", 0)]
            pool = ProcessPoolExecutor(1, mp_context=context)
    pool.shutdown()


def summarize(outcomes: list[Outcome]) -> dict[str, Any]:
    """Returns the counts of each verdict, in all and by form and mutation."""
    total = Counter(outcome.verdict for outcome in outcomes)
    rows: dict[str, dict[str, dict[str, int]]] = {}
    for outcome in sorted(outcomes, key=lambda one: (one.form, one.mutation)):
        row = rows.setdefault(outcome.form, {}).setdefault(outcome.mutation, {})
        row[outcome.verdict] = row.get(outcome.verdict, 0) + 1
    slowest = max(outcomes, key=lambda one: one.seconds)
    return {
        "ok": not any(total[verdict] for verdict in BAD),
        "inputs": len(outcomes),
        "verdicts": {verdict: total[verdict] for verdict in (*GOOD, *BAD)},
        "slowest input, seconds": round(slowest.seconds, 3),
        "environment": describe_environment(("torch", "safetensors", "onnx")),
        "forms": rows,
    }


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """How many files, drawn from which seed, and where the counts go."""

    path: Positional[Path]
    """A new JSON file for the counts."""
    inputs: int = 10_000
    """Number of hostile files."""
    seed: int = 0
    """Decides what is done to them."""


def main(arguments: Arguments) -> int:
    """Examines, writes the counts, and returns 1 if something happened that must not."""
    require_new_file(arguments.path)
    outcomes: list[Outcome] = []
    for some in examine_in_processes(range(arguments.inputs), arguments.seed):
        outcomes += some
        for outcome in some:
            if outcome.verdict in BAD:
                print(outcome, flush=True)
        cli.note(f"{len(outcomes)} of {arguments.inputs}")
    summary = {"seed": arguments.seed} | summarize(outcomes)
    write_text(arguments.path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    print(f"{summary['verdicts']}, written to {arguments.path}")
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
