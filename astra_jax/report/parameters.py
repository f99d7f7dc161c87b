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


def summarize(preset: Preset) -> Table:
    """Returns one row per parameter, then the total, and its size in MB (10^6 bytes)."""
    table = Table(title=f"{preset.title} on {preset.data.dataset}", title_justify="left")
    for header in ("module", "parameter", "shape"):
        table.add_column(header)
    for header in ("parameters", "share"):
        table.add_column(header, justify="right")
    listed = list_parameters(preset)
    total = sum(parameter.size for parameter in listed)
    for parameter in listed:
        table.add_row(
            parameter.module,
            parameter.name,
            str(parameter.shape),
            f"{parameter.size:,}",
            f"{parameter.size / total:.1%}",
        )
    size = sum(parameter.num_bytes for parameter in listed) / 1e6
    table.add_section()
    table.add_row("total", "", "", f"{total:,}", f"{size:.2f} MB")
    return table
