"""One table of names and transposes: the Flax tree <-> torch-named numpy arrays.

Every file format goes through the torch-named dictionary, so this is the only place that knows
how the two frameworks' arrays correspond. Values are moved, never computed with: a round trip
is exact to the bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from astra_jax.config import DatasetName, DtypeName, ModelConfig
from astra_jax.errors import InputError
from astra_jax.machine.placement import to_device
from astra_jax.model import GRULanguageModel, arithmetic

Arrays = dict[str, np.ndarray]
"""Arrays by the names of a torch state dict."""


@dataclass(frozen=True)
class Layout:
    """How a notebook class names its parts.

    Attributes:
        class_name: of the notebook's class.
        cells: prefixes of the cells, first to last.
        head: prefix of the head.
        layer_norm: whether there is a `norm`.
    """

    class_name: str
    cells: tuple[str, ...]
    head: str
    layer_norm: bool


_NAMES_HEAD = "linear.linear_projection"
_NAMES_LAYOUTS = (
    Layout("GRU_SmallModel", ("gru.grucell",), _NAMES_HEAD, False),
    Layout("GRU_MediumModel", ("gru_layer_1.grucell", "gru_layer_2.grucell"), _NAMES_HEAD, False),
    Layout(
        "GRU_LargeModel",
        ("gru_layer_1.grucell", "gru_layer_2.grucell", "gru_layer_3.grucell"),
        _NAMES_HEAD,
        True,
    ),
)

ASTRA_CLASS = "MyGRUModel"


def astra_layout(num_layers: int, layer_norm: bool) -> Layout:
    """Returns the layout of `MyGRUModel`, which takes any number of layers."""
    cells = tuple(f"layers.{index}.grucell" for index in range(num_layers))
    return Layout(ASTRA_CLASS, cells, "fc.linear_projection", layer_norm)


def find_layout(config: ModelConfig, dataset: DatasetName) -> Layout:
    """Returns the layout of a shape; one that the names study has no class for is Astra's."""
    if dataset == "names":
        for layout in _NAMES_LAYOUTS:
            if (len(layout.cells), layout.layer_norm) == (config.num_layers, config.layer_norm):
                return layout
    return astra_layout(config.num_layers, config.layer_norm)


