"""The six models of the two studies, one row each, and how a field of them is changed."""

import dataclasses
from typing import Any, Literal

from astra_jax.config import PARTS, DatasetName, ModelConfig, Preset
from astra_jax.errors import InputError

_SHAKESPEARE = {
    **dict(vocab_size=65, dropout=0.1, layer_norm=False),
    **dict(dataset="shakespeare", batch_size=64, seq_len=128, train_fraction=0.9),
    **dict(start_token=False, dedupe=False, level="char", carry_state=False),
    **dict(optimizer="adamw", weight_decay=0.01, decay="all", dropout_on="states", clip=1.0),
    **dict(schedule="cosine", warmup_steps=0),
    **dict(seed=0, dtype="float32"),
}
_NAMES = {
    **dict(vocab_size=28, layer_norm=False),
    **dict(dataset="names", batch_size=64, seq_len=16, train_fraction=0.8),
    **dict(start_token=False, dedupe=False, level="char", carry_state=False),
    **dict(optimizer="adam", weight_decay=0.0, decay="all", dropout_on="states", clip=None),
    **dict(schedule="constant", warmup_steps=0),
    **dict(steps_per_epoch=None, seed=0, dtype="float32"),
}

# fmt: off
_ROWS: tuple[tuple[dict[str, Any], str, str, str, dict[str, Any]], ...] = (
    # the dataset's recipe, name, title, base name of weight files, what is the model's own
    (_SHAKESPEARE, "alpha", "Astra-α", "Astra_alpha", dict(
        embedding_dim=64, hidden_dim=128, num_layers=1,
        epochs=10, steps_per_epoch=200, learning_rate=3e-3)),
    (_SHAKESPEARE, "beta", "Astra-β", "Astra_beta", dict(
        embedding_dim=128, hidden_dim=256, num_layers=2,
        epochs=15, steps_per_epoch=250, learning_rate=2e-3)),
    (_SHAKESPEARE, "gamma", "Astra-γ", "Astra_gamma", dict(
        embedding_dim=256, hidden_dim=512, num_layers=3,
        epochs=20, steps_per_epoch=400, learning_rate=1e-3)),
    (_NAMES, "alpha", "names-α", "GRU_alpha_model", dict(
        embedding_dim=64, hidden_dim=128, num_layers=1, dropout=0.0,
        epochs=35, learning_rate=1e-3)),
    (_NAMES, "beta", "names-β", "GRU_beta_model", dict(
        embedding_dim=96, hidden_dim=256, num_layers=2, dropout=0.1,
        epochs=40, learning_rate=5e-4)),
    (_NAMES, "gamma", "names-γ", "GRU_gamma_model", dict(
        embedding_dim=128, hidden_dim=512, num_layers=3, dropout=0.2, layer_norm=True,
        epochs=60, learning_rate=3e-4, optimizer="adamw", weight_decay=0.01)),
)
# fmt: on

_OWNER = {field.name: part for part, cls in PARTS.items() for field in dataclasses.fields(cls)}
FIELDS = tuple(_OWNER)
"""Names of all fields of the parts of a preset."""


