"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Returns a table.

    Args:
        head: what its columns are called.
        rows: their cells.
        words: how many columns, from the first on, are words, which begin on the left; the others
            are numbers, which end on the right.
    """
    rule = ["---" if column < words else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
