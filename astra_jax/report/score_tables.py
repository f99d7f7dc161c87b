"""Scorecards as tables for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from astra_jax.report.scorecards import Scorecard, Subject, sum_up
from astra_jax.runs.metrics import Spread
from astra_jax.units import duration

WIDE = 140
"""Columns of a terminal from which on models stand below each other in one table."""

_TITLE = "validation loss: nats, and bits below"
_HEADERS = ("run", "parameters", "characters\ntrained on", "training\ntime")

TITLES = {
    "carried": "state carried",
    "all": "all words",
    "seen": "training words",
    "unseen": "other words",
    "one_batch": "one batch",
    "seen_share": "share of\ntraining words",
}
"""What a reader calls the parts of an evaluation that have no length in their name."""


def score_tables(
    scored: Sequence[tuple[Subject, Sequence[Scorecard]]], width: int = WIDE
) -> list[Table]:
    """Returns the scorecards for a terminal, and of each group a mean.

    Args:
        scored: what was evaluated.
        width: of the terminal, in columns. From `WIDE` on there is a table of texts and one of
            words, with a row for each model; below it a small table for each.
    """
    found = list(_rows(scored))
    if width < WIDE:
        return [_tall(about, cells) for about, cells in found]
    tables: dict[tuple[str, ...], Table] = {}
    for about, cells in found:
        table = tables.setdefault(tuple(cells), _wide(cells))
        table.add_row(*about, *cells.values(), end_section=True)
    return list(tables.values())


def _rows(
    scored: Sequence[tuple[Subject, Sequence[Scorecard]]],
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yields what is to be told of each model and of each group's mean: by whom, and what."""
    for subject, cards in scored:
        evaluated = [card.evaluation.to_dict() for card in cards]
        for card, values in zip(cards, evaluated, strict=True):
            yield _about(card), dict(_cells(values))
        if len(cards) > 1:
            about = [f"{escape(subject.name)}\nmean ± std of {len(cards)}", "", "", ""]
            yield about, dict(_cells(sum_up(evaluated)))


def _wide(cells: dict[str, str]) -> Table:
    table = Table(title=_TITLE, title_justify="left")
    table.add_column(_HEADERS[0])
    for header in (*_HEADERS[1:], *cells):
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _tall(about: list[str], cells: dict[str, str]) -> Table:
    table = Table(
        title=f"{about[0]}\n{_TITLE}", title_justify="left", show_header=False, min_width=44
    )
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for header, cell in zip((*_HEADERS[1:], *cells), (*about[1:], *cells.values()), strict=True):
        if cell:  # A group's mean has no parameters of its own.
            table.add_row(" ".join(header.split()), cell)
    return table


def _about(card: Scorecard) -> list[str]:
    run = card.run
    seconds = card.train_seconds
    what = f"{run.preset.title} on {card.corpus.name}"
    return [
        # Names that a person or a stranger gave are not rich's markup.
        escape("\n".join([run.folder.resolve().name, what, _machine(run.environment)])),
        f"{run.preset.model.num_parameters:,}",
        "–" if card.trained_chars is None else f"{card.trained_chars:,}",
        "–" if seconds is None else duration(seconds),
    ]


def _machine(environment: dict[str, Any]) -> str:
    """Returns what computed; a run folder may be a stranger's, and say anything of it."""
    devices = environment.get("devices")
    kinds = sorted(set(map(str, devices))) if isinstance(devices, list) else []
    if kinds and kinds != ["cpu"]:
        return _printable(f"{len(devices or [])} × {', '.join(kinds)}")
    processor, cores = environment.get("processor", "–"), environment.get("cores", "–")
    return _printable(f"{processor}, {cores} cores")


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:80]


def _cells(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields a column's title and content for every part of an evaluation, or of several."""
    for name, value in values.items():
        title = TITLES.get(name, f"windows of {name.removeprefix('windows_')}")
        if name == "one_batch":
            mean, std = (_mean(value[part]) for part in ("mean", "std"))
            yield title, f"{mean:.4f}\n" + (f"± {std:.4f}" if value["num_batches"] > 1 else "–")
        elif name == "seen_share":
            yield title, _number(value, percent=True)
        elif name not in ("kind", "num_targets"):
            pair = value and (_number(value["loss_nats"]), _number(value["bits_per_char"]))
            yield title, "\n".join(pair) if pair else "–"


def _mean(value: Any) -> float:
    return Spread.from_dict(value).mean if isinstance(value, dict) else value


def _number(value: Any, *, percent: bool = False) -> str:
    """Returns a number, or the mean of several with its deviation, in four places."""
    if isinstance(value, dict):
        spread = Spread.from_dict(value)
        if not percent:
            return spread.describe()
        return f"{spread.mean:.1%} ± {spread.std:.1%}"
    return f"{value:.1%}" if percent else f"{value:.4f}"
