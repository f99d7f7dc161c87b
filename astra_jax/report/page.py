"""The page: from run folders to one HTML file, and the charts beside it."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2

from astra_jax import __version__
from astra_jax.errors import InputError
from astra_jax.report.charts import PALETTE, all_charts
from astra_jax.report.content import compare, describe
from astra_jax.report.figures import draw_chart
from astra_jax.report.plot import place
from astra_jax.runs.folder import Run
from astra_jax.storage.atomic import write_text

GENERATOR = "Astra report"
"""What a report says it was made by, and is known by."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def write_report(runs: Sequence[Run], path: Path, *, with_samples: bool = True) -> list[Path]:
    """Writes a page about runs, and every chart of it as a picture beside it.

    Args:
        runs: at least one; several overlay in the same charts.
        path: of the page; a report that is there already is replaced, anything else is not.
        with_samples: whether every run's newest model writes samples.

    Returns:
        The files, the page first.

    Raises:
        InputError: the file is no place for a page, or a run's metrics are damaged.
    """
    labels = _labels(runs)
    charts = all_charts(runs, labels)
    pictures = [path.with_name(f"{path.stem}-{chart.name}.png") for chart in charts]
    _require_place(path, pictures)
    sections = [
        describe(run, label, with_samples=with_samples)
        for run, label in zip(runs, labels, strict=True)
    ]
    page = (
        _environment()
        .get_template("page.html")
        .render(
            generator=f"{GENERATOR} {__version__}",
            heading=sections[0].title if len(runs) == 1 else f"{len(runs)} runs",
            sections=sections,
            comparison=compare(sections),
            plots=[place(chart) for chart in charts],
            palette=PALETTE,
        )
    )
    # A carriage return ends a line of HTML as well, and in some corpora every one.
    lines = page.replace("\r\n", "\n").replace("\r", "\n")
    write_text(path, _UNPRINTABLE.sub("\ufffd", lines))
    texts = (" (built-in text)" if run.uses_builtin_text else "" for run in runs)
    caption = ", ".join(map("".join, zip(labels, texts, strict=True)))
    for chart, picture in zip(charts, pictures, strict=True):
        draw_chart(chart, caption, picture)
    return [path, *pictures]


def _environment() -> jinja2.Environment:
    # Everything that a run folder says is text: a stranger's may look like HTML.
    return jinja2.Environment(
        loader=jinja2.PackageLoader("astra_jax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Returns the folders' names, numbered where they are the same."""
    names = [_UNPRINTABLE.sub("\ufffd", run.folder.resolve().name) for run in runs]
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(f"{name} ({seen[name]})" if names.count(name) > 1 else name)
    return labels


def _require_place(path: Path, pictures: Sequence[Path]) -> None:
    """Finds out, before any work is done, whether a page and its pictures may be written there.

    Raises:
        InputError: it may not.
    """
    if path.suffix != ".html":
        raise InputError(f"{path} must end in .html")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file")
    if path.exists() and f'content="{GENERATOR} '.encode() not in path.read_bytes()[:1000]:
        raise InputError(f"{path} exists and is no report of ours: choose another name")
    there = next((picture for picture in pictures if picture.exists()), None)
    if there is not None and not path.exists():
        raise InputError(f"{there} exists, and no report that it is of: choose another name")
