"""A model's modules, shapes and sizes as a table."""

import jax
from flax import nnx
from rich.table import Table

from astra_jax.config import Preset
from astra_jax.model import GRULanguageModel, arithmetic, parameters


def summarize(preset: Preset) -> Table:
    """Returns one row per parameter, then the total, and its size in MB (10^6 bytes)."""
    model = preset.model
    dtype = preset.train.dtype
    with arithmetic(dtype):
        params = jax.eval_shape(
            lambda: parameters(GRULanguageModel(model, dtype=dtype, rngs=nnx.Rngs(params=0)))
        )
    table = Table(title=f"{preset.title} on {preset.data.dataset}", title_justify="left")
    for header in ("module", "parameter", "shape"):
        table.add_column(header)
    for header in ("parameters", "share"):
        table.add_column(header, justify="right")
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(params))[0]
    order = {"embedding": 0, "layers": 1, "norm": 2, "head": 3}
    total = sum(leaf.size for _, leaf in leaves)
    for path, leaf in sorted(leaves, key=lambda item: order[item[0][0].key]):
        *module, name = (str(step.key) for step in path)
        table.add_row(
            ".".join(module),
            name,
            str(leaf.shape),
            f"{leaf.size:,}",
            f"{leaf.size / total:.1%}",
        )
    size = sum(leaf.size * leaf.dtype.itemsize for _, leaf in leaves) / 1e6
    table.add_section()
    table.add_row("total", "", "", f"{total:,}", f"{size:.2f} MB")
    return table
