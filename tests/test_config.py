"""Tests of the configuration: what it takes, what it refuses, and its way through JSON."""

import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import LATER, MAX_LEARNING_RATE, DataConfig, ModelConfig, Preset, TrainConfig
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS, override

MODEL: dict[str, Any] = dict(
    vocab_size=65, embedding_dim=64, hidden_dim=128, num_layers=1, dropout=0.1, layer_norm=False
)
DATA: dict[str, Any] = dict(
    dataset="names",
    batch_size=64,
    seq_len=16,
    train_fraction=0.8,
    start_token=True,
    dedupe=False,
    level="char",
    carry_state=False,
)
TRAIN: dict[str, Any] = dict(
    epochs=10,
    steps_per_epoch=None,
    optimizer="adamw",
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=0,
    weight_decay=0.01,
    decay="all",
    dropout_on="states",
    clip=1.0,
    seed=0,
    dtype="float32",
)
PRESET: dict[str, Any] = PRESETS["names", "gamma"].to_dict()
CLASSES = [(ModelConfig, MODEL), (DataConfig, DATA), (TrainConfig, TRAIN), (Preset, PRESET)]

counts = st.integers(min_value=1, max_value=2**16)
layers = st.integers(min_value=1, max_value=2**8)
epochs = st.integers(min_value=1, max_value=2**15 - 1)
rates = st.floats(min_value=0, max_value=1e300)
fractions = st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True)
FIELDS: dict[str, st.SearchStrategy[Any]] = dict(
    embedding_dim=counts,
    hidden_dim=counts,
    num_layers=layers,
    dropout=st.just(0.0) | st.floats(min_value=2**-16, max_value=1 - 2**-16),
    layer_norm=st.booleans(),
    batch_size=counts,
    seq_len=counts,
    train_fraction=fractions,
    epochs=epochs,
    steps_per_epoch=st.none() | counts,
    learning_rate=st.floats(min_value=0, max_value=MAX_LEARNING_RATE),
    schedule=st.sampled_from(["cosine", "cosine-by-step", "constant"]),
    decay=st.sampled_from(["all", "matrices"]),
    dropout_on=st.sampled_from(["states", "outputs"]),
    weight_decay=rates,
    clip=st.none() | st.floats(min_value=0, exclude_min=True, max_value=1e300),
    seed=st.integers(min_value=0, max_value=2**32 - 1),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
)


def field_of(field: str) -> tuple[type[ModelConfig | DataConfig | TrainConfig], dict[str, Any]]:
    """Returns the class that has the field, and valid values for all of its fields."""
    for cls, values in ((ModelConfig, MODEL), (DataConfig, DATA), (TrainConfig, TRAIN)):
        if field in values:
            return cls, values
    raise AssertionError(field)


@given(
    row=st.sampled_from([row for row, preset in PRESETS.items() if preset.train.weight_decay]),
    fields=st.fixed_dictionaries({}, optional=FIELDS),
)
@settings(max_examples=60, deadline=None)
def test_preset_comes_back_from_json_as_it_was(row: Any, fields: dict[str, Any]) -> None:
    preset = override(PRESETS[row], **fields)
    values = json.loads(json.dumps(preset.to_dict(), allow_nan=False))
    assert Preset.from_dict(values) == preset
    assert {**values["model"], **values["data"], **values["train"]}.items() >= fields.items()


@pytest.mark.parametrize("row", PRESETS, ids="-".join)
def test_preset_of_the_studies_comes_back_from_json_equal_in_value_and_hash(row: Any) -> None:
    again = Preset.from_dict(json.loads(json.dumps(PRESETS[row].to_dict())))
    # Compiled programs are found again by the hash of the preset that they were made for.
    assert (again, hash(again)) == (PRESETS[row], hash(PRESETS[row]))


