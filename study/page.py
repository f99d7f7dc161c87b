"""The study's page: figures, tables and what they say."""

from pathlib import Path

from study.records import read_all


def write_page(out: Path) -> list[Path]:
    """Writes figures and README.md of all records, and returns the files."""
    read_all(out)
    return []
