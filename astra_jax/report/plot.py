"""Where everything of a chart stands, in shares of the drawing's width and height.

Shares, not pixels: the page stretches lines to its width, while text and marks keep their size.
"""

import math
from dataclasses import dataclass

from astra_jax.report.charts import Chart, Series

MAX_TICKS = 6
MAX_MARKS = 120
"""Points of a curve that show their value when pointed at."""

MAX_DECIMALS = 6
"""Labels with more have an exponent instead."""

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in percent from the left or from the top."""

    label: str
    place: float


@dataclass(frozen=True)
class Mark:
    """A point of a curve, in percent from the left and from the top, and what it says."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Curve:
    """A series, placed.

    Attributes:
        series: what it shows.
        path: SVG path data, in percent.
        marks: its points, some left out where they are many.
    """

    series: Series
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """A chart, placed."""

    chart: Chart
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]

    @property
    def description(self) -> str:
        """Says in words where every curve begins and ends."""
        return "; ".join(
            f"{series.label}: {number(series.points[0][1])} at epoch {series.points[0][0]}, "
            f"{number(series.points[-1][1])} at epoch {series.points[-1][0]}"
            for series in self.chart.series
        )


def place(chart: Chart) -> Plot:
    """Lays a chart out."""
    points = [point for series in chart.series for point in series.points]
    epochs = Scale.over([float(epoch) for epoch, _ in points], whole=True)
    values = Scale.over([value for _, value in points] + [0.0] * chart.from_zero)
    return Plot(
        chart=chart,
        x_ticks=tuple(Tick(f"{v:.0f}", 100 * epochs.share(v)) for v in epochs.ticks()),
        y_ticks=tuple(Tick(values.label(v), 100 - 100 * values.share(v)) for v in values.ticks()),
        curves=tuple(_curve(series, epochs, values) for series in chart.series),
    )


@dataclass(frozen=True)
class Scale:
    """The numbers from low to high, with a round step between ticks."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: list[float], *, whole: bool = False) -> "Scale":
        """Returns the scale of some values.

        Args:
            values: finite numbers, at least one.
            whole: whether they are counted: the scale then ends where they do, and its steps
                are whole; otherwise it ends at ticks.
        """
        low, high = min(values), max(values)
        if high - low <= 1e-9 * abs(high):  # A scale of so short a reach has no ticks.
            room = 0.5 if whole else abs(low) / 2 or 0.5
            low, high = low - room, high + room
        step = round_step((high - low) / MAX_TICKS)
        if whole:
            return cls(low, high, max(1.0, step))
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, step)

    def share(self, value: float) -> float:
        """Returns how far a value is from low to high, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def label(self, value: float) -> str:
        """Returns a tick's label, to the step's last digit: 2.0, 0.003, 120k, 1.5M."""
        if value == 0:
            return "0"
        largest = max(abs(self.low), abs(self.high))
        unit, suffix = next((u for u in _UNITS if largest >= 10 * u[0]), (1.0, ""))
        decimals = max(0, -math.floor(math.log10(self.step / unit) + 1e-9))
        if decimals > MAX_DECIMALS:
            return f"{value:.3g}"
        return f"{value / unit:.{decimals}f}{suffix}"

    def ticks(self) -> list[float]:
        """Returns the multiples of the step from low to high."""
        # An end that is a multiple of the step may have been rounded past itself.
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [self.step * i for i in range(first, last + 1)]


def round_step(least: float) -> float:
    """Returns the smallest of 1, 2 or 5 times a power of ten that is not below a number."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def number(value: float) -> str:
    """Returns a value to four or five digits, as a person writes it."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def _curve(series: Series, epochs: Scale, values: Scale) -> Curve:
    marks = tuple(
        Mark(
            round(100 * epochs.share(epoch), 2),
            round(100 - 100 * values.share(value), 2),
            f"{series.label}, epoch {epoch}: {number(value)}",
        )
        for epoch, value in series.points
    )
    path = "M" + "L".join(f"{mark.x:g} {mark.y:g}" for mark in marks)
    return Curve(series, path, marks[:: math.ceil(len(marks) / MAX_MARKS)])
