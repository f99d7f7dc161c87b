"""Pictures of charts, as PNG files."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from astra_jax.atomic import replacing
from astra_jax.charts import PALETTE, Chart, Series, loss_chart
from astra_jax.runs import LOSS_FIGURE, Run


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
        axes.set(xlabel="epoch", ylabel=f"{chart.title.lower()} ({chart.unit})", title=caption)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if chart.from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(lines, [series.label for series in chart.series], frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def _look(series: Series) -> dict[str, Any]:
    color = PALETTE[series.color][0]
    if series.style == "marks":
        return {"color": color, "linestyle": "", "marker": "o", "markerfacecolor": "none"}
    marker = "." if len(series.points) == 1 else ""
    return {
        "color": color,
        "linestyle": {"solid": "-", "dotted": ":"}[series.style],
        "marker": marker,
    }


def _caption(run: Run) -> str:
    model = run.preset.model
    return (
        f"{run.preset.title}, {model.num_parameters:,} parameters, on {run.corpus.name}"
        f" ({run.corpus.origin}), seed {run.preset.train.seed}"
    )


def draw_first_letters(shares: dict[str, dict[str, float]], path: Path) -> Path:
    """Draws how often words begin with each letter, and returns the file.

    Args:
        shares: by letter, of several lists of words by their names.
        path: the .png to write.
    """
    letters = sorted(set().union(*shares.values()))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(shares)
    for index, (name, share) in enumerate(shares.items()):
        places = [place + (index - (len(shares) - 1) / 2) * width for place in range(len(letters))]
        axes.bar(places, [share.get(letter, 0.0) for letter in letters], width, label=name)
    axes.set_xticks(range(len(letters)), [letter or "none" for letter in letters])
    axes.set(ylabel="share of names", title="First letters")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return path
