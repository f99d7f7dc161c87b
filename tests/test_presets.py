"""Tests of the six presets against the table of the specification, and of changing them."""

import dataclasses
from typing import Any

import jax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import DatasetName, ModelConfig, Preset
from astra_jax.errors import InputError
from astra_jax.model import GRULanguageModel, parameters
from astra_jax.presets import (
    ALIASES,
    NOTEBOOK,
    PRESETS,
    TUNED,
    find_preset,
    override,
    same_shape,
)

ALPHA = PRESETS["shakespeare", "alpha"]

# Section 3 of the specification, row by row as it stands there.
COLUMNS: list[tuple[DatasetName, str]] = [
    ("shakespeare", "alpha"),
    ("shakespeare", "beta"),
    ("shakespeare", "gamma"),
    ("names", "alpha"),
    ("names", "beta"),
    ("names", "gamma"),
]
# fmt: off
TABLE: dict[str, list[Any]] = {
    "vocab_size":      [65, 65, 65, 28, 28, 28],
    "embedding_dim":   [64, 128, 256, 64, 96, 128],
    "hidden_dim":      [128, 256, 512, 128, 256, 512],
    "num_layers":      [1, 2, 3, 1, 2, 3],
    "layer_norm":      [False, False, False, False, False, True],
    "dropout":         [0.1, 0.1, 0.1, 0.0, 0.1, 0.2],
    "epochs":          [10, 15, 20, 35, 40, 60],
    "steps_per_epoch": [200, 250, 400, None, None, None],
    "batch_size":      [64] * 6,
    "seq_len":         [128, 128, 128, 16, 16, 16],
    "optimizer":       ["adamw", "adamw", "adamw", "adam", "adam", "adamw"],
    "weight_decay":    [0.01, 0.01, 0.01, 0.0, 0.0, 0.01],
    "learning_rate":   [3e-3, 2e-3, 1e-3, 1e-3, 5e-4, 3e-4],
    "schedule":        ["cosine"] * 3 + ["constant"] * 3,
    "clip":            [1.0, 1.0, 1.0, None, None, None],
    "dataset":         ["shakespeare"] * 3 + ["names"] * 3,
    "train_fraction":  [0.9, 0.9, 0.9, 0.8, 0.8, 0.8],
    "start_token":     [False] * 6,
    "dedupe":          [False] * 6,
    "level":           ["char"] * 6,
    "carry_state":     [False] * 6,
    "warmup_steps":    [0] * 6,
    "decay":           ["all"] * 6,
    "dropout_on":      ["states"] * 6,
    "seed":            [0] * 6,
    "dtype":           ["float32"] * 6,
    # Section 2: what the notebooks call their files and models.
    "base_name": ["Astra_alpha", "Astra_beta", "Astra_gamma",
                  "GRU_alpha_model", "GRU_beta_model", "GRU_gamma_model"],
    "title": ["Astra-α", "Astra-β", "Astra-γ", "names-α", "names-β", "names-γ"],
    "name": ["alpha", "beta", "gamma"] * 2,
}
# fmt: on
PARAMETERS = dict(
    zip(COLUMNS, [86_913, 715_713, 4_383_041, 79_772, 675_996, 4_155_420], strict=True)
)


def flat(preset: Preset) -> dict[str, Any]:
    values = preset.to_dict()
    return {**values.pop("model"), **values.pop("data"), **values.pop("train"), **values}


def count_leaves(config: ModelConfig) -> int:
    model = nnx.eval_shape(lambda: GRULanguageModel(config, rngs=nnx.Rngs(params=0)))
    return sum(leaf.size for leaf in jax.tree.leaves(parameters(model)))


def test_presets_are_those_of_the_table() -> None:
    assert list(PRESETS) == COLUMNS
    for column, row in enumerate(COLUMNS):
        assert flat(PRESETS[row]) == {name: values[column] for name, values in TABLE.items()}


@pytest.mark.parametrize("row", COLUMNS, ids="-".join)
def test_preset_has_the_exact_parameter_count(row: Any) -> None:
    config = PRESETS[row].model
    assert config.num_parameters == count_leaves(config) == PARAMETERS[row]


@given(
    config=st.builds(
        ModelConfig,
        vocab_size=st.integers(1, 9),
        embedding_dim=st.integers(1, 9),
        hidden_dim=st.integers(1, 9),
        num_layers=st.integers(1, 4),
        dropout=st.just(0.0),
        layer_norm=st.booleans(),
    )
)
@settings(max_examples=8, deadline=None)
def test_num_parameters_is_that_of_the_model_for_any_shape(config: ModelConfig) -> None:
    assert config.num_parameters == count_leaves(config)


