"""What a folder of certificates says: a figure of the drift, and tables for a reader."""

import itertools
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astra_jax.errors import InputError
from astra_jax.report.figures import save_figure
from astra_jax.report.markdown import markdown_table
from astra_jax.storage.marked_pages import fill_in
from astra_torch.parity.certificate import DRAWN
from astra_torch.parity.quantities import ParityDtype
from astra_torch.tolerances import FLOAT64

README, DRIFT_FIGURE, KILL_TABLE = "README.md", "drift.png", "kill-table.json"
"""Names of files in the folder."""

COLORS = ("#1f6f8b", "#c8553d", "#588157", "#7b5ea7", "#b8860b", "#444444")

Certificates = dict[str, dict[str, Any]]
"""JSON objects by the names of their files."""


def write_report(folder: Path) -> list[Path]:
    """Draws the drift and writes the tables into the folder's README.md.

    Raises:
        InputError: there is no certificate, or no README.md with a place for the tables.
    """
    certificates = _read(folder)
    if not certificates:
        raise InputError(f"{folder} holds no certificate: write some by scripts/validate.py --json")
    readme = folder / README
    tables = [_numbers_table(certificates), _texts_table(certificates), _kill_table(folder)]
    fill_in(readme, "\n\n".join(table for table in tables if table))
    return [readme, draw_drift(certificates, folder / DRIFT_FIGURE)]


def _read(folder: Path) -> Certificates:
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if path.name != KILL_TABLE:
                _order(values)
                found[path.stem] = values
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is no certificate: move it away") from error
    # In the order of the studies: by size.
    return dict(sorted(found.items(), key=lambda item: _order(item[1])))


def _order(values: dict[str, Any]) -> tuple[str, int]:
    preset = values["preset"]
    return preset["data"]["dataset"] == "names", preset["model"]["hidden_dim"]


def draw_drift(certificates: Certificates, path: Path) -> Path:
    """Draws how far the parameters of the two frameworks are apart after every step."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    trained = [values for values in certificates.values() if "training" in values["levels"]]
    for values, color in zip(trained, itertools.cycle(COLORS)):
        for axes, dtype in zip(panels, ("float64", "float32"), strict=True):
            report = values["levels"]["training"].get(dtype, {})
            for drift, style in (("drift", "-"), ("reference_drift", ":")):
                if report.get(drift):
                    steps, errors = report[drift]["step"], report[drift]["parameter"]
                    label = values["preset"]["title"] if style == "-" else None
                    axes.loglog(steps, errors, style, color=color, label=label, linewidth=1.3)
    _finish(panels[0], "float64: JAX from PyTorch")
    panels[0].axhline(FLOAT64, color="black", linewidth=0.8)
    label = dict(xycoords=("axes fraction", "data"), ha="right", textcoords="offset points")
    panels[0].annotate("bound", (1, FLOAT64), xytext=(0, 3), **label)
    _finish(panels[1], "float32: JAX (—) and PyTorch (···) from float64")
    panels[0].set_ylabel("worst tensor's relative difference")
    if trained:
        figure.legend(
            *panels[1].get_legend_handles_labels(), loc="outside right upper", frameon=False
        )
    return save_figure(figure, path)


def _finish(axes: Axes, title: str) -> None:
    axes.set(xlabel="training step", title=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _link(name: str, values: dict[str, Any]) -> str:
    """Returns what a certificate is of, as a link to it."""
    source = next(iter(values["weights"].values()))["source"]
    trained = "" if source.startswith(DRAWN) else f", {source}"
    return f"[{values['preset']['title']}{trained}]({name}.json)"


def _numbers_table(certificates: Certificates) -> str:
    """Returns a row for each level of each certificate: its worst quantities."""
    rows = []
    for name, values in certificates.items():
        for level, reports in values["levels"].items():
            first = next(iter(reports.values()))
            rows.append(
                (
                    _link(name, values),
                    level,
                    f"{first['num_steps']:,}",
                    f"{first['num_values']:,}",
                    *(_worst(reports.get(dtype), dtype) for dtype in ("float64", "float32")),
                    _largest(reports.get("float64", {})),
                    "ok" if all(report["ok"] for report in reports.values()) else "**OUT**",
                )
            )
    head = ("model", "level", "steps", "values compared", f"float64: worst (bound {FLOAT64:g})")
    head = (*head, "float32: worst, of its bound", "float64: any one parameter", "verdict")
    return markdown_table(head, rows, words=len(head))


def _largest(report: dict[str, Any]) -> str:
    """Returns how far any one parameter was off at any step, of its tensor's largest."""
    largest = report.get("largest", {}).get("parameter")
    return "–" if largest is None else f"{largest:.2e}"


def _worst(report: dict[str, Any] | None, dtype: ParityDtype) -> str:
    """Returns the quantity that is nearest to its bound, or beyond."""
    if report is None:
        return "–"
    computed = {name: one for name, one in report["worst"].items() if float(one["bound"])}
    name, one = max(computed.items(), key=lambda item: _use(item[1]))
    figure = f"{float(one['relative']):.1e}" if dtype == "float64" else f"{_use(one):.2f}"
    return f"{figure} ({name})"


def _use(one: dict[str, Any]) -> float:
    return float(one["relative"]) / float(one["bound"])


def _texts_table(certificates: Certificates) -> str:
    rows = [
        (
            _link(name, values),
            f"{text['strategy']}, {'stateful' if text['stateful'] else 'stateless'}",
            f"{text['dtype']}: {' = '.join(text['paths'])}",
            f"{text['num_characters']:,}",
            str(len(text["ties"])),
            str(text["num_mismatches"]),
        )
        for name, values in certificates.items()
        for text in values["texts"]
    ]
    head = ("model", "sampler", "paths", "characters", "ties", "differing texts")
    return markdown_table(head, rows, words=len(head)) if rows else ""


def _kill_table(folder: Path) -> str:
    """Returns a row for each fault, where it was found first and how many bounds away."""
    path = folder / KILL_TABLE
    if not path.is_file():
        return ""
    rows = [
        (fault["fault"], *(_found(fault[dtype]) for dtype in ("float64", "float32")))
        for fault in json.loads(path.read_text(encoding="utf-8"))["faults"]
    ]
    head = ("fault", "float64: level, quantity, × its bound", "float32")
    return markdown_table(head, rows, words=len(head))


def _found(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    factor = found["factor"]
    times = "∞ ×" if factor == "inf" else f"{factor:.2g} ×"
    return f"{found['level']}: {found['check']}, {times}"
