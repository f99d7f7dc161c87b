"""What the study's figures have in common: panels, colours, legends, files."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from astra_jax.presets import NOTEBOOK
from astra_jax.report.charts import PALETTE
from study.outcomes import Outcome

MODELS = {"alpha": "α", "beta": "β", "gamma": "γ"}
"""Their letters, in the order of their colours."""

BAND = 0.18
"""Opacity of the range of the seeds."""

GREY = "0.35"
PUBLISHED_LOOK: dict[str, Any] = {"linestyle": "", "marker": "o", "ms": 4.5, "mfc": "none"}


def by_dataset(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Returns the outcomes of each dataset that have an epoch behind them."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.epochs:
            grouped.setdefault(outcome.row.dataset, []).append(outcome)
    return list(grouped.values())


def is_notebook(outcome: Outcome) -> bool:
    """Whether it is by the study's own recipe."""
    return outcome.row.recipe == NOTEBOOK


def line_of(outcome: Outcome) -> str:
    """Returns the kind of line of a recipe."""
    return "-" if is_notebook(outcome) else "--"


def color_of(outcome: Outcome) -> str:
    """Returns the colour of a model, whatever its dataset and recipe."""
    known = [*MODELS, outcome.row.model]
    return PALETTE[known.index(outcome.row.model)][0]


def scale_by_powers(axes: Axes) -> None:
    """Makes the axis of sizes logarithmic, with k and M for thousands and millions."""

    def short(value: float, _: int) -> str:
        for size, letter in ((1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{value / size:g} {letter}"
        return f"{value:g}"

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 300 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.xaxis.set_minor_formatter(NullFormatter())


def make_panels(rows: int, columns: int, *, width: float, height: float, **share: Any) -> Any:
    """Returns a figure and its panels, of inches each, by row and column."""
    inches = max(width * columns, 6.0), height * rows + 0.5
    figure = Figure(figsize=inches, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **share)
    for axes in panels.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _entries(figure: Figure) -> Iterator[tuple[str, Any]]:
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        yield from zip(labels, handles, strict=True)


def write_key(
    figure: Figure, outcomes: Sequence[Outcome], marks: dict[str, dict[str, Any]]
) -> None:
    """Writes above all panels which colour is which model, and what lines and marks mean."""
    looks: dict[str, Any] = {}
    for outcome in sorted(outcomes, key=lambda each: each.parameters):
        name = MODELS.get(outcome.row.model, outcome.row.model)
        looks.setdefault(name, {"color": color_of(outcome), "linestyle": "-"})
    for recipe, line in {outcome.row.recipe: line_of(outcome) for outcome in outcomes}.items():
        looks[f"{recipe} recipe"] = {"linestyle": line}
    looks |= {name: {"linestyle": ""} | look for name, look in marks.items()}
    lines = [Line2D([], [], **({"color": GREY} | look)) for look in looks.values()]
    _place(figure, lines, list(looks), inches=1.3)


def write_legend(figure: Figure) -> None:
    """Writes one legend for all panels above them."""
    entries: dict[str, Any] = {}
    for label, handle in _entries(figure):
        entries.setdefault(label, handle)
    _place(figure, list(entries.values()), list(entries), inches=2.0)


def _place(figure: Figure, handles: list[Any], labels: list[str], *, inches: float) -> None:
    """Writes a legend above all panels, with as many columns of a width as fit."""
    columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
