"""A run folder: everything that a training leaves behind, and how it is read again.

config.json       what is trained, on which corpus, with which versions, on what machine
vocabulary.json   its characters
metrics.jsonl     one object an epoch
checkpoints/      Orbax checkpoints, the newest
best/             that of the lowest validation loss
samples.txt       text of the finished model
loss.png          its loss curve
"""

import dataclasses
import hashlib
import itertools
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from astra_jax.config import MAX_STEPS, Preset, StrPath, differences
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.machine.environment import describe_environment
from astra_jax.runs.checkpoints import require_findable
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.storage import strict_json
from astra_jax.storage.atomic import write_text

Parsed = TypeVar("Parsed")

FORMAT = 1
CONFIG, VOCABULARY, METRICS = "config.json", "vocabulary.json", "metrics.jsonl"
SAMPLES, LOSS_FIGURE = "samples.txt", "loss.png"
GROUP = "group.json"
"""What a folder has that holds run folders; see `groups`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder on disk and what its config.json says.

    Attributes:
        folder: where it is.
        preset: what is trained, and how.
        vocabulary: the characters of its corpus.
        corpus: the text that it is trained on.
        environment: versions and machine that began it.
        imported_step: steps that its model had been trained elsewhere before it came here; of
            their epochs there are no metrics.
        imported_steps_per_epoch: how many made an epoch there; None where that is not known.
    """

    folder: Path
    preset: Preset
    vocabulary: Vocabulary
    corpus: CorpusRecord
    environment: dict[str, Any]
    imported_step: int = 0
    imported_steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        """Refuses a vocabulary that is not the model's, as an `InputError`."""
        if len(self.vocabulary) != self.preset.model.vocab_size:
            raise InputError(
                f"{self.folder}: {VOCABULARY} of {len(self.vocabulary)} tokens and {CONFIG} of "
                f"vocab_size {self.preset.model.vocab_size} are not of one run"
            )

    @classmethod
    def create(
        cls,
        folder: StrPath | None,
        preset: Preset,
        vocabulary: Vocabulary,
        corpus: CorpusRecord,
        imported_step: int = 0,
        imported_steps_per_epoch: int | None = None,
    ) -> Self:
        """Makes a new run folder.

        Args:
            folder: where; None is the next free `runs/<dataset>-<model>-<number>`.
            preset: what is to be trained.
            vocabulary: of its corpus.
            corpus: what it is.
            imported_step: steps that its model has been trained elsewhere.
            imported_steps_per_epoch: see the class.

        Raises:
            InputError: the folder cannot be made, or holds something already.
        """
        run = cls(
            folder=claim_folder(folder, f"{preset.data.dataset}-{preset.name}"),
            preset=preset,
            vocabulary=vocabulary,
            corpus=corpus,
            environment=describe_environment(),
            imported_step=imported_step,
            imported_steps_per_epoch=imported_steps_per_epoch,
        )
        try:
            # The first file is the claim: of two that begin here at once one is refused.
            run._write_config(overwrite=False)
            try:
                write_text(run.folder / VOCABULARY, _json(vocabulary.to_dict()))
            except BaseException:  # A run with half of its files could be neither begun nor opened.
                (run.folder / CONFIG).unlink()
                raise
        except FileExistsError:
            raise InputError(f"{run.folder} has just been taken by another run") from None
        except OSError as error:
            raise InputError(f"cannot write into {run.folder}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, folder: StrPath) -> Self:
        """Reads an existing run folder.

        Raises:
            InputError: the folder is no run, or one of its files is damaged.
        """
        folder = Path(folder).expanduser()
        if (folder / GROUP).is_file():
            raise InputError(f"{folder} is a folder of runs: give one of the run folders in it")
        if not (folder / CONFIG).is_file():
            raise InputError(
                f"{folder} is not a run folder: it has no {CONFIG}; give the folder that "
                "scripts/train.py wrote, or make one of a weight file by scripts/convert.py"
            )
        config = strict_json.read(folder / CONFIG)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise InputError(
                f"{folder / CONFIG} is not of format {FORMAT}, which this version reads"
            )
        tokens = folder / VOCABULARY
        vocabulary = _parse(tokens, Vocabulary.from_dict, strict_json.read(tokens))
        preset = _parse(folder / CONFIG, Preset.from_dict, config.get("preset"))
        return cls(
            folder=folder,
            preset=preset,
            vocabulary=vocabulary,
            corpus=_parse(folder / CONFIG, CorpusRecord.from_dict, config.get("corpus")),
            environment=_parse(folder / CONFIG, _environment, config.get("environment", {})),
            imported_step=_parse(folder / CONFIG, _step, config.get("imported_step", 0)),
            imported_steps_per_epoch=_parse(
                folder / CONFIG, _epoch_length, config.get("imported_steps_per_epoch")
            ),
        )

    def with_corpus(self, corpus: CorpusRecord) -> Self:
        """Returns the run with what has become known of its corpus; see `record_corpus`."""
        return dataclasses.replace(self, corpus=corpus)

    def record_corpus(self) -> None:
        """Writes down what has become known of its corpus, unless it stands there."""
        if Run.open(self.folder).corpus != self.corpus:
            self._write_config()

    def _write_config(self, *, overwrite: bool = True) -> None:
        config = {
            "format": FORMAT,
            "preset": self.preset.to_dict(),
            "corpus": self.corpus.to_dict(),
            "environment": self.environment,
            "imported_step": self.imported_step,
            "imported_steps_per_epoch": self.imported_steps_per_epoch,
        }
        write_text(self.folder / CONFIG, _json(config), overwrite=overwrite)

    @property
    def checkpoints(self) -> Path:
        """The folder of Orbax checkpoints."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """The folder of the Orbax checkpoint with the lowest validation loss."""
        return self.folder / "best"

    def identity(self) -> dict[str, Any]:
        """Returns what must not change between the steps of a training, JSON-ready."""
        tokens = _json(self.vocabulary.to_dict()).encode()
        return {
            "preset": self.preset.to_dict(),
            "corpus_sha256": self.corpus.sha256,
            "vocabulary_sha256": hashlib.sha256(tokens).hexdigest(),
        }

    def differences(self, record: dict[str, Any]) -> list[str]:
        """Returns in what the run is another than the one whose `identity` a record has."""
        identity = self.identity()
        # By way of a preset, so that a record without fields that came later says what it means.
        before = Preset.from_dict(record["preset"]).to_dict()
        found = differences(before, identity["preset"])
        for name in ("corpus_sha256", "vocabulary_sha256"):
            # Of imported weights the corpus is unknown, until a resume has found one.
            if record[name] not in (None, identity[name]):
                found.append(f"{name} was {record[name][:12]}…, now {str(identity[name])[:12]}…")
        return found

    @property
    def uses_builtin_text(self) -> bool:
        """Whether the project's own text was trained on."""
        return self.corpus.origin == "built-in"

    def describe(self) -> str:
        """Returns in one line what is trained on what."""
        model = self.preset.model
        return (
            f"{self.preset.title}: {model.num_parameters:,} parameters, on {self.corpus.name} "
            f"({self.corpus.origin}), {len(self.vocabulary)} classes"
        )

    def metrics(self) -> list[EpochMetrics]:
        """Returns the epochs done so far, those that were done elsewhere left out.

        Raises:
            InputError: a line is damaged.
        """
        path = self.folder / METRICS
        try:
            lines = strict_json.read_lines(path) if path.exists() else ()
            return [EpochMetrics.from_dict(line) for line in lines]
        except InputError as error:
            raise InputError(f"{path} is damaged: {error}") from error

    def write_metrics(self, metrics: list[EpochMetrics]) -> None:
        """Writes all epochs' lines anew, in one piece."""
        lines = (json.dumps(epoch.to_dict()) for epoch in metrics)
        write_text(self.folder / METRICS, "".join(f"{line}\n" for line in lines))


def claim_folder(wanted: StrPath | None, stem: str) -> Path:
    """Makes the folder that is asked for, or the next free numbered one.

    Raises:
        InputError: it cannot be made, holds something already, or Orbax could not read it.
    """
    if wanted is not None:
        folder = Path(wanted).expanduser()
        _make(folder)
        _require_empty(folder)
        return folder
    runs = Path("runs")
    _make(runs)
    for number in itertools.count(1):
        folder = runs / f"{stem}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_make(folder, error) from error
        return folder
    raise AssertionError("itertools.count never ends")


def _make(folder: Path) -> None:
    require_findable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        what = "a file" if folder.exists() else "a link to nothing"
        raise InputError(f"{folder} is {what}: choose a new folder") from None
    except OSError as error:
        raise _cannot_make(folder, error) from error


def _cannot_make(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot make the folder {folder}: {error.strerror}")


def _require_empty(folder: Path) -> None:
    if any((folder / name).exists() for name in (CONFIG, GROUP)):
        raise InputError(
            f"{folder} already holds a run: choose another folder, or go on with that run "
            f"by scripts/train.py --resume {shlex.quote(str(folder))}"
        )
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another folder")


def _step(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_STEPS:
        raise InputError(
            f"imported_step must be a whole number from 0 to {MAX_STEPS}, got {value!r}"
        )
    return value


def _epoch_length(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 1 <= value <= MAX_STEPS):
        raise InputError(
            f"imported_steps_per_epoch must be a whole number from 1 to {MAX_STEPS}, or null, "
            f"got {value!r}"
        )
    return value


def _environment(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"environment must be an object, got {value!r}")
    return value


def _parse(path: Path, parse: Callable[[Any], Parsed], value: Any) -> Parsed:
    """Lets a complaint about a value name the file that it came from."""
    try:
        return parse(value)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
