"""What a weight file says of itself, held against its arrays."""

import re
from pathlib import Path
from typing import Any

from astra_jax.config import DatasetName, ModelConfig, Preset
from astra_jax.presets import PRESETS, same_shape
from astra_torch.weights import Layout


def published_preset(model: ModelConfig, dataset: DatasetName | None = None) -> Preset | None:
    """Returns the published preset of a shape, of one study or of either."""
    for (owner, _), preset in PRESETS.items():
        if dataset in (None, owner) and same_shape(preset.model, model):
            return preset
    return None


def nearest_preset(model: ModelConfig, dataset: DatasetName) -> Preset:
    """Returns the published preset of a shape, or else the one of as many layers, or nearly."""
    rows = [preset for (owner, _), preset in PRESETS.items() if owner == dataset]
    nearest = min(rows, key=lambda row: abs(row.model.num_layers - model.num_layers))
    return published_preset(model, dataset) or nearest


def said_dropout(metadata: dict[str, Any]) -> float | None:
    """Returns the dropout that a file says it has; None where it says none that can be."""
    said = metadata.get("dropout")
    if not isinstance(said, int | float) or isinstance(said, bool) or not 0 <= said < 1:
        return None
    return float(said)


def find_contradictions(
    layout: Layout, model: ModelConfig, metadata: dict[str, Any], file_name: str
) -> list[str]:
    """Returns what a file says of itself that its arrays, or it itself, say otherwise."""
    true = dict(
        model_class=layout.class_name,
        n_classes=model.vocab_size,
        vocab_size=model.vocab_size,
        embd_dim=model.embedding_dim,
        hidden_dim=model.hidden_dim,
        num_layers=model.num_layers,
    )
    found = [
        f"it says {name} = {metadata[name]!r}, its arrays have {value!r}"
        for name, value in true.items()
        if name in metadata and metadata[name] != value
    ]
    dropout = said_dropout(metadata)
    if "dropout" in metadata and dropout is None:
        found.append(f"it says dropout = {metadata['dropout']!r}, which is no rate below 1")
    if "preset" in metadata:
        preset = Preset.from_dict(metadata["preset"])
        found += _mislabelled("its preset says", preset, model)
        if dropout not in (None, preset.model.dropout):
            found.append(f"it says dropout = {dropout}, its preset {preset.model.dropout}")
    for preset in PRESETS.values():
        if metadata.get("model_name") == preset.title:
            found += _mislabelled(f"its model_name {preset.title} means", preset, model)
        if re.fullmatch(rf"{preset.base_name}_(v\d+|latest)", Path(file_name).stem):
            found += _mislabelled(f"its file name means {preset.title} with", preset, model)
    return found


def _mislabelled(label: str, preset: Preset, model: ModelConfig) -> list[str]:
    """Returns, in at most one sentence, where a label's preset differs from the arrays."""
    if same_shape(preset.model, model):
        return []
    fields = ("embedding_dim", "hidden_dim", "num_layers", "layer_norm")
    pairs = {name: (getattr(preset.model, name), getattr(model, name)) for name in fields}
    parts = [f"{name} {said}, not {true}" for name, (said, true) in pairs.items() if said != true]
    owner = published_preset(model)
    return [f"{label} {', '.join(parts)}" + (f" (they are {owner.title}'s)" if owner else "")]
