"""A model's modules, shapes and sizes as a table."""

from dataclasses import dataclass

import jax
from flax import nnx
from rich.table import Table

from astra_jax.config import Preset
from astra_jax.model import GRULanguageModel, arithmetic, parameters

_ORDER = {"embedding": 0, "layers": 1, "norm": 2, "head": 3}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One trained array.

    Attributes:
        module: where it is, with dots.
        name: what the module calls it.
        shape: its shape.
        size: its scalars.
        num_bytes: what they take.
    """

    module: str
    name: str
    shape: tuple[int, ...]
    size: int
    num_bytes: int


def list_parameters(preset: Preset) -> list[Parameter]:
    """Returns a model's arrays, from the embedding to the head; computes none of them."""
    dtype = preset.train.dtype
    with arithmetic(dtype):
        params = jax.eval_shape(
            lambda: parameters(GRULanguageModel(preset.model, dtype=dtype, rngs=nnx.Rngs(params=0)))
        )
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(params))[0]
    listed = []
    for path, leaf in sorted(leaves, key=lambda item: _ORDER[item[0][0].key]):
        *module, name = (str(step.key) for step in path)
        listed.append(
            Parameter(
                module=".".join(module),
                name=name,
                shape=leaf.shape,
                size=leaf.size,
                num_bytes=leaf.size * leaf.dtype.itemsize,
            )
        )
    return listed


HEADERS = ("Module", "Parameter", "Shape", "Scalars", "Share")


def describe_parameters(preset: Preset) -> list[tuple[str, ...]]:
    """Returns cells for `HEADERS`: one row per parameter, then the total in MB (10^6 bytes)."""
    listed = list_parameters(preset)
    total = sum(parameter.size for parameter in listed)
    rows = [
        (
            parameter.module,
            parameter.name,
            " × ".join(map(str, parameter.shape)),
            f"{parameter.size:,}",
            f"{parameter.size / total:.1%}",
        )
        for parameter in listed
    ]
    size = sum(parameter.num_bytes for parameter in listed) / 1e6
    return [*rows, ("total", "", f"{size:.2f} MB", f"{total:,}", "")]


def summarize(preset: Preset) -> Table:
    """Returns what `describe_parameters` does as a table for a terminal."""
    table = Table(title=f"{preset.title} on {preset.data.dataset}", title_justify="left")
    for header in HEADERS:
        table.add_column(header, justify="right" if header in ("Scalars", "Share") else "left")
    *rows, total = describe_parameters(preset)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total)
    return table