def test_find_preset_knows_every_model_by_all_its_names() -> None:
    assert all(find_preset(model, dataset) is PRESETS[dataset, model] for dataset, model in PRESETS)
    assert all(find_preset(m) is PRESETS["shakespeare", m] for m in ("alpha", "beta", "gamma"))
    assert ALIASES == {"small": "alpha", "medium": "beta", "large": "gamma"}
    for alias, model in ALIASES.items():
        assert find_preset(alias) is find_preset(alias, "names") is PRESETS["names", model]


@pytest.mark.parametrize(
    ("model", "dataset", "message"),
    [
        ("delta", None, "unknown model 'delta' for shakespeare: choose one of alpha, beta, gamma"),
        ("small", "shakespeare", "unknown model 'small' for shakespeare: choose one of alpha, "),
        ("Alpha", "names", "for names: choose one of alpha, beta, gamma, small, medium, large"),
        ("custom", "names", "unknown model 'custom' for names"),
        ("alpha", "poems", "unknown dataset 'poems': choose one of shakespeare, names"),
        ("alpha", None, "unknown recipe 'best': choose one of notebook, tuned"),
    ],
)
def test_find_preset_names_the_choices(model: str, dataset: str | None, message: str) -> None:
    with pytest.raises(InputError) as error:
        find_preset(model, dataset, "best" if "recipe" in message else NOTEBOOK)
    assert message in str(error.value)


def test_a_tuned_recipe_has_the_same_model_and_no_more_characters() -> None:
    def characters(preset: Preset) -> int:
        steps = preset.train.steps_per_epoch
        assert steps is not None
        return preset.train.epochs * steps * preset.data.batch_size * preset.data.seq_len

    for (dataset, model), published in PRESETS.items():
        tuned = find_preset(model, dataset, TUNED)
        assert tuned != published
        assert (tuned.name, tuned.title) == (published.name, published.title)
        assert tuned.model.num_parameters == published.model.num_parameters
        if published.train.steps_per_epoch is None:
            assert tuned.train.epochs <= published.train.epochs
        else:
            assert characters(tuned) <= characters(published)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 99),
        ("dropout", 0.5),
        ("epochs", 1),
        ("batch_size", 3),
        ("seq_len", 7),
        ("learning_rate", 0.5),
        ("clip", None),
        ("seed", 5),
    ],
)
def test_override_of_anything_but_the_shape_keeps_the_name(field: str, value: Any) -> None:
    assert flat(override(ALPHA, **{field: value})) == flat(ALPHA) | {field: value}


@pytest.mark.parametrize("row", [("shakespeare", "gamma"), ("names", "gamma")], ids="-".join)
@pytest.mark.parametrize(
    ("field", "value"),
    [("embedding_dim", 3), ("hidden_dim", 5), ("num_layers", 7), ("layer_norm", None)],
)
def test_override_of_the_shape_makes_a_custom_model(row: Any, field: str, value: Any) -> None:
    preset = PRESETS[row]
    value = not preset.model.layer_norm if field == "layer_norm" else value
    custom = {
        "shakespeare": dict(name="custom", title="Astra-custom", base_name="Astra_custom"),
        "names": dict(name="custom", title="names-custom", base_name="GRU_custom_model"),
    }[row[0]]
    assert flat(override(preset, **{field: value})) == flat(preset) | {field: value} | custom
    assert not same_shape(override(preset, **{field: value}).model, preset.model)


def test_override_of_the_dataset_makes_a_custom_model() -> None:
    changed = override(ALPHA, dataset="names")
    assert (changed.title, changed.model) == ("names-custom", ALPHA.model)


def test_override_to_adam_drops_the_decay_unless_it_is_given_too() -> None:
    train = dataclasses.replace(ALPHA.train, optimizer="adam", weight_decay=0.0)
    assert override(ALPHA, optimizer="adam") == dataclasses.replace(ALPHA, train=train)
    assert override(ALPHA, optimizer="adamw").train.weight_decay == 0.01
    with pytest.raises(InputError, match="adam takes no weight decay"):
        override(ALPHA, optimizer="adam", weight_decay=0.01)


def test_override_refuses_a_field_that_no_part_has() -> None:
    with pytest.raises(InputError, match=r"no field 'depth'; it has vocab_size, .*, dtype"):
        override(ALPHA, depth=3)
