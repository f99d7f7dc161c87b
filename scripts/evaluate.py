#!/usr/bin/env python
"""Evaluate trained models on every character of their validation part.

Examples:
  python scripts/evaluate.py runs/shakespeare-alpha-1
  python scripts/evaluate.py runs/shakespeare-alpha-seeds-1 runs/names-alpha-1 --json scores.json
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import Positional

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.console import Console
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.splits import Split
from astra_jax.errors import InputError
from astra_jax.evaluation import NUM_BATCHES
from astra_jax.experiments.lifecycle import builtin_warning, find_corpus
from astra_jax.machine import compile_cache, placement
from astra_jax.report.score_tables import WIDE, score_tables
from astra_jax.report.scorecards import Scorecard, Subject, scores_record
from astra_jax.storage.atomic import require_new_file, write_text


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to evaluate, and where the numbers go."""

    runs: Positional[tuple[Path, ...]]
    """Run folders, or folders of runs of several seeds; at least one."""
    best: bool = False
    """Take the checkpoint of the lowest validation loss, not the newest."""
    corpus: Annotated[str | None, default("where it was")] = None
    """Where the text is now that the runs were trained on."""
    batches: int = NUM_BATCHES
    """Single random batches, which tell how much the notebook's estimate scatters."""
    json: Annotated[Path | None, default("none")] = None
    """Write all numbers into this new file."""


def main(arguments: Arguments) -> None:
    """Evaluates, prints the table, writes the numbers."""
    placement.split_cpu()
    subjects = _open(arguments)
    if message := compile_cache.enable():
        cli.note(message)
    texts = [find_corpus(subject.runs, arguments.corpus) for subject in subjects]
    if any(corpus.origin == "built-in" for corpus, _ in texts):
        cli.note(builtin_warning(chosen=True))  # The runs were begun on it.
    for subject, (corpus, _) in zip(subjects, texts, strict=True):
        if subject.is_of_unknown_text:
            cli.note(
                f"note: {subject.name} does not tell what it was trained on: it is evaluated as if "
                f"on {corpus.name}, divided as its config.json says"
            )
    scored = [
        (subject, _score(subject, *text, arguments))
        for subject, text in zip(subjects, texts, strict=True)
    ]
    console = Console(highlight=False)
    if not console.is_terminal:  # Nobody's lines are too short there.
        console.width = WIDE
    for table in score_tables(scored, console.width):
        console.print(table)
    if arguments.json:
        text = json.dumps(scores_record(scored), indent=1, ensure_ascii=False) + "\n"
        write_text(arguments.json, text, overwrite=False)
        console.print(f"written to {arguments.json}", soft_wrap=True, markup=False)


def _open(arguments: Arguments) -> list[Subject]:
    """Refuses what could only fail after the work is done."""
    if not arguments.runs:
        raise InputError("no run folder is given: name at least one")
    if arguments.batches < 1:
        raise InputError(f"--batches must be at least 1, got {arguments.batches}")
    if arguments.json:
        require_new_file(arguments.json)
    return [Subject.open(folder, best=arguments.best) for folder in arguments.runs]


def _score(
    subject: Subject, corpus: CorpusRecord, splits: Sequence[Split], arguments: Arguments
) -> list[Scorecard]:
    # Shown on a terminal only.
    with Console(stderr=True).status(f"evaluating {escape(subject.name)} …"):
        cards = subject.score(corpus, splits, best=arguments.best, num_batches=arguments.batches)
        return list(cards)


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