class Entry(NamedTuple):
    """One torch array and where the Flax tree has it.

    Attributes:
        name: in the state dict.
        path: in the Flax tree.
        gate: its place on the leading gate axis (r, z, n); None where there is no such axis.
        transposed: torch's `Linear` keeps `[out, in]`, Flax `[in, out]`.
        shape: of the torch array, in letters of `ModelConfig`: V, E, H, and I for a layer's
            input width.
    """

    name: str
    path: tuple[str | int, ...]
    gate: int | None
    transposed: bool
    shape: str

    def shape_in(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the torch array's shape in a model."""
        sizes = dict(V=config.vocab_size, E=config.embedding_dim, H=config.hidden_dim)
        return tuple(sizes[letter] for letter in self.shape)


# In the order of the notebooks' state dicts.
_CELL = (
    Entry("bias_z", ("bias_hh",), 1, False, "H"),
    Entry("bias_r", ("bias_hh",), 0, False, "H"),
    Entry("Wx.weight", ("kernel_ih",), 2, True, "HI"),
    Entry("Wx.bias", ("bias_ih",), 2, False, "H"),
    Entry("Wh.weight", ("kernel_hh",), 2, True, "HH"),
    Entry("Wzx.weight", ("kernel_ih",), 1, True, "HI"),
    Entry("Wzx.bias", ("bias_ih",), 1, False, "H"),
    Entry("Wzh.weight", ("kernel_hh",), 1, True, "HH"),
    Entry("Wrx.weight", ("kernel_ih",), 0, True, "HI"),
    Entry("Wrx.bias", ("bias_ih",), 0, False, "H"),
    Entry("Wrh.weight", ("kernel_hh",), 0, True, "HH"),
)
_NORM = (
    Entry("norm.weight", ("norm", "scale"), None, False, "H"),
    Entry("norm.bias", ("norm", "bias"), None, False, "H"),
)


def entries(layout: Layout) -> Iterator[Entry]:
    """Yields the whole table of a layout, in the order of its state dict."""
    yield Entry("embedding.weight", ("embedding", "embedding"), None, False, "VE")
    for index, prefix in enumerate(layout.cells):
        for entry in _CELL:
            yield entry._replace(
                name=f"{prefix}.{entry.name}",
                path=("layers", index, *entry.path),
                shape=entry.shape.replace("I", "E" if index == 0 else "H"),
            )
    yield from _NORM if layout.layer_norm else ()
    yield Entry(f"{layout.head}.weight", ("head", "kernel"), None, True, "VH")
    yield Entry(f"{layout.head}.bias", ("head", "bias"), None, False, "V")


def to_arrays(params: nnx.State, layout: Layout) -> Arrays:
    """Returns a Flax tree (parameters, gradients or moments) as torch-named arrays."""
    tree = nnx.to_pure_dict(params)
    arrays = {}
    for entry in entries(layout):
        value = np.asarray(_at(tree, entry.path))
        value = value if entry.gate is None else value[entry.gate]
        arrays[entry.name] = np.ascontiguousarray(value.T if entry.transposed else value)
    return arrays


def to_params(arrays: Arrays, layout: Layout) -> dict[str, Any]:
    """Returns torch-named arrays as a nested dictionary of the Flax tree's structure."""
    tree: dict[Any, Any] = {}
    gates: dict[tuple[str | int, ...], dict[int, np.ndarray]] = {}
    for entry in entries(layout):
        value = arrays[entry.name].T if entry.transposed else arrays[entry.name]
        if entry.gate is None:
            _put(tree, entry.path, value)
        else:
            gates.setdefault(entry.path, {})[entry.gate] = value
    for path, values in gates.items():
        _put(tree, path, np.stack([values[gate] for gate in sorted(values)]))
    return tree


def to_model(
    arrays: Arrays, config: ModelConfig, layout: Layout, dtype: DtypeName
) -> GRULanguageModel:
    """Returns a Flax model with the given weights, which `check` has found to fit."""
    with arithmetic(dtype):
        abstract = nnx.eval_shape(
            lambda: GRULanguageModel(config, dtype=dtype, rngs=nnx.Rngs(params=0))
        )
        graph, state = nnx.split(abstract)
        nnx.replace_by_pure_dict(state, to_device(to_params(arrays, layout)))
        return nnx.merge(graph, state)


def check(arrays: Arrays, source: str) -> tuple[Layout, ModelConfig]:
    """Finds out which model a state dict is of, and that it is whole.

    Dropout leaves no trace in the arrays; it is 0 in what is returned.

    Args:
        arrays: the state dict.
        source: where it came from, for messages.

    Raises:
        InputError: a name is missing or not expected, a shape does not fit the others, a type
            is not float32 or float64 throughout, or a value is not finite. The message names
            all that is wrong with the names, or else all that is wrong with the arrays.
    """
    _require_own_names(arrays, source)
    layout = _identify(arrays)
    wanted = {entry.name for entry in entries(layout)}
    missing, extra = sorted(wanted - set(arrays)), sorted(set(arrays) - wanted)
    if missing or extra:
        raise InputError(
            f"{source} is not a complete {layout.class_name}: missing {_some(missing)}; "
            f"not expected {_some(extra)}"
        )
    rows = arrays["embedding.weight"].shape
    hidden = arrays[f"{layout.cells[0]}.bias_z"].shape
    if len(rows) != 2 or len(hidden) != 1:
        raise InputError(
            f"{source}: embedding.weight must have two dimensions and bias_z one, got shapes "
            f"{rows} and {hidden}"
        )
    try:
        config = ModelConfig(
            vocab_size=rows[0],
            embedding_dim=rows[1],
            hidden_dim=hidden[0],
            num_layers=len(layout.cells),
            dropout=0.0,
            layer_norm=layout.layer_norm,
        )
    except InputError as error:
        raise InputError(f"{source} cannot be used: {error}") from error
    faults = [fault for entry in entries(layout) if (fault := _fault(entry, arrays, config))]
    if faults:
        raise InputError(f"{source} cannot be used: {'; '.join(faults[:4])}{_more(faults, 4)}")
    return layout, config


WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
"""What torch puts before every name while a model is inside something else."""


def _require_own_names(arrays: Arrays, source: str) -> None:
    for prefix, wrapper in WRAPPERS.items():
        if any(name.startswith(prefix) for name in arrays):
            raise InputError(
                f"{source} has names that begin with {prefix!r}, as {wrapper} makes them: save "
                f"model.{prefix}state_dict(), or remove the prefix from every name"
            )


def _identify(arrays: Arrays) -> Layout:
    """Returns the layout whose names come nearest to the given ones."""
    layers = {name.split(".")[1] for name in arrays if name.startswith("layers.")}
    candidates = [*_NAMES_LAYOUTS]
    candidates += [astra_layout(max(len(layers), 1), layer_norm) for layer_norm in (False, True)]
    return min(candidates, key=lambda c: len({entry.name for entry in entries(c)} ^ set(arrays)))


def _fault(entry: Entry, arrays: Arrays, config: ModelConfig) -> str | None:
    """Returns what is wrong with one array, if anything is."""
    array = arrays[entry.name]
    wanted = entry.shape_in(config)
    if array.shape != wanted:
        transposed = " (transposed?)" if array.shape == wanted[::-1] else ""
        return f"{entry.name} has shape {array.shape}, expected {wanted}{transposed}"
    if (
        array.dtype not in (np.float32, np.float64)
        or array.dtype != arrays["embedding.weight"].dtype
    ):
        return f"{entry.name} is {array.dtype}, expected float32 or float64 throughout"
    if not np.isfinite(array).all():
        return f"{entry.name} has {np.sum(~np.isfinite(array))} values that are NaN or infinite"
    return None


def _some(names: list[str], limit: int = 4) -> str:
    return (", ".join(names[:limit]) + _more(names, limit)) if names else "nothing"


def _more(items: list[str], limit: int) -> str:
    return f" and {len(items) - limit} more" if len(items) > limit else ""


def _at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _put(tree: dict[Any, Any], path: tuple[str | int, ...], value: np.ndarray) -> None:
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
    tree[path[-1]] = value
