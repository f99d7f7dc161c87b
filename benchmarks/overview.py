"""What most readers look for: of every model the few numbers that the goals are about."""

from collections.abc import Mapping
from typing import Any

from benchmarks.peers import OURS, SAMPLE, TRAIN
from benchmarks.rounds import Summary, summarize
from benchmarks.tables import NONE, Table
from benchmarks.writing import many

_PEERS = ("notebook", "notebook-compiled", "torch-hoisted", "torch-gru", "nnx-rnn")


def overview(documents: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Returns a table of training steps and one of writing, a row for each record of theirs."""
    steps, texts = [], []
    for name, document in documents.items():
        for record in document["records"]:
            if record["what"] == TRAIN:
                steps.append((f"[{name}]({name}.json)", *_training(record)))
            elif record["what"] == SAMPLE:
                texts.append((f"[{name}]({name}.json)", *_writing(record)))
    tables = [
        Table(
            title="A training step, and how many times as long the others take",
            head=("", "precision", "ms", *_PEERS, "the machine's products"),
            rows=tuple(steps),
            notes=("torch-gru and nnx-rnn have other, easier equations.",),
        ),
        Table(
            title="A character of one text, and how many times as long the others take",
            head=(
                "",
                "µs",
                "notebook",
                "torch-stateful",
                "onnxruntime",
                "the machine's memory",
                f"{_texts_at_once(documents)} texts at once, a character of one",
            ),
            rows=tuple(texts),
        ),
    ]
    return [table for table in tables if table.rows]


def _texts_at_once(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns how many texts the records of writing have written together."""
    counts = {
        record["many"]
        for document in documents.values()
        for record in document["records"]
        if record["what"] == SAMPLE
    }
    return " or ".join(map(str, sorted(counts)))


def _training(record: Mapping[str, Any]) -> tuple[str, ...]:
    summaries = summarize(record["seconds"])
    others = [_ratio(summaries, name) for name in (*_PEERS, record["floor"])]
    return record["precision"], f"{1e3 * summaries[OURS].seconds.median:.4g}", *others


def _writing(record: Mapping[str, Any]) -> tuple[str, ...]:
    summaries = summarize(record["seconds"])
    names = ("notebook", "torch-stateful", "onnxruntime", record["floor"])
    together = summaries[many(OURS)].ratio.median / record["many"]
    return (
        f"{1e6 * summaries[OURS].seconds.median:.4g}",
        *(_ratio(summaries, name) for name in names),
        f"{together:.2g}",
    )


def _ratio(summaries: Mapping[str, Summary], name: str) -> str:
    return f"{summaries[name].ratio.median:.3g}" if name in summaries else NONE
