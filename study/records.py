"""What the study keeps of a run: all that its numbers, figures and texts are made of."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from astra_jax.config import Preset, Record, differences
from astra_jax.data.corpus import CorpusRecord
from astra_jax.errors import InputError
from astra_jax.presets import NOTEBOOK, override
from astra_jax.published import is_published_setup
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.storage import strict_json
from astra_jax.storage.atomic import write_text
from study.plan import Recipe, Row

FORMAT = 1
FOLDER = "runs"
"""Under the study's results: one file a run."""

_TOGETHER = "runs_together"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Record):
    """What is known of one run, whether its folder is at hand or not.

    Attributes:
        recipe: what the study calls how it is trained.
        preset: what that is.
        corpus: what it is trained on.
        environment: versions and machine that began it.
        epochs: an `EpochMetrics` of each that is done.
        runs_together: for each epoch, how many runs the program trained at once.
        steps_done: those of a begun epoch included.
        steps_planned: of the whole training.
        training_chars: targets that the steps done have learned from, each time counted.
        evaluation: what the model comes to on the validation part, where it stands.
        samplers: what it writes, with its state and without.
    """

    recipe: Recipe
    preset: Preset
    corpus: CorpusRecord
    environment: dict
    epochs: tuple
    runs_together: tuple
    steps_done: int
    steps_planned: int
    training_chars: int
    evaluation: dict | None = None
    samplers: dict | None = None

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        numbers = [line.epoch for line in self.epochs]
        self._require("epochs", numbers == list(range(1, len(numbers) + 1)), "counted from 1")
        shared = all(type(number) is int and number > 0 for number in self.runs_together)
        one_each = shared and len(self.runs_together) == len(numbers)
        self._require(_TOGETHER, one_each, "a positive whole number for each epoch")
        self._require("steps_planned", self.steps_planned > 0, "positive")
        self._require("training_chars", self.training_chars >= 0, "at least 0")
        done = self.epochs[-1].step if self.epochs else 0
        planned = f"from {done}, its last epoch's, to {self.steps_planned}"
        self._require("steps_done", done <= self.steps_done <= self.steps_planned, planned)

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.preset.train.seed

    @property
    def stem(self) -> str:
        """The name shared by all runs that differ in their seed alone."""
        return f"{self.preset.data.dataset}-{self.preset.name}-{self.recipe}"

    @property
    def file_name(self) -> str:
        """What its file is called."""
        return _file_name(self.stem, self.seed)

    @property
    def is_complete(self) -> bool:
        """Whether the training has come to its end."""
        return self.steps_done == self.steps_planned

    @property
    def is_measured(self) -> bool:
        """Whether its model and its texts have been looked at."""
        return self.evaluation is not None and self.samplers is not None

    def stands_where(self, other: Self) -> bool:
        """Whether the other is of the same training at the same step."""
        mine, its = ((each.preset, each.epochs, each.steps_done) for each in (self, other))
        return mine == its and self.corpus.sha256 == other.corpus.sha256

    @property
    def train_seconds(self) -> float:
        """What the finished epochs took of their machine.

        Runs that are trained together have an equal part of the time each.
        """
        shares = zip(self.epochs, self.runs_together, strict=True)
        # Exactly: Python 3.12's own sum rounds otherwise than that of 3.11, and the file tells it.
        return math.fsum(line.train_seconds / together for line, together in shares)

    @property
    def is_published_setup(self) -> bool:
        """Whether model, recipe and corpus are the studies' own, so that losses compare."""
        return self.recipe == NOTEBOOK and is_published_setup(self.preset, self.corpus)

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as a JSON-ready dictionary."""
        epochs = zip(self.epochs, self.runs_together, strict=True)
        return {
            "format": FORMAT,
            **self._told(),
            "recipe": self.recipe,
            "steps_done": self.steps_done,
            "steps_planned": self.steps_planned,
            "training_chars": self.training_chars,
            "evaluation": self.evaluation,
            "preset": self.preset.to_dict(),
            "corpus": self.corpus.to_dict(),
            "environment": self.environment,
            "epochs": [line.to_dict() | {_TOGETHER: number} for line, number in epochs],
            "samplers": self.samplers,
        }

    def _told(self) -> dict[str, Any]:
        """Returns what follows from the rest, for who reads the file."""
        return {
            "title": self.preset.title,
            "seed": self.seed,
            "parameters": self.preset.model.num_parameters,
            "complete": self.is_complete,
            "epochs_done": len(self.epochs),
            "epochs_planned": self.preset.train.epochs,
            "train_seconds": round(self.train_seconds, 3),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Builds the record from what `to_dict` returned; raises `InputError` as `Record` does."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InputError(f"is no record of format {FORMAT}, which this version reads")
        lines = values.get("epochs")
        if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
            raise InputError(f"epochs must be a list of objects, got {lines!r}")
        together = tuple(line.get(_TOGETHER) for line in lines)
        read: dict[str, Any] = {
            "preset": Preset.from_dict(values.get("preset")),
            "corpus": CorpusRecord.from_dict(values.get("corpus")),
            "epochs": tuple(EpochMetrics.from_dict(_without(line, _TOGETHER)) for line in lines),
            _TOGETHER: together,
        }
        plain: dict[str, Any] = {
            name: values.get(name) for name in cls.__slots__ if name not in read
        }
        record = cls(**read, **plain)
        told = record._told()
        if found := differences({name: values.get(name) for name in told}, told):
            raise InputError(f"contradicts itself: {found[0]} by the rest of it")
        return record


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _file_name(stem: str, seed: int) -> str:
    return f"{stem}-seed-{seed}.json"


def read(path: Path) -> RunRecord:
    """Returns what a file holds.

    Raises:
        InputError: it cannot be read, is damaged, or is called after another run.
    """
    try:
        record = RunRecord.from_dict(strict_json.read(path))
    except InputError as error:
        message = str(error).removeprefix(f"{path} ")
        raise InputError(f"{path} {message}; put back what was there, or remove it") from error
    if record.file_name != path.name:
        raise InputError(f"{path} holds what belongs into {record.file_name}: rename it")
    return record


def read_all(out: Path) -> list[RunRecord]:
    """Returns all records of the study's results, those of a row by their seeds.

    Raises:
        InputError: as `read` does.
    """
    records = [read(path) for path in sorted((out / FOLDER).glob("*.json"))]
    return sorted(records, key=lambda record: (record.stem, record.seed))


def read_if_any(out: Path, row: Row, seed: int) -> RunRecord | None:
    """Returns the record of a run, None where there is none; raises as `read` does."""
    path = out / FOLDER / _file_name(row.stem, seed)
    return read(path) if path.is_file() else None


def find(out: Path, row: Row, preset: Preset) -> RunRecord | None:
    """Returns the record of a run that has trained what is meant; None where there is none.

    Args:
        out: folder of the results.
        row: that the run belongs to.
        preset: what is meant, with its seed.

    Raises:
        InputError: as `read` does, or the record is of another recipe.
    """
    record = read_if_any(out, row, preset.train.seed)
    if record is None:
        return None
    # The vocabulary is the corpus's.
    meant = override(preset, vocab_size=record.preset.model.vocab_size)
    if found := differences(record.preset.to_dict(), meant.to_dict()):
        raise InputError(
            f"{record.file_name} is of another recipe than {row.name} is now: {'; '.join(found)}; "
            "remove it, or train anew by --again"
        )
    return record


def keep(out: Path, record: RunRecord) -> bool:
    """Writes a record, unless there is one of the same run that has gone further.

    Returns:
        Whether it was written.
    """
    path = out / FOLDER / record.file_name
    if path.is_file():
        before = read(path)
        same = before.preset == record.preset and before.corpus.sha256 == record.corpus.sha256
        if same and before.steps_done > record.steps_done:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return True


def continued(
    record: RunRecord | None, epochs: Sequence[EpochMetrics], together: int
) -> tuple[int, ...]:
    """Returns of each epoch how many runs were trained together.

    Args:
        record: what was known of the run before.
        epochs: those that it has done now.
        together: how many runs trained those that are new.
    """
    before = () if record is None else zip(record.epochs, record.runs_together, strict=True)
    known = {line.epoch: (line, number) for line, number in before}
    same = (known.get(line.epoch, (None, together)) for line in epochs)
    return tuple(
        number if line == epoch else together
        for (line, number), epoch in zip(same, epochs, strict=True)
    )


def without_path(corpus: CorpusRecord) -> CorpusRecord:
    """Returns what is known of a corpus, less where it lay on some machine."""
    return replace(corpus, path=None)