@pytest.mark.parametrize(("cls", "values"), CLASSES, ids=lambda x: getattr(x, "__name__", ""))
def test_from_dict_names_missing_and_unknown_fields(cls: Any, values: dict[str, Any]) -> None:
    assert cls.from_dict(values).to_dict() == values
    for field in set(values) - set(LATER.get(cls.__name__, ())):
        others = {name: value for name, value in values.items() if name != field}
        for fields, missing, unknown in (
            (others, [field], []),
            (values | {"depth": 1}, [], ["depth"]),
            (others | {"depth": 1}, [field], ["depth"]),
        ):
            with pytest.raises(InputError) as error:
                cls.from_dict(fields)
            assert str(error.value) == (
                f"{cls.__name__}: missing fields {missing}, unknown fields {unknown}"
            )


def test_record_from_before_a_field_came_means_what_was_done_then() -> None:
    for cls, values, since in (
        (DataConfig, DATA, {"start_token", "dedupe", "level", "carry_state"}),
        (TrainConfig, TRAIN, {"warmup_steps", "decay", "dropout_on"}),
    ):
        older = {name: value for name, value in values.items() if name not in since}
        assert set(LATER[cls.__name__]) == since
        assert cls.from_dict(older).to_dict() == older | LATER[cls.__name__]
    # And that is the study.
    for preset in PRESETS.values():
        assert preset.data.to_dict().items() >= LATER["DataConfig"].items()
        assert preset.train.to_dict().items() >= LATER["TrainConfig"].items()


def test_words_are_whole_so_no_state_is_carried_between_them() -> None:
    with pytest.raises(InputError, match="carry_state must be false: words are whole, got True"):
        override(PRESETS["names", "alpha"], carry_state=True)


def test_a_warmup_must_end_before_the_training_does() -> None:
    alpha = PRESETS["shakespeare", "alpha"]
    assert override(alpha, warmup_steps=1999).train.warmup_steps == 1999
    with pytest.raises(InputError, match=r"fewer than the training's 2,000, got 2,000"):
        override(alpha, warmup_steps=2000)


@pytest.mark.parametrize("field", ["start_token", "dedupe"])
def test_running_text_takes_no_switch_of_words(field: str) -> None:
    with pytest.raises(InputError, match=f"{field} must be false for running text: .*, got True"):
        override(PRESETS["shakespeare", "alpha"], **{field: True})


def test_words_are_not_made_of_bytes() -> None:
    assert override(PRESETS["shakespeare", "alpha"], level="byte").data.level == "byte"
    with pytest.raises(InputError, match=r"level must be char for words: they have .*, got 'byte'"):
        override(PRESETS["names", "alpha"], level="byte")
    with pytest.raises(InputError, match="level must be one of char, byte, got 'word'"):
        override(PRESETS["shakespeare", "alpha"], level="word")


