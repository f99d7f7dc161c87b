"""What becomes of losses: over epochs, over sizes, and of training beside validation."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from astra_jax.report.charts import PALETTE, TRAIN, VALIDATION
from astra_jax.report.figures import save_figure
from astra_jax.runs.metrics import EpochMetrics
from study.outcomes import Outcome
from study.panels import (
    BAND,
    GREY,
    PUBLISHED_LOOK,
    color_of,
    is_notebook,
    line_of,
    make_panels,
    scale_by_powers,
    write_key,
    write_legend,
)
from study.verdicts import Quantity

Value = Callable[[EpochMetrics], float]

_LOSSES: dict[Quantity, tuple[int, Value]] = {
    "train": (TRAIN, lambda line: line.train_loss_nats),
    "validation": (VALIDATION, lambda line: line.val_loss_nats),
}


def draw_curves(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draws the losses of models over their epochs, a panel a model.

    Args:
        outcomes: of one dataset, each with an epoch behind it.
        path: the .png to write.
    """
    models = _by_model(outcomes)
    figure, panels = make_panels(1, len(models), width=3.6, height=3.7)
    for axes, found in zip(panels[0], models, strict=True):
        for outcome in found:
            for quantity, (color, value) in _LOSSES.items():
                _draw_range(axes, outcome, value, color, f"{quantity}{_recipe(outcome)}")
        _draw_published(axes, found[0])
        axes.set(title=_title(found[0]), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0][0].set_ylabel("loss (nats per character)")
    write_legend(figure)
    save_figure(figure, path)


def _draw_range(axes: Axes, outcome: Outcome, value: Value, color: int, label: str) -> None:
    """Draws the mean over the seeds, and the range from the lowest to the highest."""
    epochs = outcome.epochs
    spreads = [outcome.of_epoch(epoch, value) for epoch in epochs]
    shade = PALETTE[color][0]
    marker = "." if len(epochs) == 1 else ""
    means = [spread.mean for spread in spreads]
    axes.plot(epochs, means, color=shade, linestyle=line_of(outcome), marker=marker, label=label)
    lowest, highest = ([getattr(s, name) for s in spreads] for name in ("lowest", "highest"))
    axes.fill_between(epochs, lowest, highest, color=shade, alpha=BAND, linewidth=0)


def _draw_published(axes: Axes, outcome: Outcome) -> None:
    for column, (quantity, (color, _)) in enumerate(_LOSSES.items()):
        label = "published train" if quantity == "train" else "published validation"
        printed = [pair[column] for pair in outcome.published.values()]
        losses = [math.nan if loss is None else loss for loss in printed]
        if losses:
            axes.plot(
                list(outcome.published),
                losses,
                color=PALETTE[color][0],
                label=label,
                **PUBLISHED_LOOK,
            )


def draw_scaling(rows: Sequence[Sequence[Outcome]], path: Path) -> None:
    """Draws validation loss over parameters, training characters and seconds, a row a dataset.

    Args:
        rows: the outcomes of each dataset, each with an epoch behind it.
        path: the .png to write.
    """
    figure, panels = make_panels(len(rows), 3, width=3.6, height=3.1, sharey="row")
    for row, found in zip(panels, rows, strict=True):
        for outcome in found:
            _draw_sizes(row[0], outcome)
            for axes, progress in zip(row[1:], (_chars, _seconds), strict=True):
                _draw_over(axes, outcome, progress(outcome))
        row[0].set_ylabel(f"validation loss (nats)\n{found[0].corpus}")
        for axes in row:
            scale_by_powers(axes)
    names = ("parameters", "characters trained on", "seconds of training")
    for axes, name in zip(panels[-1], names, strict=True):
        axes.set_xlabel(name)
    known = [outcome for found in rows for outcome in found]
    last, lowest = ({"marker": "o", "mfc": fill} for fill in (GREY, "none"))
    write_key(figure, known, {"after the last epoch": last, "at its lowest": lowest | {"ms": 9}})
    save_figure(figure, path)


def _draw_sizes(axes: Axes, outcome: Outcome) -> None:
    """Draws the last epoch's loss, filled, and the lowest, open, over the model's size."""
    values = [outcome.val_loss(epoch) for epoch in outcome.epochs]
    last, best = values[-1], min(values, key=lambda spread: spread.mean)
    look: dict[str, Any] = {
        "color": color_of(outcome),
        "marker": "o" if is_notebook(outcome) else "D",
    }
    errors = [[last.mean - last.lowest], [last.highest - last.mean]]
    axes.errorbar([outcome.parameters], [last.mean], yerr=errors, capsize=3, markersize=6, **look)
    axes.plot([outcome.parameters], [best.mean], mfc="none", markersize=10, **look)


def _draw_over(axes: Axes, outcome: Outcome, progress: Sequence[float]) -> None:
    values = [outcome.val_loss(epoch) for epoch in outcome.epochs]
    look: dict[str, Any] = {"color": color_of(outcome), "linestyle": line_of(outcome)}
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


def draw_overfitting(rows: Sequence[Sequence[Outcome]], path: Path) -> None:
    """Draws how far validation is above training over the epochs, a panel a dataset.

    Args:
        rows: the outcomes of each dataset, each with an epoch behind it.
        path: the .png to write.
    """
    figure, panels = make_panels(1, len(rows), width=5.0, height=3.7)
    for axes, found in zip(panels[0], rows, strict=True):
        for outcome in found:
            _draw_gap(axes, outcome)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(title=found[0].corpus, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0][0].set_ylabel("validation − training loss (nats)")
    known = [outcome for found in rows for outcome in found]
    marks = {"lowest validation loss": {"marker": "v", "ms": 8}}
    if any(outcome.published for outcome in known):
        marks["published"] = PUBLISHED_LOOK
    write_key(figure, known, marks)
    save_figure(figure, path)


def _draw_gap(axes: Axes, outcome: Outcome) -> None:
    color = color_of(outcome)
    gaps = [outcome.of_epoch(epoch, _gap) for epoch in outcome.epochs]
    means = [spread.mean for spread in gaps]
    axes.plot(outcome.epochs, means, color=color, linestyle=line_of(outcome))
    best = outcome.best_epoch
    at_best = means[outcome.epochs.index(best)]
    axes.plot([best], [at_best], linestyle="", marker="v", color=color, markersize=8)
    if published := outcome.published:
        published_gaps = [
            math.nan if validation is None else validation - train
            for train, validation in published.values()
        ]
        axes.plot(list(published), published_gaps, color=color, **PUBLISHED_LOOK)


def _gap(line: EpochMetrics) -> float:
    return line.val_loss_nats - line.train_loss_nats


def _by_model(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Returns the outcomes of each model, that of the notebook's recipe first."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.row.model, []).append(outcome)
    return list(grouped.values())


def _recipe(outcome: Outcome) -> str:
    return "" if is_notebook(outcome) else f", {outcome.row.recipe}"


def _title(outcome: Outcome) -> str:
    return f"{outcome.records[0].preset.title}, {outcome.parameters:,} parameters"
