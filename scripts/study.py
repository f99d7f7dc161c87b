#!/usr/bin/env python
"""Train the six models again, hold them against the published figures, write it up.

What is done is not done again, so the same call goes on after any interruption.

Examples:
  python scripts/study.py
  python scripts/study.py --dry-run
  python scripts/study.py --only alpha,names-alpha --budget 30
  python scripts/study.py --only page
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

# The study stands beside the packages that are installed, and is none of them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.errors import InputError
from astra_jax.machine import compile_cache, placement
from astra_jax.training.progress import ConsoleProgress
from study.course import conduct, outlook
from study.plan import choose, chooses_search
from study.trainings import Work
from study.trials import SEARCHES


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What of the study is done, for how long, and where it goes."""

    only: Annotated[str | None, default("the whole study")] = None
    """Rows, parted by commas: alpha, names-beta, gamma-tuned, ...; or search, or page."""
    seeds: Annotated[int | None, default("as many as planned")] = None
    """Runs of each row, of seeds 0, 1, ..."""
    budget: Annotated[float | None, default("until all is done")] = None
    """Minutes of training; what is unfinished is saved then, and evaluated as it stands."""
    runs: Path = Path("runs/study")
    """Folder of the run folders."""
    out: Path = Path("results/study")
    """Folder of the records, the figures and the page."""
    corpus: Annotated[str | None, default("the published ones")] = None
    """See scripts/train.py; for rows of one dataset."""
    again: bool = False
    """Do not count what results there are, but what run folders."""
    dry_run: bool = False
    """Print what is done and about how long the rest takes; train nothing."""

    def work(self) -> Work:
        """Returns where the study works, and until when."""
        if self.budget is not None and not self.budget >= 0:
            raise InputError(f"--budget must be at least 0 minutes, got {self.budget:g}")
        deadline = None if self.budget is None else time.monotonic() + 60 * self.budget
        return Work(
            runs=self.runs,
            out=self.out,
            corpus=self.corpus,
            again=self.again,
            deadline=deadline,
            tell=cli.note,
        )


def main(arguments: Arguments) -> None:
    """Goes on with the study, and writes its page."""
    rows, work = choose(arguments.only, arguments.seeds), arguments.work()
    searches = SEARCHES if chooses_search(arguments.only) else ()
    if arguments.dry_run:
        print(outlook(rows, work, searches))
        return
    trains = bool(rows or searches)
    if trains:
        placement.split_cpu()
        cli.teller(False)(compile_cache.enable())
    with ConsoleProgress(quiet=not trains) as progress:
        written = conduct(rows, work, progress, searches)
    for path in written:
        print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
