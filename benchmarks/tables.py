"""Records as tables, for a screen and for a page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.peers import EVAL, MEMORY, OURS, PEERS, SAMPLE, TRAIN
from benchmarks.records import GROWTH, LENGTHS, SEEDS, START
from benchmarks.rounds import Spread, Summary, summarize
from benchmarks.writing import many

NONE = "–"

WIDTH = 130
"""Columns of the tables, on a screen that is narrower too."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        title: what was measured, on what shape.
        head: the columns; the first says who.
        rows: their cells.
        notes: lines below it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Returns it as Markdown."""
        lines = [self.head, ("---", *("---:" for _ in self.head[1:])), *self.rows]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n\n".join([f"**{self.title}**", body, *self.notes])

    def rich(self) -> RichTable:
        """Returns it for a terminal."""
        table = RichTable(title=escape(self.title), title_justify="left", box=None)
        for index, name in enumerate(self.head):
            table.add_column(name, justify="right" if index else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(escape, row))
        table.caption = escape("\n".join(self.notes)) or None
        table.caption_justify = "left"
        return table


def tables_of(record: Mapping[str, Any]) -> list[Table]:
    """Returns the tables of one record."""
    return _TABLES[record["what"]](record)


def _contest(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of a training step, or of the evaluation of a batch."""
    summaries = summarize(record["seconds"])
    floor = summaries.pop(record["floor"], None)
    memory = record.get("memory", {})
    head = ("", "ms", "quartiles", "× ours", "characters/s", "GFLOP/s")
    head, rows = (*head, "of the floor") if floor else head, []
    for name, summary in summaries.items():
        seconds = summary.seconds.median
        row = (
            _mark(name),
            *_time(summary),
            f"{record['characters'] / seconds:,.0f}",
            f"{record['flops'] / seconds / 1e9:,.1f}",
        )
        if floor:
            row = (*row, f"{100 * floor.seconds.median / seconds:.0f} %")
        rows.append((*row, *(_memory_cells(memory.get(name)) if memory else ())))
    if memory:
        head = (*head, *_MEMORY_HEAD)
    if floor:
        rows.append((record["floor"], *_time(floor), *[NONE] * (len(head) - 4)))
    return [
        Table(
            title=f"{_WHAT[record['what']]}, {_shape(record)}",
            head=head,
            rows=tuple(rows),
            notes=_notes(record, summaries),
        )
    ]


_MEMORY_HEAD = ("peak MB, step", "peak MB, gradient")


def _memory_cells(peaks: Mapping[str, int] | None) -> tuple[str, ...]:
    if peaks is None:
        return (NONE, NONE)
    return tuple(f"{peaks[one] / 1e6:,.0f}" for one in ("training", "gradient"))


def _memory(record: Mapping[str, Any]) -> list[Table]:
    rows = tuple((_mark(name), *_memory_cells(peaks)) for name, peaks in record["memory"].items())
    title = f"Memory, {_shape(record)}"
    notes = _notes(record, record["memory"])
    return [Table(title=title, head=("", *_MEMORY_HEAD), rows=rows, notes=notes)]


