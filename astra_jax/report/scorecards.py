"""What trained runs cost and what they reach."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astra_jax.config import Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.splits import Split
from astra_jax.evaluation import NUM_BATCHES, Evaluation, evaluate
from astra_jax.experiments.groups import runs_at
from astra_jax.experiments.restoring import merge_model, require_checkpoint, restore_training
from astra_jax.machine.environment import describe_environment
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import Spread

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """One trained model.

    Attributes:
        run: whose it is.
        corpus: the text whose validation part it was evaluated on.
        checkpoint: which of its models, `newest` or `best`.
        step: optimiser steps behind it.
        trained_chars: characters that these steps predicted, counted as often as they were. None
            of weights that came from elsewhere without a word of their training.
        train_seconds: time of the steps; of runs that were trained together, of all of them.
            None where it was trained elsewhere.
        evaluation: what it makes of the validation part.
    """

    run: Run
    corpus: CorpusRecord
    checkpoint: str
    step: int
    trained_chars: int | None
    train_seconds: float | None
    evaluation: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary, without a path."""
        run = self.run
        return {
            "name": run.folder.resolve().name,
            "title": run.preset.title,
            "seed": run.preset.train.seed,
            "corpus": self.corpus.to_dict() | {"path": None},
            "num_parameters": run.preset.model.num_parameters,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "trained_chars": self.trained_chars,
            "train_seconds": self.train_seconds,
            "trained_with": run.environment,
            "evaluation": self.evaluation.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run folder, or a folder of runs of several seeds, to be evaluated.

    Attributes:
        folder: where it is.
        runs: one, or those of the group.
    """

    folder: Path
    runs: tuple[Run, ...]

    @classmethod
    def open(cls, folder: Path, *, best: bool = False) -> "Subject":
        """Reads what a folder says of itself, before anything is computed.

        Args:
            folder: of a run, or of a group of them.
            best: whether the checkpoint of the lowest validation loss is meant.

        Raises:
            InputError: it is neither, is damaged, or one of the runs has no checkpoint.
        """
        runs = runs_at(folder)
        for run in runs:
            require_checkpoint(run, best=best)
        return cls(folder=folder, runs=runs)

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.folder.resolve().name

    @property
    def is_of_unknown_text(self) -> bool:
        """Whether its weights came from elsewhere without a word of their text."""
        return self.runs[0].corpus.sha256 is None

    def score(
        self,
        corpus: CorpusRecord,
        splits: Sequence[Split],
        *,
        best: bool = False,
        num_batches: int = NUM_BATCHES,
    ) -> Iterator[Scorecard]:
        """Yields the scorecard of each run.

        Args:
            corpus: the text, as `lifecycle.find_corpus` finds it.
            splits: how each run divides it.
            best: see `open`.
            num_batches: see `evaluation.evaluate`.

        Raises:
            InputError: a checkpoint cannot be used.
        """
        for run, split in zip(self.runs, splits, strict=True):
            training = restore_training(run, best=best)
            step, history = int(training.state.step), training.history
            seconds = sum(line.train_seconds for line in history.epochs) + history.current.seconds
            model = merge_model(run, training.state)
            yield Scorecard(
                run=run,
                corpus=corpus,
                checkpoint="best" if best else "newest",
                step=step,
                trained_chars=trained_chars(run.preset, split, step) if step else None,
                train_seconds=None if run.imported_step or not step else seconds,
                evaluation=evaluate(model, run.preset, split, num_batches=num_batches),
            )


def trained_chars(preset: Preset, split: Split, step: int) -> int:
    """Returns how many characters some steps predict.

    Where an epoch goes through all data these are its targets, padding left out; of part of an
    epoch, the share that is to be expected.
    """
    epoch = split.train.max_steps
    if epoch is None:
        return step * preset.data.batch_size * preset.data.seq_len
    return round(step * split.train.count_targets() / epoch)


def scores_record(scored: Sequence[tuple[Subject, Sequence[Scorecard]]]) -> dict[str, Any]:
    """Returns all that was found, JSON-ready; several seeds have a `summary` too, of `Spread`s."""
    subjects = []
    for subject, cards in scored:
        runs = [card.to_dict() for card in cards]
        together = sum_up([run["evaluation"] for run in runs]) if len(runs) > 1 else None
        subjects.append({"name": subject.name, "runs": runs, "summary": together})
    return {"format": FORMAT, "environment": describe_environment(), "subjects": subjects}


def sum_up(values: Sequence[Any]) -> Any:
    """Returns evaluations of several runs as one, of equal structure: every number's `Spread`.

    What all have equal and is no loss stays as it is; what one of them lacks is None.
    """
    first = values[0]
    if any(value is None for value in values):
        return None
    if isinstance(first, dict):
        return {name: sum_up([value[name] for value in values]) for name in first}
    if isinstance(first, float) or any(value != first for value in values):
        return Spread.of(values).to_dict()
    return first
