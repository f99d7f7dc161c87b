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


def find_contradictions(
    layout: Layout, model: ModelConfig, metadata: dict[str, Any], file_name: str
) -> list[str]:
    """Returns what a file says of itself that its arrays say otherwise."""
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
    if "preset" in metadata:
        preset = Preset.from_dict(metadata["preset"])
        found += _mislabelled("its preset says", preset, model)
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
