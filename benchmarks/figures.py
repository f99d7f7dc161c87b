"""Curves of cost as work grows, as PNG files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from astra_jax.report.charts import PALETTE
from astra_jax.report.figures import save_figure

_NAMES = {"B": "batch B", "T": "time T", "H": "width H", "L": "layers L"}


def draw_growth(record: Mapping[str, Any], path: Path) -> Path:
    """Draws the time for a character over each size, and returns the file.

    Args:
        record: of growth.
        path: the .png to write.
    """
    sweeps = record["sweeps"]
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)
    for axes, (letter, sweep), colors in zip(panels[0], sweeps.items(), PALETTE, strict=False):
        axes.loglog(sweep["sizes"], sweep["us_per_char"], "o-", color=colors[0])
        axes.set(
            xlabel=_NAMES[letter], title=f"a step costs {letter}$^{{{sweep['exponent']:.2f}}}$"
        )
        axes.set_xticks(sweep["sizes"])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.grid(alpha=0.25, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("µs a character of a training step")
    base = ", ".join(f"{letter} = {size}" for letter, size in record["base"].items())
    figure.suptitle(f"One size grows, the others stay at {base}")
    return save_figure(figure, path)
