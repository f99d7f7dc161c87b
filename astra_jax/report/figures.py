"""Pictures of charts, as PNG files."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from astra_jax.report.charts import PALETTE, Chart, Series, loss_chart
from astra_jax.runs.folder import LOSS_FIGURE, Run
from astra_jax.storage.atomic import replacing

DPI = 150
"""Dots per inch of every figure."""


def draw_losses(run: Run) -> Path:
    """Draws a run's losses over its epochs into its folder, and returns the file.

    Raises:
        InputError: the run has no metrics yet.
    """
    path = run.folder / LOSS_FIGURE
    draw_chart(loss_chart(run), _caption(run), path)
    return path


def draw_chart(chart: Chart, caption: str, path: Path) -> None:
    """Draws a chart into a PNG file.

    Args:
        chart: what to draw.
        caption: its title.
        path: the file, replaced if it is there.
    """
    # Names come out of a run folder: a dollar sign in them begins no formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        # Without pyplot, which would choose a window system for the whole process.
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        lines = [
            axes.plot(*zip(*series.points, strict=True), **_look(series))[0]
            for series in chart.series
        ]
        axes.set(xlabel="epoch", ylabel=f"{chart.title.lower()}\n({chart.unit})", title=caption)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if chart.from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(lines, [series.label for series in chart.series], frameon=False)
        save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure into a PNG file, replaced if it is there, and returns the file."""
    with replacing(path) as temporary:
        # No version or time in it: the same numbers make the same bytes.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    return path


def _look(series: Series) -> dict[str, Any]:
    color = PALETTE[series.color][0]
    if series.style == "marks":
        return {"color": color, "linestyle": "", "marker": "o", "markerfacecolor": "none"}
    style, point = {"solid": ("-", "o"), "dotted": (":", "x")}[series.style]
    marker = point if len(series.points) == 1 else ""
    return {"color": color, "linestyle": style, "marker": marker}


def _caption(run: Run) -> str:
    model = run.preset.model
    return (
        f"{run.preset.title}, {model.num_parameters:,} parameters, on {run.corpus.name}"
        f" ({run.corpus.origin}), seed {run.preset.train.seed}"
    )
