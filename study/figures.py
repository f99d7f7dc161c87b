"""The study's figures, as PNG files: one function each, of whatever outcomes there are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # Files only: a window system need not be there.
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from astra_jax.atomic import replacing
from astra_jax.charts import PALETTE, TRAIN, VALIDATION
from astra_jax.config import DatasetName
from astra_jax.metrics import EpochMetrics
from astra_jax.presets import NOTEBOOK
from astra_jax.published import PUBLISHED_LOSSES
from study.outcomes import Outcome
from study.verdicts import QUANTITIES, Quantity, Verdict, verdicts_of

Value = Callable[[EpochMetrics], float]

DATASETS: dict[DatasetName, str] = {"shakespeare": "Tiny Shakespeare", "names": "the names list"}
MODELS = ("alpha", "beta", "gamma")

BAND = 0.18
"""Opacity of the range of the seeds."""

_GREY = "0.35"
_PUBLISHED: dict[str, Any] = {"linestyle": "", "marker": "o", "ms": 4.5, "mfc": "none"}
_LOSSES: dict[Quantity, tuple[int, Value]] = {
    "train": (TRAIN, lambda line: line.train_loss_nats),
    "validation": (VALIDATION, lambda line: line.val_loss_nats),
}


def draw_curves(outcomes: Sequence[Outcome], dataset: DatasetName, path: Path) -> bool:
    """Draws the losses of a dataset's models over their epochs, a panel a model.

    Args:
        outcomes: of all models.
        dataset: whose models are drawn.
        path: the .png to write.

    Returns:
        Whether there was anything to draw.
    """
    models = _by_model(_of(outcomes, dataset))
    if not models:
        return False
    figure, panels = _panels(1, len(models), width=3.6, height=3.7)
    for axes, found in zip(panels[0], models, strict=True):
        for outcome in found:
            for quantity, (color, value) in _LOSSES.items():
                _draw_range(axes, outcome, value, color, f"{quantity}{_recipe(outcome)}")
        _draw_published(axes, found[0])
        axes.set(title=_title(found[0]), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0][0].set_ylabel("loss (nats per character)")
    _legend(figure)
    _save(figure, path)
    return True


def _draw_range(axes: Axes, outcome: Outcome, value: Value, color: int, label: str) -> None:
    """Draws the mean over the seeds, and the range from the lowest to the highest."""
    epochs = outcome.epochs
    spreads = [outcome.of_epoch(epoch, value) for epoch in epochs]
    shade = PALETTE[color][0]
    marker = "." if len(epochs) == 1 else ""
    means = [spread.mean for spread in spreads]
    axes.plot(epochs, means, color=shade, linestyle=_line(outcome), marker=marker, label=label)
    lowest, highest = ([getattr(s, name) for s in spreads] for name in ("lowest", "highest"))
    axes.fill_between(epochs, lowest, highest, color=shade, alpha=BAND, linewidth=0)


def _draw_published(axes: Axes, outcome: Outcome) -> None:
    if not outcome.is_published_setup:
        return
    published = PUBLISHED_LOSSES.get((outcome.row.dataset, outcome.row.model), {})
    for column, (quantity, (color, _)) in enumerate(_LOSSES.items()):
        label = "published train" if quantity == "train" else "published validation"
        losses = [pair[column] for pair in published.values()]
        if losses:
            axes.plot(list(published), losses, color=PALETTE[color][0], label=label, **_PUBLISHED)


def draw_scaling(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draws validation loss over parameters, training characters and seconds, a row a dataset.

    Args:
        outcomes: of all models.
        path: the .png to write.

    Returns:
        Whether there was anything to draw.
    """
    rows = [found for dataset in DATASETS if (found := _of(outcomes, dataset))]
    if not rows:
        return False
    figure, panels = _panels(len(rows), 3, width=3.6, height=3.1, sharey="row")
    for row, found in zip(panels, rows, strict=True):
        for outcome in found:
            _draw_sizes(row[0], outcome)
            for axes, progress in zip(row[1:], (_chars, _seconds), strict=True):
                _draw_over(axes, outcome, progress(outcome))
        row[0].set_ylabel(f"validation loss (nats)\n{DATASETS[found[0].row.dataset]}")
        for axes in row:
            _scale_by_powers(axes)
    names = ("parameters", "characters trained on", "seconds of training")
    for axes, name in zip(panels[-1], names, strict=True):
        axes.set_xlabel(name)
    known = [outcome for found in rows for outcome in found]
    last, lowest = ({"marker": "o", "mfc": fill} for fill in (_GREY, "none"))
    _key(figure, known, {"after the last epoch": last, "at its lowest": lowest | {"ms": 9}})
    _save(figure, path)
    return True


