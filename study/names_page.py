"""How the measures of the names study are written down and shown."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from astra_jax.report.figures import save_figure
from astra_jax.report.markdown import markdown_table
from astra_jax.storage.atomic import write_text
from astra_jax.storage.marked_pages import BEGIN, fill_in

MEASURES, FIGURE, README = "names-fix.json", "first-letters.png", "README.md"
"""What is written into the folder; of a README.md that is there, what stands between its marks."""


def write(out: Path, record: dict[str, Any]) -> list[Path]:
    """Writes a record, its figure and its table into a folder, and returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / MEASURES, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    shares = {"the corpus": record["first_letters"]}
    shares |= {
        name: record["settings"][name]["first_letters"] for name in ("notebook", "start token")
    }
    written = [out / MEASURES, _draw_first_letters(shares, out / FIGURE)]
    readme = out / README
    if readme.is_file() and BEGIN in readme.read_text(encoding="utf-8"):
        fill_in(readme, table(record))
        written.append(readme)
    return written


def table(record: dict[str, Any]) -> str:
    """Returns the measures as a table in Markdown."""
    generated = record["generated_names"]
    rows = {
        "share of validation words that are training words": ("leaked_share", "{:.1%}"),
        "loss of the letters after the first, and the end": ("later_nats", "{:.4f}"),
        "… of words that were trained on": ("leaked_nats", "{:.4f}"),
        "… of words that were not": ("unseen_nats", "{:.4f}"),
        "loss of first letters": ("first_nats", "{:.4f}"),
        "loss of every letter and the end": ("every_nats", "{:.4f}"),
        "KL divergence of first letters": ("kl_nats", "{:.4f}"),
        f"distance of first letters, {generated:,} generated names": ("distance", "{:.3f}"),
    }
    settings = record["settings"]
    lines = []
    for title, (field, form) in rows.items():
        values = [values[field] for values in settings.values()]
        cells = ("–" if value is None else form.format(value) for value in values)
        lines.append((title, *cells))
    return markdown_table(("", *settings), lines)


def _draw_first_letters(shares: dict[str, dict[str, float]], path: Path) -> Path:
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
    return save_figure(figure, path)
