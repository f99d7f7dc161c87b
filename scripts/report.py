#!/usr/bin/env python
"""Write one HTML page about a run, or about several side by side.

Examples:
  python scripts/report.py runs/shakespeare-alpha-1
  python scripts/report.py runs/names-alpha-1 runs/names-beta-1 --out names.html
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.errors import InputError
from astra_jax.experiments.groups import runs_at
from astra_jax.report.page import write_report


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to report, and where."""

    runs: Positional[tuple[Path, ...]]
    """Run folders, or folders of runs of several seeds; at least one."""
    out: Annotated[Path | None, default("report.html, in the folder if one is given")] = None
    """The page; its charts are written beside it as PNG, too."""
    no_samples: bool = False
    """Leave out the samples, the only part that needs a checkpoint."""


def main(arguments: Arguments) -> None:
    """Writes the page and says where it is."""
    if not arguments.runs:
        raise InputError("no run folder is given: name at least one")
    runs = [run for folder in arguments.runs for run in runs_at(folder)]
    folder = arguments.runs[0] if len(arguments.runs) == 1 else Path()
    path = arguments.out or folder / "report.html"
    page, *pictures = write_report(runs, path, with_samples=not arguments.no_samples)
    print(f"wrote {page} and {len(pictures)} charts beside it")


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