def _draw_sizes(axes: Axes, outcome: Outcome) -> None:
    """Draws the last epoch's loss, filled, and the lowest, open, over the model's size."""
    values = [outcome.of_epoch(epoch, _LOSSES["validation"][1]) for epoch in outcome.epochs]
    last, best = values[-1], min(values, key=lambda spread: spread.mean)
    look: dict[str, Any] = {
        "color": _color(outcome),
        "marker": "o" if _is_notebook(outcome) else "D",
    }
    errors = [[last.mean - last.lowest], [last.highest - last.mean]]
    axes.errorbar([outcome.parameters], [last.mean], yerr=errors, capsize=3, markersize=6, **look)
    axes.plot([outcome.parameters], [best.mean], mfc="none", markersize=10, **look)


def _draw_over(axes: Axes, outcome: Outcome, progress: Sequence[float]) -> None:
    values = [outcome.of_epoch(epoch, _LOSSES["validation"][1]) for epoch in outcome.epochs]
    look: dict[str, Any] = {"color": _color(outcome), "linestyle": _line(outcome)}
    means = [spread.mean for spread in values]
    axes.plot(progress, means, marker="." if len(means) == 1 else "", **look)
    lowest, highest = ([getattr(s, name) for s in values] for name in ("lowest", "highest"))
    axes.fill_between(progress, lowest, highest, color=look["color"], alpha=BAND, linewidth=0)


def _chars(outcome: Outcome) -> list[float]:
    """Returns the characters trained on until the end of each epoch."""
    first = outcome.furthest[0]
    return [first.training_chars * line.step / first.steps_done for line in first.epochs]


def _seconds(outcome: Outcome) -> list[float]:
    """Returns the seconds of training until the end of each epoch, the mean over the seeds."""
    totals, total = [], 0.0
    for epoch in outcome.epochs:
        total += outcome.seconds(epoch)
        totals.append(total)
    return totals


