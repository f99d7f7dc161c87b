"""What most readers look for: of every model the few numbers that the goals are about."""

from collections.abc import Mapping
from typing import Any

from benchmarks.floor import MATMULS, MEMORY
from benchmarks.peers import EVAL, NOTEBOOK_FLOAT32, OURS, SAMPLE, TRAIN
from benchmarks.rounds import Summary, summarize
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
            head=("", "precision", "ms", *_TRAINED, MATMULS, "notebook ÷ products"),
            rows=tuple(found["steps"]),
            notes=(
                "torch-gru and nnx-rnn have other, easier equations. The last column is what a "
                "step would gain on the notebook's if it were nothing but its products.",
            ),
        ),
        Table(
            title="The evaluation of a batch, and how many times as long the others take",
            head=("", "ms", *_PEERS, _ONNX, MATMULS),
            rows=tuple(found["batches"]),
        ),
        Table(
            title="A character of one text, and how many times as long the others take",
            head=("", "µs", "notebook", *_WRITERS, MEMORY),
            rows=tuple(found["one"]),
        ),
        Table(
            title=f"A step of {MANY} texts, and how many times as long the others take",
            head=("", "µs", *_WRITERS, MATMULS, "× the characters/s of one text"),
            rows=tuple(found["many"]),
        ),
    ]
    return [table for table in tables if table.rows]


def _training(record: Mapping[str, Any]) -> tuple[str, ...]:
    summaries = summarize(record["seconds"])
    others = [_ratio(summaries, name) for name in (*_TRAINED, record["floor"])]
    milliseconds = f"{1e3 * summaries[OURS].seconds.median:.4g}"
    return record["precision"], milliseconds, *others, _most(record["seconds"], record["floor"])


def _evaluation(record: Mapping[str, Any]) -> tuple[str, ...]:
    summaries = summarize(record["seconds"])
    others = [_ratio(summaries, name) for name in (*_PEERS, _ONNX, record["floor"])]
    return f"{1e3 * summaries[OURS].seconds.median:.4g}", *others


def _most(seconds: Mapping[str, list[float]], floor: str | None) -> str:
    """Returns how many times as long as the floor the notebook takes, in the same rounds."""
    if floor is None or "notebook" not in seconds:
        return NONE
    pair = {floor: seconds[floor], "notebook": seconds["notebook"]}
    return _ratio(summarize(pair), "notebook")


def _one_text(record: Mapping[str, Any]) -> tuple[str, ...]:
    summaries = summarize(record["seconds"])
    others = [_ratio(summaries, name) for name in ("notebook", *_WRITERS, record["floor"])]
    return f"{1e6 * summaries[OURS].seconds.median:.4g}", *others


def _many_texts(record: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = record["seconds"]
    # The first is what the others are held to: here ours, of as many texts.
    summaries = summarize({many(OURS): seconds[many(OURS)], **seconds})
    others = [_ratio(summaries, name) for name in (*map(many, _WRITERS), record["floor_of_many"])]
    speed = record["many"] / summarize(seconds)[many(OURS)].ratio.median
    return f"{1e6 * summaries[many(OURS)].seconds.median:,.0f}", *others, f"{speed:.2g}"


def _ratio(summaries: Mapping[str, Summary], name: str) -> str:
    return f"{summaries[name].ratio.median:.3g}" if name in summaries else NONE
