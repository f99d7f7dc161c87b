"""The study's figures, as PNG files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from astra_jax.report.charts import PALETTE, TRAIN, VALIDATION
from astra_jax.report.figures import save_figure
from study.curves import draw_curves, draw_overfitting, draw_scaling
from study.outcomes import Outcome
from study.panels import (
    BAND,
    PUBLISHED_LOOK,
    by_dataset,
    is_notebook,
    make_panels,
    write_legend,
)
from study.samplers import GREEDY, MEASURES, MODES, PUBLISHED, Written, find, written_by
from study.verdicts import QUANTITIES, Verdict, verdicts_of

CURVES, VERDICTS, SAMPLERS = "curves", "verdicts", "samplers"
SCALING, OVERFITTING = "scaling", "overfitting"
"""Names of the files, less their endings; there is a file of curves for each dataset."""

_BAR = 0.19
"""Width of a bar, and the space around it, where models are 1 apart."""

_COLORS = {"train": TRAIN, "validation": VALIDATION}


def draw_all(outcomes: Sequence[Outcome], out: Path) -> list[Path]:
    """Draws all figures that there is something for, and returns their files.

    Args:
        outcomes: of all models.
        out: the folder of the files.
    """
    rows = by_dataset(outcomes)
    judged = [outcome for outcome in outcomes if verdicts_of(outcome)]
    told = by_dataset([each for each in outcomes if is_notebook(each) and written_by(each)])
    drawn: list[tuple[str, Any, Callable[[Any, Path], None]]] = [
        *((f"{CURVES}-{row[0].row.dataset}", row, draw_curves) for row in rows),
        (VERDICTS, judged, draw_verdicts),
        (SAMPLERS, told, draw_samplers),
        (SCALING, rows, draw_scaling),
        (OVERFITTING, rows, draw_overfitting),
    ]
    paths = []
    for name, found, draw in drawn:
        if found:
            paths.append(out / f"{name}.png")
            draw(found, paths[-1])
    return paths


def draw_verdicts(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draws the published losses less ours, and the interval that one more run would be in.

    Args:
        outcomes: those that there are verdicts on.
        path: the .png to write.
    """
    judged = [(outcome, verdicts_of(outcome)) for outcome in outcomes]
    figure, panels = make_panels(2, len(judged), width=2.9, height=2.4, sharey="row", sharex="col")
    for place, (outcome, verdicts) in enumerate(judged):
        for row, quantity in enumerate(QUANTITIES):
            found = [verdict for verdict in verdicts if verdict.quantity == quantity]
            _draw_differences(panels[row][place], found, _COLORS[quantity])
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
    write_legend(figure)
    save_figure(figure, path)


def _extent(verdict: Verdict) -> float:
    """Returns how far from 0 a panel must reach; intervals of two runs run out of it."""
    half = verdict.half_width if verdict.num_runs > 2 else None
    return max(abs(verdict.difference), half or 0.0, verdict.batch_half_width or 0.0, 1e-3)


def _draw_differences(axes: Axes, verdicts: Sequence[Verdict], color: int) -> None:
    epochs = [verdict.epoch for verdict in verdicts]
    by_runs = [verdict.half_width for verdict in verdicts]
    by_batch = [verdict.batch_half_width for verdict in verdicts]
    for halves, shade, label in (
        (by_runs, PALETTE[color][0], "95 % for one more run"),
        (by_batch, "0.5", "95 % for one more batch"),
    ):
        known = [(epoch, half) for epoch, half in zip(epochs, halves, strict=True) if half]
        if known:
            where, half = zip(*known, strict=True)
            low = [-value for value in half]
            axes.fill_between(where, low, half, color=shade, alpha=BAND, linewidth=0, label=label)
    differences = [verdict.difference for verdict in verdicts]
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.plot(epochs, differences, color=PALETTE[color][0], label="published", **PUBLISHED_LOOK)


def draw_samplers(rows: Sequence[Sequence[Outcome]], path: Path) -> None:
    """Draws what the samplers write with the state carried and without, a row a dataset.

    Args:
        rows: of each dataset the outcomes that have told of samplers.
        path: the .png to write.
    """
    columns = max(len(MEASURES[found[0].is_words]) for found in rows)
    figure, panels = make_panels(len(rows), columns, width=3.6, height=2.9)
    for row, found in zip(panels, rows, strict=True):
        for axes, (name, title) in zip(row, MEASURES[found[0].is_words].items(), strict=True):
            for place, outcome in enumerate(found):
                _draw_samplers(axes, place, written_by(outcome), name)
            axes.set_xticks(range(len(found)), [each.title for each in found])
            axes.set(title=title)
            axes.grid(visible=False, axis="x")
            axes.set_ylim(bottom=0)
            if not name.endswith("nats_per_char"):
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    write_legend(figure)
    save_figure(figure, path)


def _draw_samplers(axes: Axes, place: int, written: list[Written], name: str) -> None:
    """Draws one model's bars, and a line for real text."""
    bars = [(mode, strategy) for strategy in (GREEDY, PUBLISHED) for mode in MODES]
    for index, (mode, strategy) in enumerate(bars):
        one = find(written, mode, strategy)
        if one is None or name not in one.measures:
            continue
        spread, greedy = one.measures[name], strategy == GREEDY
        color = PALETTE[MODES.index(mode)][0]
        label = f"{mode}, {strategy.partition(',')[0]}"
        at = place + (index - 1.5) * _BAR
        reach = [[spread.mean - spread.lowest], [spread.highest - spread.mean]]
        look: dict[str, Any] = {"color": "none", "hatch": "////"} if greedy else {"color": color}
        axes.bar(at, spread.mean, 0.9 * _BAR, edgecolor=color, label=label, yerr=reach, **look)
    real = find(written, "reference", "")
    if real is not None and name in real.measures:
        ends = [place - 2.2 * _BAR, place + 2.2 * _BAR]
        axes.plot(ends, [real.measures[name].mean] * 2, color="0.1", label="real text")