def draw_overfitting(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draws how far validation is above training over the epochs, a panel a dataset.

    Args:
        outcomes: of all models.
        path: the .png to write.

    Returns:
        Whether there was anything to draw.
    """
    rows = [found for dataset in DATASETS if (found := _of(outcomes, dataset))]
    if not rows:
        return False
    figure, panels = _panels(1, len(rows), width=5.0, height=3.7)
    for axes, found in zip(panels[0], rows, strict=True):
        for outcome in found:
            _draw_gap(axes, outcome)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(title=DATASETS[found[0].row.dataset], xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0][0].set_ylabel("validation − training loss (nats)")
    known = [outcome for found in rows for outcome in found]
    marks = {"lowest validation loss": {"marker": "v", "ms": 8}}
    if any(outcome.is_published_setup for outcome in known):
        marks["published"] = _PUBLISHED
    _key(figure, known, marks)
    _save(figure, path)
    return True


def _draw_gap(axes: Axes, outcome: Outcome) -> None:
    color = _color(outcome)
    gaps = [outcome.of_epoch(epoch, _gap) for epoch in outcome.epochs]
    means = [spread.mean for spread in gaps]
    axes.plot(outcome.epochs, means, color=color, linestyle=_line(outcome))
    best = outcome.best_epoch
    at_best = means[outcome.epochs.index(best)]
    axes.plot([best], [at_best], linestyle="", marker="v", color=color, markersize=8)
    published = PUBLISHED_LOSSES.get((outcome.row.dataset, outcome.row.model), {})
    if outcome.is_published_setup and published:
        published_gaps = [validation - train for train, validation in published.values()]
        axes.plot(list(published), published_gaps, color=color, **_PUBLISHED)


def _gap(line: EpochMetrics) -> float:
    return line.val_loss_nats - line.train_loss_nats


def draw_verdicts(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draws the published losses less ours, and the interval that one more run would be in.

    Args:
        outcomes: of all models.
        path: the .png to write.

    Returns:
        Whether there was anything to draw.
    """
    judged = [(outcome, found) for outcome in outcomes if (found := verdicts_of(outcome))]
    if not judged:
        return False
    figure, panels = _panels(2, len(judged), width=2.9, height=2.4, sharey="row", sharex="col")
    for place, (outcome, verdicts) in enumerate(judged):
        for row, quantity in enumerate(QUANTITIES):
            found = [verdict for verdict in verdicts if verdict.quantity == quantity]
            _draw_differences(panels[row][place], found, _LOSSES[quantity][0])
        number = len(outcome.records)
        seeds = f"{number} seeds" if number > 1 else "1 seed"
        panels[0][place].set_title(f"{outcome.title}, {seeds}")
        panels[-1][place].set_xlabel("epoch")
        panels[-1][place].xaxis.set_major_locator(MaxNLocator(integer=True))
    for row, quantity in enumerate(QUANTITIES):
        panels[row][0].set_ylabel(f"{quantity}:\npublished − ours (nats)")
        shown = [verdict for _, found in judged for verdict in found]
        most = max(_extent(verdict) for verdict in shown if verdict.quantity == quantity)
        panels[row][0].set_ylim(-1.2 * most, 1.2 * most)
    _legend(figure)
    _save(figure, path)
    return True


def _extent(verdict: Verdict) -> float:
    """Returns how far from 0 a panel must reach; intervals of two runs run out of it."""
    half = verdict.half_width if verdict.num_runs > 2 else None
    return max(abs(verdict.difference), half or 0.0, verdict.batch_half_width or 0.0, 1e-3)


def _draw_differences(axes: Axes, verdicts: Sequence[Verdict], color: int) -> None:
    epochs = [verdict.epoch for verdict in verdicts]
    by_runs = [verdict.half_width for verdict in verdicts]
    by_batch = [verdict.batch_half_width for verdict in verdicts]
    for halves, shade, label in (
        (by_runs, PALETTE[color][0], "95 % interval for one more run"),
        (by_batch, "0.5", "for one more batch, were all runs alike"),
    ):
        known = [(epoch, half) for epoch, half in zip(epochs, halves, strict=True) if half]
        if known:
            where, half = zip(*known, strict=True)
            low = [-value for value in half]
            axes.fill_between(where, low, half, color=shade, alpha=BAND, linewidth=0, label=label)
    differences = [verdict.difference for verdict in verdicts]
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.plot(epochs, differences, color=PALETTE[color][0], label="published", **_PUBLISHED)


def _of(outcomes: Sequence[Outcome], dataset: DatasetName) -> list[Outcome]:
    """Returns the outcomes of a dataset that have an epoch behind them."""
    return [each for each in outcomes if each.row.dataset == dataset and each.epochs]


def _by_model(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Returns the outcomes of each model, that of the notebook's recipe first."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.row.model, []).append(outcome)
    return list(grouped.values())


def _is_notebook(outcome: Outcome) -> bool:
    return outcome.row.recipe == NOTEBOOK


def _line(outcome: Outcome) -> str:
    return "-" if _is_notebook(outcome) else "--"


def _recipe(outcome: Outcome) -> str:
    return "" if _is_notebook(outcome) else f", {outcome.row.recipe}"


def _color(outcome: Outcome) -> str:
    known = outcome.row.model in MODELS
    return PALETTE[MODELS.index(outcome.row.model) if known else len(MODELS)][0]


def _title(outcome: Outcome) -> str:
    return f"{outcome.records[0].preset.title}, {outcome.parameters:,} parameters"


def _scale_by_powers(axes: Axes) -> None:
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


def _panels(rows: int, columns: int, *, width: float, height: float, **share: Any) -> Any:
    """Returns a figure and its panels, of inches each, by row and column."""
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(max(width * columns, 6.0), height * rows + 0.5),
        layout="constrained",
        squeeze=False,
        **share,
    )
    for axes in panels.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _entries(figure: Figure) -> Iterator[tuple[str, Any]]:
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        yield from zip(labels, handles, strict=True)


def _key(figure: Figure, outcomes: Sequence[Outcome], marks: dict[str, dict[str, Any]]) -> None:
    """Writes above all panels which colour is which model, and what lines and marks mean."""
    letters = {"alpha": "α", "beta": "β", "gamma": "γ"}
    looks: dict[str, Any] = {}
    for outcome in sorted(outcomes, key=lambda each: each.parameters):
        name = letters.get(outcome.row.model, outcome.row.model)
        looks.setdefault(name, {"color": _color(outcome), "linestyle": "-"})
    for recipe, line in {outcome.row.recipe: _line(outcome) for outcome in outcomes}.items():
        looks[f"{recipe} recipe"] = {"linestyle": line}
    looks |= {name: {"linestyle": ""} | look for name, look in marks.items()}
    lines = [Line2D([], [], **({"color": _GREY} | look)) for look in looks.values()]
    figure.legend(lines, looks.keys(), loc="outside upper center", ncols=len(looks), frameon=False)


def _legend(figure: Figure) -> None:
    """Writes one legend for all panels above them."""
    entries: dict[str, Any] = {}
    for label, handle in _entries(figure):
        entries.setdefault(label, handle)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=min(len(entries), 6),
        frameon=False,
    )


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        # No version or time in it: the same numbers make the same bytes.
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
