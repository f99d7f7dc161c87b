"""The log of the search: what was tried, what it brought, failures among it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_jax.presets import PRESETS, TUNED_FIELDS
from astra_jax.report.markdown import markdown_table
from astra_jax.storage.atomic import write_text
from study.search import FOLDER, Search, read_trials
from study.trials import SEARCHES

LOG = "log.md"

_INTRODUCTION = """\
# The search for a better recipe

The model is the same, training sees no more characters than by the notebook's recipe, and the
validation part is not read: of what the study trains on, the last tenth (of names, a random fifth)
is held back, and trials are judged by the loss on it. Each trial has one seed, so differences of
some thousandths of a nat say nothing, and no recipe was changed for them: Astra-α has a trial, with
decay of the matrices, that is lower by 0.004. The seed decides how the words of a names model are
split, and all trials had seed 0: so of the study's runs, only that of seed 0 is validated on words
that no trial has read. The trials stand in the order in which they were thought of. Smaller models
on a quarter of the training part showed which were worth their time; no record of that is kept. The
best recipe of Astra-β up to then, of rate 0.006, was also trained and evaluated from two seeds; it
gave way to a trial with a lower loss on the part held back, and its losses were not looked at. This
page is written by `python scripts/study.py --only search`, which runs the trials that are missing.
"""


def write_log(out: Path) -> list[Path]:
    """Writes the log of all searches that have results; returns the file, or none.

    Raises:
        InputError: the results of a search are damaged.
    """
    found = [(search, _done(search, read_trials(out, search))) for search in SEARCHES]
    sections = [_section(search, rows) for search, rows in found if rows]
    if not sections:
        return []
    write_text(out / LOG, "\n".join([_INTRODUCTION, *sections]))
    return [out / LOG]


def _done(search: Search, trials: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the results of those trials that are still in the search."""
    return [trials[trial.name] for trial in search.trials if trial.name in trials]


def _section(search: Search, rows: Sequence[dict[str, Any]]) -> str:
    preset = PRESETS[search.dataset, search.model]
    length = (
        ""
        if search.epochs == preset.train.epochs
        else (f" Trials have {search.epochs} epochs, a whole training {preset.train.epochs}.")
    )
    path = f"{FOLDER}/{search.name}.json"
    missing = len(search.trials) - len(rows)
    open_ = f" {missing} of {len(search.trials)} trials are not done yet." if missing else ""
    return "\n".join(
        [
            f"## {preset.title}",
            "",
            f"Losses in nats, from [{search.name}.json]({path}).{length}{open_}",
            "",
            _table(rows, TUNED_FIELDS[search.dataset, search.model]),
            "",
        ]
    )


def _table(rows: Sequence[dict[str, Any]], tuned: Mapping[str, Any]) -> str:
    """Returns the trials as a table in Markdown; that of the tuned recipe is bold."""
    names = [name for name in ("windows_128", "carried", "all") if name in rows[0]["development"]]
    titles = {"windows_128": "128 characters", "carried": "state carried", "all": "every letter"}
    head = ["changed", "hoped for", "train", *(titles[name] for name in names), "difference"]
    lines = []
    base = rows[0]["development"][names[0]]["loss_nats"] if not rows[0]["changes"] else None
    for row in rows:
        losses = [row["development"][name]["loss_nats"] for name in names]
        difference = "–" if base is None or not row["changes"] else f"{losses[0] - base:+.4f}"
        cells = [_changes(row["changes"]), row["why"], f"{row['train_loss_nats']:.4f}"]
        cells += [*(f"{loss:.4f}" for loss in losses), difference]
        if row["changes"] == dict(tuned):
            cells[0] = f"**{cells[0]}: the tuned recipe**"
        lines.append(cells)
    return markdown_table(head, lines, words=2)


def _changes(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in changes.items()) or "nothing"
