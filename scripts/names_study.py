#!/usr/bin/env python
"""Train names-α with and without a start token and duplicates, and measure the difference.

Example:
  python scripts/names_study.py --out results/names-fix
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

# The study stands beside the packages that are installed, and is none of them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.training.progress import ConsoleProgress
from study import names_page, names_study


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where the runs and the results go."""

    runs: Path = Path("runs/names-fix")
    """Folder of the four runs; those that are there go on, or are done."""
    out: Annotated[Path | None, default("the folder of the runs")] = None
    """Folder for the measures and the figure."""
    epochs: Annotated[int | None, default("35, the preset's")] = None
    """Epochs of each training."""
    corpus: Annotated[str | None, default("the published one")] = None
    """A list of words, one a line."""


def main(arguments: Arguments) -> None:
    """Trains, measures, writes, and prints the table."""
    with ConsoleProgress() as progress:
        written = names_study.study(
            arguments.runs,
            arguments.out or arguments.runs,
            progress,
            epochs=arguments.epochs,
            corpus=arguments.corpus,
        )
    print(names_page.table(json.loads(written[0].read_text(encoding="utf-8"))))
    for path in written:
        print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
