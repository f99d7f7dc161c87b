"""A certificate as a table that a person can read."""

from collections.abc import Iterable, Iterator

from rich.markup import escape
from rich.table import Table

from astra_torch.parity.certificate import Certificate
from astra_torch.parity.comparison import ParityReport
from astra_torch.parity.texts import TextReport

WIDTH = 130
"""Columns of the tables, on a screen that is narrower too: the names of tensors are long."""


def certificate_tables(certificate: Certificate) -> Iterator[Table | str]:
    """Yields what is to be printed: a table for each level and type, and the verdict."""
    preset = certificate.preset
    yield f"{preset.title}, {preset.model.num_parameters:,} parameters: JAX held against PyTorch"
    for level, reports in certificate.levels.items():
        for report in reports.values():
            yield ""
            yield numbers_table(level, report)
    if certificate.texts:
        yield ""
        yield texts_table(certificate.texts)
    yield ""
    yield from (f"[red]{escape(line)}[/]" for line in faults(certificate))
    yield from certificate.notes
    yield "all within bounds" if certificate.ok else "[bold red]NOT all within bounds[/]"


def numbers_table(level: str, report: ParityReport) -> Table:
    """Returns a row for each quantity: how far off its worst tensor is, and the bound."""
    title = f"{level}, {report.dtype}: {report.num_values:,} values"
    if report.num_steps > 1:
        title += f" over {report.num_steps:,} steps"
    table = _table(
        title, ("step", "max abs", "relative", "ULP", "bound", "verdict"), "worst tensor"
    )
    for one in report.by_quantity().values():
        numbers = f"{one.max_abs:.1e}", f"{one.relative:.1e}", f"{one.ulp:.3g}", f"{one.bound:.1e}"
        quantity, tensor = one.name
        table.add_row(quantity, str(one.step), *numbers, _verdict(one.ok), tensor)
    return table


def texts_table(reports: tuple[TextReport, ...]) -> Table:
    """Returns a row for each sampler: what was compared, and where the texts part."""
    table = _table("texts", ("characters", "distinct", "ties", "differ", "verdict"), "paths")
    for one in reports:
        state = "stateful" if one.stateful else "stateless"
        counts = one.num_characters, one.num_distinct, len(one.ties), one.num_mismatches
        table.add_row(
            f"{one.strategy}, {state}",
            *(f"{count:,}" for count in counts),
            _verdict(one.ok),
            f"{one.dtype}: {' = '.join(one.paths)}",
        )
    return table


def _table(title: str, numbers: Iterable[str], last: str) -> Table:
    """Returns an empty table. What is longest stands last, where a narrow screen may break it."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1))
    table.add_column("", no_wrap=True, min_width=26)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True, min_width=8)
    table.add_column(last, no_wrap=True)
    return table


def _verdict(ok: bool) -> str:
    return "ok" if ok else "[bold red]OUT[/]"


def faults(certificate: Certificate) -> list[str]:
    """Returns a line for everything that keeps the certificate from being one."""
    numbers = [
        f"{level}, {dtype}: {line}"
        for level, reports in certificate.levels.items()
        for dtype, report in reports.items()
        if not report.ok
        for line in report.describe().splitlines()
    ]
    return numbers + [
        f"texts, {text.dtype}: {text.describe()}" for text in certificate.texts if not text.ok
    ]
