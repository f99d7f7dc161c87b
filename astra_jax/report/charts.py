"""What is drawn of runs: curves as values, for a page and for a picture alike."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from astra_jax.errors import InputError
from astra_jax.published import published_losses
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.units import bits

PALETTE = (
    ("#1f6f8b", "#6cbcd6"),
    ("#bf4a32", "#f0917a"),
    ("#6b4fa0", "#b6a0e8"),
    ("#4b7a2b", "#9ccb78"),
    ("#8f6600", "#e0b557"),
    ("#a0437c", "#e99ac8"),
)
"""Colours of curves, each for light ground and for dark, at 4.5 : 1 against it or more."""

TRAIN, VALIDATION = 0, 1
"""The colours of a single run's losses."""

Style = Literal["solid", "dotted", "marks"]
Value = Callable[[EpochMetrics], float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve.

    Attributes:
        label: what the legend calls it.
        points: (epoch, value), epochs ascending, at least one.
        color: place in `PALETTE`.
        style: a solid or dotted line, or marks alone.
    """

    label: str
    points: tuple[tuple[int, float], ...]
    color: int
    style: Style = "solid"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over epochs.

    Attributes:
        name: letters and hyphens; its files are named after it.
        title: what is drawn.
        unit: of the values.
        series: the curves, at least one.
        from_zero: whether the axis of values begins at 0.
    """

    name: str
    title: str
    unit: str
    series: tuple[Series, ...]
    from_zero: bool = False


def loss_chart(run: Run) -> Chart:
    """Returns a run's losses over its epochs.

    The published losses are among them where the run is of the published model, recipe and
    corpus; nothing else can be held against them.

    Raises:
        InputError: the run has no metrics yet, or damaged ones.
    """
    metrics = run.metrics()
    if not metrics:
        raise InputError(f"{run.folder} has no metrics to draw: train first")
    curves: list[tuple[str, Value, int, Style]] = [
        ("train", lambda line: line.train_loss_nats, TRAIN, "solid"),
        ("validation, every character", lambda line: line.val_loss_nats, VALIDATION, "solid"),
        (
            "validation, the notebook's estimate",
            lambda line: line.val_estimate_nats,
            VALIDATION,
            "dotted",
        ),
    ]
    series = [
        Series(label=label, points=_points(metrics, value), color=color, style=style)
        for label, value, color, style in curves
    ]
    for column, name in ((TRAIN, "train"), (VALIDATION, "validation estimate")):
        series += _published(run, column, f"published {name}", column)
    return Chart(name="loss", title="Loss", unit="nats per character", series=tuple(series))


def all_charts(runs: Sequence[Run], labels: Sequence[str]) -> list[Chart]:
    """Returns the charts of one run, or those in which several overlay.

    Runs without metrics are left out; if all are, there is no chart.

    Args:
        runs: what to draw.
        labels: what to call each.

    Raises:
        InputError: a run's metrics are damaged.
    """
    overlay = _Overlay(runs, labels)
    if not overlay.curves:
        return []
    return [
        *([loss_chart(runs[0])] if len(runs) == 1 else overlay.losses()),
        overlay.chart(
            "bits",
            "Bits per character",
            "every character of the validation part",
            lambda line: bits(line.val_loss_nats),
        ),
        overlay.chart(
            "learning-rate",
            "Learning rate",
            "during the epoch",
            lambda line: line.learning_rate,
            from_zero=True,
        ),
        overlay.chart(
            "gradient-norm",
            "Gradient norm",
            "mean over the epoch, before clipping",
            lambda line: line.grad_norm,
            from_zero=True,
        ),
        overlay.chart(
            "throughput",
            "Throughput",
            "characters trained on, a second",
            lambda line: line.chars_per_s,
            from_zero=True,
        ),
    ]


class _Overlay:
    """Runs with metrics, each with its label and colour."""

    def __init__(self, runs: Sequence[Run], labels: Sequence[str]):
        self.curves = [
            (run, label, metrics, place % len(PALETTE))
            for place, (run, label) in enumerate(zip(runs, labels, strict=True))
            if (metrics := run.metrics())
        ]

    def chart(
        self, name: str, title: str, unit: str, value: Value, *, from_zero: bool = False
    ) -> Chart:
        """Returns one curve a run."""
        series = tuple(
            Series(label=label, points=_points(metrics, value), color=color)
            for _, label, metrics, color in self.curves
        )
        return Chart(name=name, title=title, unit=unit, series=series, from_zero=from_zero)

    def losses(self) -> list[Chart]:
        """Returns training and validation apart, each with the published marks."""
        unit = "nats per character"
        train = self.chart("train-loss", "Training loss", unit, lambda line: line.train_loss_nats)
        validation = self.chart(
            "validation-loss", "Validation loss", unit, lambda line: line.val_loss_nats
        )
        return [
            self._with_published(train, TRAIN, "published"),
            self._with_published(validation, VALIDATION, "published estimate"),
        ]

    def _with_published(self, chart: Chart, column: int, name: str) -> Chart:
        marks: dict[str, Series] = {}
        for run, _, _, color in self.curves:
            for series in _published(run, column, f"{name}, {run.preset.title}", color):
                marks.setdefault(series.label, series)  # Runs may differ in their seed alone.
        return dataclasses.replace(chart, series=(*chart.series, *marks.values()))


def _points(metrics: list[EpochMetrics], value: Value) -> tuple[tuple[int, float], ...]:
    return tuple((line.epoch, value(line)) for line in metrics)


def _published(run: Run, column: int, label: str, color: int) -> list[Series]:
    """Returns the marks of the losses that the study printed, if there are any for this run."""
    published = published_losses(run.preset, run.corpus)
    printed = ((epoch, losses[column]) for epoch, losses in published.items())
    points = tuple((epoch, loss) for epoch, loss in printed if loss is not None)
    return [Series(label=label, points=points, color=color, style="marks")] if points else []
