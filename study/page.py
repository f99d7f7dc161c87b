"""The study's page: figures, tables and what they say, all made of the records."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from astra_jax.storage.atomic import write_text
from study import findings, tables
from study.contrasts import GOAL_NATS, pairs_of
from study.figures import CURVES, OVERFITTING, SAMPLERS, SCALING, VERDICTS, draw_all
from study.outcomes import Outcome, outcomes_of
from study.panels import by_dataset, is_notebook
from study.plan import choose, presets_of
from study.records import FOLDER, read_all
from study.samplers import written_by
from study.search_log import LOG
from study.summary import summary_of
from study.verdicts import verdicts_of

README, SUMMARY = "README.md", "summary.json"
"""The page, and the numbers that its sentences and tables are made of."""

_TEMPLATE = Path(__file__).with_name("page.md")


def write_page(out: Path) -> list[Path]:
    """Writes figures, summary and page of all records, and returns the files.

    Raises:
        InputError: a record is damaged, or those of a row do not belong together.
    """
    outcomes = outcomes_of(read_all(out))
    out.mkdir(parents=True, exist_ok=True)
    written = draw_all(outcomes, out)
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    log = LOG if (out / LOG).is_file() else ""
    page = template.render(_content(outcomes), log=log, folder=FOLDER, summary=SUMMARY)
    summary = json.dumps(summary_of(outcomes), indent=1, ensure_ascii=False)
    page = re.sub(r"\n{3,}", "\n\n", page)  # Where a part of the template has nothing to say.
    for name, text in {README: page, SUMMARY: summary}.items():
        write_text(out / name, f"{text.strip()}\n")
        written.append(out / name)
    return written


def _content(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns what the template is filled with."""
    pairs = pairs_of(outcomes)
    rows = by_dataset(outcomes)
    studied = by_dataset(list(filter(is_notebook, outcomes)))
    judged = [outcome for outcome in outcomes if verdicts_of(outcome)]
    return {
        "outcomes": outcomes,
        "rows": [_dataset(row) for row in rows],
        "short": findings.in_short(outcomes),
        "machines": "; ".join(tables.machines(outcomes)),
        "judged": [_judged(outcome) for outcome in judged],
        "tallies": tables.tallies(judged),
        "batches": list(filter(None, map(findings.scatter, outcomes))),
        "scatter": tables.scatter(outcomes),
        "told": [_told(outcome) for outcome in outcomes if written_by(outcome)],
        "sizes": [sentence for row in studied for sentence in findings.scaling(row)],
        "fits": list(filter(None, map(findings.overfitting, outcomes))),
        "rise": findings.RISE_NATS,
        "goal": GOAL_NATS,
        "gains": [findings.tuned(*pair) for pair in pairs],
        "contrasts": tables.contrasts(pairs),
        "missing": _missing(outcomes),
        "verdicts": VERDICTS,
        "samplers": SAMPLERS,
        "scaling": SCALING,
        "overfitting": OVERFITTING,
    }


def _dataset(row: Sequence[Outcome]) -> dict[str, str]:
    return {
        "corpus": row[0].corpus,
        "curves": f"{CURVES}-{row[0].row.dataset}.png",
        "results": tables.results(row),
    }


def _judged(outcome: Outcome) -> dict[str, str]:
    return {
        "title": outcome.title,
        "sentence": findings.verdicts(outcome),
        "numbers": tables.every_verdict(outcome),
    }


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "title": outcome.title,
        "is_notebook": is_notebook(outcome),
        "sentence": findings.samplers(outcome),
        "texts": tables.texts(outcome),
        "numbers": tables.samplers(outcome),
    }


def _missing(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns what of the plan is not recorded to its end, those that have come as far together."""
    known = {each.row.name: {one.seed: one for one in each.records} for each in outcomes}
    gaps: dict[str, list[str]] = {}
    for row in choose(None, None):
        for preset in presets_of(row):
            seed, epochs = preset.train.seed, preset.train.epochs
            record = known.get(row.name, {}).get(seed)
            if record is not None and record.is_complete:
                continue
            stands = "not trained"
            if record is not None:
                stands = f"**{len(record.epochs)} of {epochs} epochs**"
            gaps.setdefault(f"{preset.title}, {row.recipe}: {stands}, seed", []).append(str(seed))
    return [f"{line} {', '.join(seeds)}" for line, seeds in gaps.items()]
