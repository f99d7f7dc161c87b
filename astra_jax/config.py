"""What a run is made of, as validated, immutable values that go to JSON and back."""

import dataclasses
import os
import re
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from astra_jax.errors import InputError

DatasetName = Literal["shakespeare", "names"]
Level = Literal["char", "byte"]
OptimizerName = Literal["adamw", "adam"]
ScheduleName = Literal["cosine", "cosine-by-step", "constant"]
DecayName = Literal["all", "matrices"]
DropoutPlace = Literal["states", "outputs"]
DtypeName = Literal["float32", "float64", "bfloat16"]

StrPath = str | os.PathLike[str]
"""A file or folder, as callers name it."""

MAX_STEPS = 2**31 - 1
"""Largest number of steps of a training: JAX counts them in an int32."""

MAX_LEARNING_RATE = 1e38
"""Largest learning rate: an update by a larger one can be infinite in float32 before any loss tells
of it."""

DROPOUT_LEVELS = 1 << 16
"""Resolution of the dropout rate: 16 random bits decide whether an element survives."""

_LIMITS = dict(
    vocab_size=2**18,  # More than the characters that Unicode has assigned.
    embedding_dim=2**16,
    hidden_dim=2**16,
    num_layers=2**8,
    batch_size=2**16,
    seq_len=2**20,
    epochs=100_000,
    steps_per_epoch=2**24,  # torch counts steps in a float32.
)
"""The largest sizes that mean anything: a stranger's file may ask for terabytes in a few bytes."""

LATER: dict[str, dict[str, Any]] = {
    "DataConfig": dict(start_token=False, dedupe=False, level="char", carry_state=False),
    "TrainConfig": dict(warmup_steps=0, decay="all", dropout_on="states"),
}
"""Fields that came after a record's first files, and what a file without them means."""


