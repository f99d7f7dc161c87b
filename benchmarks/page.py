"""The page that shows all records: an overview, and then every table and figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_jax.storage.marked_pages import fill_in
from benchmarks.figures import draw_growth
from benchmarks.overview import overview
from benchmarks.records import GROWTH, read_all
from benchmarks.tables import tables_of

README = "README.md"
"""What stands between these lines of the folder's README.md is written here."""


def write_tables(folder: Path) -> list[Path]:
    """Writes the tables and figures of all of a folder's records into it and its README.md.

    Raises:
        InputError: there is no record, or no README.md with a place for the tables.
    """
    documents = read_all(folder)
    readme = folder / README
    written, parts = [readme], [table.markdown() for table in overview(documents)]
    for name, document in documents.items():
        parts.append(f"### [{name}]({name}.json): {_machine(document['environment'])}")
        for record in document["records"]:
            parts += [table.markdown() for table in tables_of(record)]
            if record["what"] == GROWTH:
                figure = folder / f"{name}-growth.png"
                written.append(draw_growth(record, figure))
                parts.append(f"![How the time of a training step grows]({figure.name})")
    fill_in(readme, "\n\n".join(parts))
    return written


def _machine(environment: Mapping[str, Any]) -> str:
    devices = dict.fromkeys(environment["devices"])
    if set(devices) == {"cpu"}:
        vectors = environment.get("vector_instructions")
        on = environment["processor"] + (f" ({vectors})" if vectors else "")
    else:
        on = ", ".join(devices)
    versions = ", ".join(
        f"{label} {environment[name]}"
        for label, name in (("JAX", "jax"), ("PyTorch", "torch"), ("ONNX Runtime", "onnxruntime"))
        if environment.get(name)
    )
    return f"{on}, {environment['cores']} cores, {versions}"