def _writing(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of samplers."""
    summaries = summarize(record["seconds"])
    floors = {1: record["floor"], record["many"]: record["floor_of_many"]}
    rows = []
    for name, summary in summaries.items():
        texts = record["many"] if name.endswith(many("")) else 1
        seconds, is_floor = summary.seconds, name in floors.values()
        rate = texts / seconds.median
        ours = summaries[OURS if texts == 1 else many(OURS)].seconds.median
        share = seconds.median / summaries[floors[texts]].seconds.median
        rows.append(
            (
                _mark(name),
                _spread(seconds, 1e6),
                _spread_only(seconds, 1e6),
                f"{rate:,.0f}",
                NONE if is_floor else f"{ours / seconds.median:.3g}",
                NONE if is_floor else f"{share:.1f}",
            )
        )
    head = ("", "µs a step", "quartiles", "characters/s", "× our speed", "× the floor")
    notes = (*_floors(record, summaries), *_notes(record, summaries))
    title = f"Sampling, {_title(record)}"
    return [Table(title=title, head=head, rows=tuple(rows), notes=notes)]


def _floors(record: Mapping[str, Any], summaries: Mapping[str, Summary]) -> tuple[str, ...]:
    """Returns what the floors of one text and of many are."""
    one, together = (
        summaries[record[floor]].seconds.median for floor in ("floor", "floor_of_many")
    )
    needed = 10 * record["flops"] / record["many"] / summaries[OURS].seconds.median
    return (
        f"The floor of one text: {record['bytes'] / 1e6:.2f} MB of weights, read once a step at "
        f"the {record['bytes'] / one / 1e9:.1f} GB/s that this machine reads so many bytes with. "
        f"Of {record['many']}: {record['flops'] / 1e6:,.1f} MFLOP of products a step at the "
        f"{record['flops'] / together / 1e9:.0f} GFLOP/s that it reaches in their shapes; ten "
        f"times the characters/s of one text would take {needed / 1e9:.0f}.",
    )


def _lengths(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of texts of different lengths."""
    summaries = summarize(record["seconds"])
    longest = list(summaries.values())[-1].seconds.median
    rows = tuple(
        (
            name,
            _spread(summary.seconds, 1e6),
            _spread_only(summary.seconds, 1e6),
            f"{summary.seconds.median / longest:.2f}",
            f"{1e3 * (summary.seconds.median - longest) * int(name.replace(',', '')):.1f}",
        )
        for name, summary in summaries.items()
    )
    head = ("characters", "µs a character", "quartiles", "× the longest text's", "ms more a text")
    title = f"One text of each length, {_title(record)}"
    return [Table(title=title, head=head, rows=rows, notes=_notes(record, summaries))]


def _start(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of processes."""
    summaries = summarize(record["seconds"])
    first = next(iter(summaries.values())).seconds.median
    rows = tuple(
        (
            name,
            f"{summary.seconds.median:.2f}",
            f"{summary.seconds.low:.2f} – {summary.seconds.high:.2f}",
            f"{summary.seconds.median - first:+.2f}",
        )
        for name, summary in summaries.items()
    )
    head = ("", "s", "quartiles", "beyond import jax")
    title = f"Start of a process, {_title(record)}"
    return [Table(title=title, head=head, rows=rows, notes=_notes(record, summaries))]


def _seeds(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of runs of several seeds."""
    summaries, num_runs = summarize(record["seconds"]), record["runs"]
    rows = tuple(
        (
            name,
            _spread(summary.seconds, 1e3 / num_runs),
            _spread_only(summary.seconds, 1e3 / num_runs),
            f"{summary.ratio.median:.2f}",
            f"{record['characters'] / summary.seconds.median:,.0f}",
        )
        for name, summary in summaries.items()
    )
    head = ("", "ms a step and run", "quartiles", "× ours", "characters/s")
    title = f"Runs of {num_runs} seeds, {_shape(record)}"
    return [Table(title=title, head=head, rows=rows, notes=_notes(record, summaries))]


def _growth(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of how the time of a step grows."""
    rows = tuple(
        (
            letter,
            ", ".join(map(str, sweep["sizes"])),
            ", ".join(f"{value:.3g}" for value in sweep["us_per_char"]),
            f"{sweep['exponent']:.2f}",
            f"{sweep['last_exponent']:.2f}",
        )
        for letter, sweep in record["sweeps"].items()
    )
    base = ", ".join(f"{letter} {size}" for letter, size in record["base"].items())
    return [
        Table(
            title=f"Growth of a training step from {base}, {record['precision']}",
            head=("", "sizes", "µs a character", "exponent of a step", "of the last two sizes"),
            rows=rows,
            notes=(
                "Work itself grows with exponent 1 in B, T and L, and with up to 2 in H. The first "
                "layer, which looks its inputs up, costs less than the others.",
            ),
        )
    ]


_TABLES = {
    TRAIN: _contest,
    EVAL: _contest,
    SAMPLE: _writing,
    MEMORY: _memory,
    LENGTHS: _lengths,
    START: _start,
    GROWTH: _growth,
    SEEDS: _seeds,
}
_WHAT = {TRAIN: "Training step", EVAL: "Evaluation of a batch"}


def _title(record: Mapping[str, Any]) -> str:
    return f"{record['preset']['title']}, {record['precision']}"


def _shape(record: Mapping[str, Any]) -> str:
    data = record["preset"]["data"]
    return f"{_title(record)}, batch {data['batch_size']} × {data['seq_len']}"


def _mark(name: str) -> str:
    peer = PEERS.get(name)
    return name if peer is None or peer.same else f"{name} ¹"


def _time(summary: Summary) -> tuple[str, str, str]:
    seconds = summary.seconds
    return _spread(seconds), _spread_only(seconds), f"{summary.ratio.median:.2f}"


def _spread(seconds: Spread, unit: float = 1e3) -> str:
    return _number(unit * seconds.median)


def _spread_only(seconds: Spread, unit: float = 1e3) -> str:
    return f"{_number(unit * seconds.low)} – {_number(unit * seconds.high)}"


def _number(value: float) -> str:
    """Returns a positive number with four digits, or all of its whole ones."""
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _notes(record: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    notes = []
    if any(name in PEERS and not PEERS[name].same for name in names):
        notes.append("¹ Other, easier equations: the reset gate acts after the product.")
    missing = {**record.get("memory_missing", {}), **record.get("missing", {})}
    notes += [f"{name} is missing: {reason}" for name, reason in missing.items()]
    return tuple(notes)