class Record:
    """Type-checks the fields of a frozen dataclass and carries it to JSON and back."""

    __slots__ = ()

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # Of a range of NumPy's; JSON knows none of them.
                value = value.item()
                object.__setattr__(self, field.name, value)
            if not _conforms(value, hints[field.name]):
                raise InputError(f"{field.name} must be {_name(hints[field.name])}, got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dictionary, nested like they are."""
        return dataclasses.asdict(self)  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Builds the record from what `to_dict` returned, now or before it had fields of `LATER`.

        Raises:
            InputError: a field is missing, unknown or of the wrong type.
        """
        if not isinstance(values, dict):
            raise InputError(f"{cls.__name__} must be a JSON object, got {values!r}")
        values = LATER.get(cls.__name__, {}) | values
        names = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
        if set(values) != names:
            missing, unknown = sorted(names - set(values)), sorted(set(values) - names)
            raise InputError(f"{cls.__name__}: missing fields {missing}, unknown fields {unknown}")
        return cls(**values)

    def _require_size(self, *fields: str) -> None:
        for field in fields:
            value, limit = getattr(self, field), _LIMITS[field]
            self._require(field, value > 0, "positive")
            self._require(field, value <= limit, f"at most {limit:,}")

    def _require(self, field: str, ok: bool, expected: str) -> None:
        if not ok:
            raise InputError(f"{field} must be {expected}, got {getattr(self, field)!r}")


def _conforms(value: Any, hint: Any) -> bool:
    """Whether `value` is of the annotated type; an int passes for a float, a bool for neither."""
    if isinstance(hint, types.UnionType):
        return any(_conforms(value, option) for option in get_args(hint))
    if typing.get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, hint)


def _name(hint: Any) -> str:
    """Returns what a person calls an annotated type."""
    if isinstance(hint, types.UnionType):
        return " or ".join(_name(option) for option in get_args(hint))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    plain = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    return plain.get(hint, "null" if hint is types.NoneType else hint.__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(Record):
    """The shape of a model.

    Attributes:
        vocab_size: V, number of classes in and out.
        embedding_dim: E, width of a character's embedding.
        hidden_dim: H, width of every layer's state.
        num_layers: L, number of stacked GRU layers.
        dropout: share of the carried state that is zeroed at every step of training, in [0, 1),
            drawn in steps of 1 / `DROPOUT_LEVELS`.
        layer_norm: whether a LayerNorm over H stands before the head.
    """

    vocab_size: int
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    dropout: float
    layer_norm: bool

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        self._require_size("vocab_size", "embedding_dim", "hidden_dim", "num_layers")
        self._require("dropout", 0.0 <= self.dropout < 1.0, "at least 0 and below 1")
        drawn = round(self.dropout * DROPOUT_LEVELS)  # Rounded to 0 or 1 it would be another model.
        self._require(
            "dropout",
            self.dropout == 0.0 or 0 < drawn < DROPOUT_LEVELS,
            f"0, or from 1/{DROPOUT_LEVELS} to {DROPOUT_LEVELS - 1}/{DROPOUT_LEVELS}",
        )

    @property
    def num_parameters(self) -> int:
        """Number of trained scalars, both additive biases of r and z counted."""
        inputs = [self.embedding_dim] + [self.hidden_dim] * (self.num_layers - 1)
        cells = sum(3 * (width + self.hidden_dim + 1) + 2 for width in inputs) * self.hidden_dim
        norm = 2 * self.hidden_dim * self.layer_norm
        head = (self.hidden_dim + 1) * self.vocab_size
        return self.vocab_size * self.embedding_dim + cells + norm + head


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(Record):
    """What a batch is.

    Attributes:
        dataset: `shakespeare` (windows of running text) or `names` (one word a line, padded).
        batch_size: B, windows or words in a batch.
        seq_len: T, characters in a window; the length that words are padded to, with their start
            token if they have one.
        train_fraction: share of the characters or words that is trained on; the rest validates.
        start_token: whether a word is read from its start token on, so that its first letter is
            learned too; in the names study it is not.
        dedupe: whether a word that the list has several times is taken once, so that none is
            both trained on and validated on; in the names study some are.
        level: what a token of running text is: `char`, as in the studies, or `byte`, which any
            file is made of.
        carry_state: whether a window continues the one at the same place in the previous batch,
            starting from the states reached there (truncated backpropagation through time). After
            the last whole window comes one near the text's beginning, and the state is carried
            there too. In the studies windows are drawn at random, and begin from zero states.
    """

    dataset: DatasetName
    batch_size: int
    seq_len: int
    train_fraction: float
    start_token: bool
    dedupe: bool
    level: Level
    carry_state: bool

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        self._require_size("batch_size", "seq_len")
        self._require("train_fraction", 0 < self.train_fraction < 1, "between 0 and 1")
        for field in ("start_token", "dedupe"):
            takes = self.dataset == "names" or not getattr(self, field)
            self._require(field, takes, "false for running text: it is for words, --dataset names")
        running = self.dataset != "names"
        self._require("carry_state", running or not self.carry_state, "false: words are whole")
        self._require("level", running or self.level == "char", "char for words: they have letters")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(Record):
    """How a model is trained.

    Attributes:
        epochs: number of passes of `steps_per_epoch` steps.
        steps_per_epoch: optimiser steps in an epoch; None takes every batch of the data once.
        optimizer: `adamw` (decoupled decay) or `adam` (no decay).
        learning_rate: the peak rate, with which the schedule begins.
        schedule: `cosine` (over epochs, constant inside one, floor 0), `cosine-by-step` (the same
            half wave, falling at every step) or `constant`.
        warmup_steps: first steps, in which the learning rate rises linearly to what the schedule
            begins with.
        weight_decay: decoupled decay; 0 for `adam`.
        decay: what decays: `all` parameters, as in the studies, or the `matrices` of the products
            alone, neither biases nor embedding.
        dropout_on: what dropout falls on: the `states` that a layer hands up and carries on, as in
            the studies, or its `outputs` alone, the states being carried on whole.
        clip: largest global norm of the gradient; None does not clip.
        seed: fixes weights, split, batches, dropout and the validation estimate.
        dtype: type of the arithmetic; `bfloat16` keeps parameters and states in float32.
    """

    epochs: int
    steps_per_epoch: int | None
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    warmup_steps: int
    weight_decay: float
    decay: DecayName
    dropout_on: DropoutPlace
    clip: float | None
    seed: int
    dtype: DtypeName

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        self._require_size("epochs")
        self._require(
            "learning_rate",
            0 <= self.learning_rate <= MAX_LEARNING_RATE,
            f"from 0 to {MAX_LEARNING_RATE:g}",
        )
        self._require("weight_decay", self.weight_decay >= 0, "at least 0")
        self._require("warmup_steps", self.warmup_steps >= 0, "at least 0")
        self._require("seed", 0 <= self.seed < 2**32, "at least 0 and below 2**32")
        if self.steps_per_epoch is not None:
            self._require_size("steps_per_epoch")
            steps = f"at most {MAX_STEPS:,} in all epochs"
            self._require("steps_per_epoch", self.epochs * self.steps_per_epoch <= MAX_STEPS, steps)
            require_short_warmup(self, self.steps_per_epoch)
        if self.clip is not None:
            self._require("clip", self.clip > 0, "positive (0 on the command line turns it off)")
        if self.optimizer == "adam" and self.weight_decay:
            raise InputError(
                f"optimizer adam takes no weight decay, got {self.weight_decay}: "
                "use --optimizer adamw or --weight-decay 0"
            )


def require_short_warmup(config: TrainConfig, steps_per_epoch: int) -> None:
    """Refuses a recipe that never reaches its learning rate; raises `InputError`."""
    steps = config.epochs * steps_per_epoch
    if config.warmup_steps >= steps:
        raise InputError(
            f"warmup_steps must be fewer than the training's {steps:,}, got "
            f"{config.warmup_steps:,}: give a smaller --warmup-steps, or train longer"
        )


def param_dtype(dtype: DtypeName) -> Literal["float32", "float64"]:
    """Returns the type of parameters, states, moments and rates where products are of `dtype`."""
    return "float64" if dtype == "float64" else "float32"


PARTS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig}
"""The parts of a preset; no field's name belongs to two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset(Record):
    """A named model with the data and the recipe that it is trained on.

    Attributes:
        name: what the command line calls it: alpha, beta, gamma, or custom.
        title: what people call it, `model_name` in the notebooks' files.
        base_name: what the notebooks' weight files are called.
        model: its shape.
        data: its batches.
        train: its recipe.
    """

    name: str
    title: str
    base_name: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        # Files and folders are named after these, also where they come out of a stranger's file.
        for field in ("name", "base_name"):
            plain = re.fullmatch(r"\w{1,64}", getattr(self, field), re.ASCII) is not None
            self._require(field, plain, "letters, digits and underscores, at most 64")
        self._require("title", self.title.isprintable() and len(self.title) <= 64, "a short line")

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Builds the preset from nested dictionaries; raises `InputError` as `Record` does."""
        if isinstance(values, dict):
            values = {
                key: PARTS[key].from_dict(value) if key in PARTS else value
                for key, value in values.items()
            }
        return super(Preset, cls).from_dict(values)


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns a line for every field that two presets, as `to_dict` returns them, differ in."""
    lines = []
    for name in was | now:
        before, after = was.get(name, "missing"), now.get(name, "missing")
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after)
        elif before != after:
            lines.append(f"{name} was {before}, now {after}")
    return lines
