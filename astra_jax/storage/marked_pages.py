"""Pages of which a command writes the part between two marks, and people the rest."""

from pathlib import Path

from astra_jax.errors import InputError
from astra_jax.storage.atomic import write_text

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def fill_in(page: Path, body: str) -> None:
    """Writes what stands on a page between its two marks.

    Raises:
        InputError: there is no such page, or it has not the marks, once each.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"{page} must have the lines {BEGIN} and {END}, once each")
    before, _, rest = text.partition(BEGIN)
    write_text(page, f"{before}{BEGIN}\n\n{body}\n\n{END}{rest.partition(END)[2]}")