@pytest.mark.parametrize("values", [None, [], "alpha", 3])
def test_from_dict_refuses_what_is_no_object(values: Any) -> None:
    for cls, _ in CLASSES:
        with pytest.raises(InputError, match=f"{cls.__name__} must be a JSON object, got "):
            cls.from_dict(values)
    with pytest.raises(InputError, match="ModelConfig must be a JSON object, got "):
        Preset.from_dict(PRESET | {"model": values})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hidden_dim", True, "a whole number"),
        ("hidden_dim", 128.0, "a whole number"),
        ("hidden_dim", "128", "a whole number"),
        ("hidden_dim", None, "a whole number"),
        ("dropout", True, "a finite number"),
        ("dropout", "0.1", "a finite number"),
        ("dropout", math.nan, "a finite number"),
        ("learning_rate", math.inf, "a finite number"),
        ("weight_decay", None, "a finite number"),
        ("layer_norm", 1, "true or false"),
        ("layer_norm", None, "true or false"),
        ("steps_per_epoch", 2.5, "a whole number or null"),
        ("steps_per_epoch", False, "a whole number or null"),
        ("clip", -math.inf, "a finite number or null"),
        ("clip", "1", "a finite number or null"),
        ("dataset", "poems", "one of shakespeare, names"),
        ("optimizer", "sgd", "one of adamw, adam"),
        ("optimizer", ["adam"], "one of adamw, adam"),
        ("schedule", None, "one of cosine, cosine-by-step, constant"),
        ("dtype", "float16", "one of float32, float64, bfloat16"),
        pytest.param("learning_rate", 10**400, "a finite number", id="a long integer"),
    ],
)
def test_config_refuses_a_value_of_another_type(field: str, value: Any, expected: str) -> None:
    cls, values = field_of(field)
    with pytest.raises(InputError) as error:
        cls.from_dict(values | {field: value})
    assert str(error.value) == f"{field} must be {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("vocab_size", 0, "positive"),
        ("embedding_dim", 0, "positive"),
        ("hidden_dim", -1, "positive"),
        ("num_layers", 0, "positive"),
        ("dropout", -0.1, "at least 0 and below 1"),
        ("dropout", 1.0, "at least 0 and below 1"),
        ("dropout", 1e-6, "0, or from 1/65536 to 65535/65536"),
        ("batch_size", 0, "positive"),
        ("seq_len", 0, "positive"),
        ("train_fraction", 0.0, "between 0 and 1"),
        ("train_fraction", 1.0, "between 0 and 1"),
        ("epochs", 0, "positive"),
        ("steps_per_epoch", 0, "positive"),
        ("learning_rate", -1e-9, "from 0 to 1e+38"),
        ("learning_rate", 1.1e38, "from 0 to 1e+38"),
        ("weight_decay", -1e-9, "at least 0"),
        ("clip", 0.0, "positive (0 on the command line turns it off)"),
        ("vocab_size", 2**18 + 1, "at most 262,144"),
        ("hidden_dim", 2**40, "at most 65,536"),
        ("num_layers", 10**9, "at most 256"),
        ("epochs", 100_001, "at most 100,000"),
        ("steps_per_epoch", 2**24, "at most 2,147,483,647 in all epochs"),
        ("seed", -1, "at least 0 and below 2**32"),
        ("seed", 2**32, "at least 0 and below 2**32"),
    ],
)
def test_config_refuses_a_value_out_of_range(field: str, value: Any, expected: str) -> None:
    cls, values = field_of(field)
    values = values | (dict(epochs=1000) if field == "steps_per_epoch" else {})
    with pytest.raises(InputError) as error:
        cls.from_dict(values | {field: value})
    assert str(error.value) == f"{field} must be {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("field", "value"),
    [("title", "\x1b[2J"), ("title", "a\nb"), ("title", "x" * 65), ("name", "x" * 65)],
)
def test_a_preset_has_a_name_that_can_be_printed(field: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{field} must be "):
        Preset.from_dict(PRESET | {field: value})


def test_config_takes_the_ends_of_its_ranges() -> None:
    assert ModelConfig.from_dict(MODEL | {"dropout": 0.0}).dropout == 0.0
    ends = dict(learning_rate=0.0, weight_decay=0.0, clip=None, seed=2**32 - 1, steps_per_epoch=1)
    assert TrainConfig.from_dict(TRAIN | ends).to_dict() == TRAIN | ends


def test_config_takes_a_whole_number_for_a_number() -> None:
    # JSON has one kind of number: another program may well write 1.0 as 1.
    assert TrainConfig.from_dict(TRAIN | {"clip": 1}) == TrainConfig(**TRAIN)


def test_config_of_adam_takes_no_weight_decay() -> None:
    with pytest.raises(InputError, match=r"adam takes no weight decay, got 0\.01.*--weight-decay"):
        TrainConfig.from_dict(TRAIN | {"optimizer": "adam"})
    no_decay = TRAIN | {"optimizer": "adam", "weight_decay": 0.0}
    assert TrainConfig.from_dict(no_decay).to_dict() == no_decay


def test_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ModelConfig(**MODEL).hidden_dim = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_config_takes_numbers_of_numpys_for_what_they_are() -> None:
    config = ModelConfig.from_dict(MODEL | {"hidden_dim": np.int64(7), "dropout": np.float32(0.5)})
    assert config == ModelConfig.from_dict(MODEL | {"hidden_dim": 7, "dropout": 0.5})
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
