#!/usr/bin/env python
"""Draw the drift and write the tables of a folder of parity certificates.

Example:
  python scripts/parity_report.py results/parity
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from astra_jax import cli
from astra_torch.parity.report import write_report


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where the certificates are."""

    folder: Positional[Path]
    """A folder of certificates, with a README.md that has a place for the tables."""


def main(arguments: Arguments) -> None:
    """Writes the figure and the tables."""
    for path in write_report(arguments.folder):
        print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
