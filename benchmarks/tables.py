"""Records as tables, for a screen and for a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable

from astra_jax.report.markdown import markdown_table
from benchmarks.peers import EVAL, MEMORY, OURS, PEERS, SAMPLE, TRAIN
from benchmarks.records import GROWTH, LENGTHS, SEEDS, START
from benchmarks.rounds import Spread, Summary, ratio, summarize
from benchmarks.writing import many

NONE = "–"

WIDTH = 150
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
        body = markdown_table(self.head, self.rows)
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
    taken, summaries = record["seconds"], summarize(record["seconds"])
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
            row = (*row, f"{100 * ratio(taken[record['floor']], taken[name]).median:.0f} %")
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
    found = ((peaks or {}).get(one) for one in ("training", "gradient"))
    return tuple(NONE if peak is None else f"{peak / 1e6:,.0f}" for peak in found)


def _memory(record: Mapping[str, Any]) -> list[Table]:
    rows = tuple((_mark(name), *_memory_cells(peaks)) for name, peaks in record["memory"].items())
    title = f"Memory, {_shape(record)}"
    notes = _notes(record, record["memory"])
    return [Table(title=title, head=("", *_MEMORY_HEAD), rows=rows, notes=notes)]


def _writing(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of samplers; those of many texts are held to ours of as many."""
    taken, summaries = record["seconds"], summarize(record["seconds"])
    floors = {1: record["floor"], record["many"]: record["floor_of_many"]}
    rows = []
    for name, summary in summaries.items():
        is_many = name.endswith(many("")) or name == record["floor_of_many"]
        texts = record["many"] if is_many else 1
        ours, floor = taken[many(OURS) if is_many else OURS], taken[floors[texts]]
        rows.append(
            (
                _mark(name),
                _spread(summary.seconds, 1e6),
                _spread_only(summary.seconds, 1e6),
                _times(ratio(taken[name], ours)),
                f"{texts / summary.seconds.median:,.0f}",
                NONE if name in floors.values() else f"{ratio(taken[name], floor).median:.3g}",
            )
        )
    head = ("", "µs a step", "quartiles", "× ours", "characters/s", "× the floor")
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
    taken, summaries = record["seconds"], summarize(record["seconds"])
    longest = taken[next(reversed(taken))]
    rows = tuple(
        (
            name,
            _spread(summary.seconds, 1e6),
            _spread_only(summary.seconds, 1e6),
            _times(ratio(taken[name], longest)),
            f"{1e3 * _more(taken[name], longest) * int(name.replace(',', '')):.1f}",
        )
        for name, summary in summaries.items()
    )
    head = ("characters", "µs a character", "quartiles", "× the longest text's", "ms more a text")
    title = f"One text of each length, {_title(record)}"
    return [Table(title=title, head=head, rows=rows, notes=_notes(record, summaries))]


def _start(record: Mapping[str, Any]) -> list[Table]:
    """Returns the table of processes."""
    summaries = summarize(record["seconds"])
    taken, first = record["seconds"], next(iter(record["seconds"].values()))
    rows = tuple(
        (
            name,
            f"{summary.seconds.median:.2f}",
            f"{summary.seconds.low:.2f} – {summary.seconds.high:.2f}",
            f"{_more(taken[name], first):+.2f}",
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
            _times(summary.ratio),
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
    return _spread(seconds), _spread_only(seconds), _times(summary.ratio)


def _times(found: Spread) -> str:
    """Returns a ratio with its quartiles: their spread over the rounds, no confidence interval."""
    if found.low == found.high:  # Of what is held to itself.
        return f"{found.median:.3g}"
    return f"{found.median:.3g} ({found.low:.3g} – {found.high:.3g})"


def _more(taken: Sequence[float], than: Sequence[float]) -> float:
    """Returns how many seconds more some turns took than others of the same rounds."""
    return Spread.of([one - other for one, other in zip(taken, than, strict=True)]).median


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