def _split(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Sorts fields by the part of the preset that owns them; no name belongs to two parts."""
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in fields.items():
        if name not in _OWNER:
            raise InputError(f"a preset has no field {name!r}; it has {', '.join(_OWNER)}")
        parts[_OWNER[name]][name] = value
    return parts


def _build(recipe: dict[str, Any], name: str, title: str, base: str, own: dict[str, Any]) -> Preset:
    parts = _split({**recipe, **own})
    configs = {part: cls(**parts[part]) for part, cls in PARTS.items()}
    return Preset(name=name, title=title, base_name=base, **configs)


PRESETS: dict[tuple[DatasetName, str], Preset] = {
    (row[0]["dataset"], row[1]): _build(*row) for row in _ROWS
}
"""The published models by dataset and name."""

NOTEBOOK: Literal["notebook"] = "notebook"
TUNED: Literal["tuned"] = "tuned"
"""The recipes: that of the studies, and one that reaches a lower loss from no more characters."""

_TUNED = dict(schedule="cosine-by-step", warmup_steps=200)
_TUNED_NAMES = _TUNED | dict(optimizer="adamw", decay="matrices")

TUNED_FIELDS: dict[tuple[DatasetName, str], dict[str, Any]] = {
    ("shakespeare", "alpha"): _TUNED
    | dict(learning_rate=8e-3, dropout=0.0, batch_size=32, steps_per_epoch=400),
    ("shakespeare", "beta"): _TUNED
    | dict(learning_rate=9e-3, dropout=0.03, weight_decay=0.5, decay="matrices")
    | dict(batch_size=32, steps_per_epoch=500),
    ("shakespeare", "gamma"): _TUNED | dict(learning_rate=4e-3, weight_decay=1.0, decay="matrices"),
    ("names", "alpha"): _TUNED_NAMES | dict(learning_rate=4e-3, weight_decay=0.3),
    ("names", "beta"): _TUNED_NAMES | dict(learning_rate=4e-3, weight_decay=0.5),
    ("names", "gamma"): _TUNED_NAMES
    | dict(learning_rate=2e-3, weight_decay=0.5, dropout=0.3, epochs=30),
}
"""The fields in which a tuned recipe differs from its preset; results/study tells how they were
found."""

CUSTOM_NAMES: dict[DatasetName, dict[str, str]] = {
    "shakespeare": dict(name="custom", title="Astra-custom", base_name="Astra_custom"),
    "names": dict(name="custom", title="names-custom", base_name="GRU_custom_model"),
}
"""What a model of any other shape is called."""

ALIASES = {"small": "alpha", "medium": "beta", "large": "gamma"}
"""Other names of the three names models."""


def describe_defaults(field: str) -> str:
    """Returns what a field is in alpha / beta / gamma, and in the names models if it differs."""
    studies: dict[str, list[str]] = {}
    for (dataset, _), preset in PRESETS.items():
        value = getattr(getattr(preset, _OWNER[field]), field)
        studies.setdefault(dataset, []).append("none" if value is None else str(value))
    shakespeare, names = (
        values[0] if len(set(values)) == 1 else " / ".join(values) for values in studies.values()
    )
    return shakespeare if shakespeare == names else f"{shakespeare}; names: {names}"


def find_preset(model: str, dataset: str | None = None, recipe: str = NOTEBOOK) -> Preset:
    """Returns a published preset.

    Args:
        model: alpha, beta or gamma; small, medium and large name the names models.
        dataset: shakespeare or names; None is shakespeare, or names where `model` says so.
        recipe: notebook or tuned.

    Raises:
        InputError: there is no such model, dataset or recipe.
    """
    if recipe not in (NOTEBOOK, TUNED):
        raise InputError(f"unknown recipe {recipe!r}: choose one of {NOTEBOOK}, {TUNED}")
    if dataset is None:
        dataset = "names" if model in ALIASES else "shakespeare"
    models = {name: preset for (owner, name), preset in PRESETS.items() if owner == dataset}
    if not models:
        datasets = dict.fromkeys(owner for owner, _ in PRESETS)
        raise InputError(f"unknown dataset {dataset!r}: choose one of {', '.join(datasets)}")
    preset = models.get(ALIASES.get(model, model) if dataset == "names" else model)
    if preset is None:
        known = [*models, *(ALIASES if dataset == "names" else ())]
        names = "" if dataset == "names" else f"; for --dataset names, {', '.join(ALIASES)}"
        raise InputError(
            f"unknown model {model!r} for {dataset}: choose one of {', '.join(known)}{names}"
        )
    if recipe == NOTEBOOK:
        return preset
    return override(preset, **TUNED_FIELDS[preset.data.dataset, preset.name])


def override(preset: Preset, **fields: Any) -> Preset:
    """Returns the preset with some fields of its model, data or train part replaced.

    A model of another shape or dataset is no longer the published one and is renamed after
    `CUSTOM_NAMES`. Switching to Adam, which has no decay, sets `weight_decay` to 0 unless it
    is given as well.

    Raises:
        InputError: no part has a field of that name, or a value is not valid.
    """
    if fields.get("optimizer") == "adam":
        fields.setdefault("weight_decay", 0.0)
    parts = _split(fields)
    configs = {part: dataclasses.replace(getattr(preset, part), **parts[part]) for part in PARTS}
    changed = dataclasses.replace(preset, **configs)
    same_data = changed.data.dataset == preset.data.dataset
    if same_data and same_shape(changed.model, preset.model):
        return changed
    return dataclasses.replace(changed, **CUSTOM_NAMES[changed.data.dataset])


def same_shape(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two models differ in nothing but their vocabulary and dropout."""
    free = dict(vocab_size=1, dropout=0.0)
    return dataclasses.replace(one, **free) == dataclasses.replace(other, **free)
