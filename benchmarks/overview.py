"""The overview: of each model, the few numbers that the project's goals are stated in."""

from collections.abc import Mapping
from typing import Any

from benchmarks.floor import MEMORY_FLOOR, PRODUCTS_FLOOR
from benchmarks.peers import EVAL, NOTEBOOK_FLOAT32, OURS, SAMPLE, TRAIN
from benchmarks.rounds import Spread, ratio
from benchmarks.tables import NONE, Table
from benchmarks.writing import MANY, many

_PEERS = ("notebook", "notebook-compiled", "torch-hoisted", "torch-gru", "nnx-rnn")

_TRAINED = ("notebook", NOTEBOOK_FLOAT32, *_PEERS[1:])

_ONNX = "onnxruntime"

_WRITERS = ("torch-stateful", _ONNX)


def overview(documents: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Returns a table each of training steps, evaluation, one text and many; a row a record."""
    found: dict[str, list[tuple[str, ...]]] = {"steps": [], "batches": [], "one": [], "many": []}
    for name, document in documents.items():
        for record in document["records"]:
            link = f"[{name}]({name}.json)"
            if record["what"] == TRAIN:
                found["steps"].append((link, *_training(record)))
            elif record["what"] == EVAL:
                found["batches"].append((link, *_evaluation(record)))
            elif record["what"] == SAMPLE:
                found["one"].append((link, *_one_text(record)))
                found["many"].append((link, *_many_texts(record)))
    tables = [
        Table(
            title="A training step, and how many times as long the others take",
            head=("", "precision", "ms", *_TRAINED, PRODUCTS_FLOOR, "notebook ÷ products"),
            rows=tuple(found["steps"]),
            notes=(
                "torch-gru and nnx-rnn have other, easier equations. The last column is what a "
                "step would gain on the notebook's if it were nothing but its products.",
            ),
        ),
        Table(
            title="The evaluation of a batch, and how many times as long the others take",
            head=("", "ms", *_PEERS, _ONNX, PRODUCTS_FLOOR),
            rows=tuple(found["batches"]),
        ),
        Table(
            title="A character of one text, and how many times as long the others take",
            head=("", "µs", "notebook", *_WRITERS, MEMORY_FLOOR),
            rows=tuple(found["one"]),
        ),
        Table(
            title=f"A step of {MANY} texts, and how many times as long the others take",
            head=("", "µs", *_WRITERS, PRODUCTS_FLOOR, "× the characters/s of one text"),
            rows=tuple(found["many"]),
        ),
    ]
    return [table for table in tables if table.rows]


def _training(record: Mapping[str, Any]) -> tuple[str, ...]:
    taken, floor = record["seconds"], record["floor"]
    others = [_times(taken, name) for name in (*_TRAINED, floor)]
    return record["precision"], _milliseconds(taken), *others, _times(taken, "notebook", of=floor)


def _evaluation(record: Mapping[str, Any]) -> tuple[str, ...]:
    taken = record["seconds"]
    others = [_times(taken, name) for name in (*_PEERS, _ONNX, record["floor"])]
    return _milliseconds(taken), *others


def _one_text(record: Mapping[str, Any]) -> tuple[str, ...]:
    taken = record["seconds"]
    others = [_times(taken, name) for name in ("notebook", *_WRITERS, record["floor"])]
    return f"{1e6 * Spread.of(taken[OURS]).median:.4g}", *others


def _many_texts(record: Mapping[str, Any]) -> tuple[str, ...]:
    taken, ours = record["seconds"], many(OURS)
    others = [
        _times(taken, name, of=ours) for name in (*map(many, _WRITERS), record["floor_of_many"])
    ]
    speed = record["many"] / ratio(taken[ours], taken[OURS]).median
    return f"{1e6 * Spread.of(taken[ours]).median:,.0f}", *others, f"{speed:.2g}"


def _milliseconds(taken: Mapping[str, list[float]]) -> str:
    return f"{1e3 * Spread.of(taken[OURS]).median:.4g}"


def _times(taken: Mapping[str, list[float]], name: str, *, of: str | None = OURS) -> str:
    """Returns how many times as long as another somebody takes, in the same rounds."""
    if of is None or not {name, of} <= taken.keys():
        return NONE
    return f"{ratio(taken[name], taken[of]).median:.3g}"
