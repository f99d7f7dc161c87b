"""What trained runs cost and what they reach: evaluations as a table and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from astra_jax.config import Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.splits import Split
from astra_jax.evaluation import NUM_BATCHES, Evaluation, evaluate
from astra_jax.experiments.groups import runs_at
from astra_jax.experiments.lifecycle import (
    merge_model,
    require_checkpoint,
    restore_training,
)
from astra_jax.machine.environment import describe_environment
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import Spread
from astra_jax.units import duration

FORMAT = 1

WIDE = 140
"""Columns of a terminal from which on models stand below each other in one table."""

_TITLE = "validation loss: nats, and bits below"
_HEADERS = ("run", "parameters", "characters\ntrained on", "training\ntime")

TITLES = {
    "carried": "state carried",
    "all": "all words",
    "seen": "training words",
    "unseen": "other words",
    "one_batch": "one batch",
    "seen_share": "share of\ntraining words",
}
"""What a reader calls the parts of an evaluation that have no length in their name."""


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


def score_tables(
    scored: Sequence[tuple[Subject, Sequence[Scorecard]]], width: int = WIDE
) -> list[Table]:
    """Returns the scorecards for a terminal, and of each group a mean.

    Args:
        scored: what was evaluated.
        width: of the terminal, in columns. From `WIDE` on there is a table of texts and one of
            words, with a row for each model; below it a small table for each.
    """
    found = list(_rows(scored))
    if width < WIDE:
        return [_tall(about, cells) for about, cells in found]
    tables: dict[tuple[str, ...], Table] = {}
    for about, cells in found:
        table = tables.setdefault(tuple(cells), _wide(cells))
        table.add_row(*about, *cells.values(), end_section=True)
    return list(tables.values())


def _rows(
    scored: Sequence[tuple[Subject, Sequence[Scorecard]]],
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yields what is to be told of each model and of each group's mean: by whom, and what."""
    for subject, cards in scored:
        evaluated = [card.evaluation.to_dict() for card in cards]
        for card, values in zip(cards, evaluated, strict=True):
            yield _about(card), dict(_cells(values))
        if len(cards) > 1:
            about = [f"{escape(subject.name)}\nmean ± std of {len(cards)}", "", "", ""]
            yield about, dict(_cells(sum_up(evaluated)))


def _wide(cells: dict[str, str]) -> Table:
    table = Table(title=_TITLE, title_justify="left")
    table.add_column(_HEADERS[0])
    for header in (*_HEADERS[1:], *cells):
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _tall(about: list[str], cells: dict[str, str]) -> Table:
    table = Table(
        title=f"{about[0]}\n{_TITLE}", title_justify="left", show_header=False, min_width=44
    )
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for header, cell in zip((*_HEADERS[1:], *cells), (*about[1:], *cells.values()), strict=True):
        if cell:  # A group's mean has no parameters of its own.
            table.add_row(" ".join(header.split()), cell)
    return table


def _about(card: Scorecard) -> list[str]:
    run = card.run
    seconds = card.train_seconds
    what = f"{run.preset.title} on {card.corpus.name}"
    return [
        # Names that a person or a stranger gave are not rich's markup.
        escape("\n".join([run.folder.resolve().name, what, _machine(run.environment)])),
        f"{run.preset.model.num_parameters:,}",
        "–" if card.trained_chars is None else f"{card.trained_chars:,}",
        "–" if seconds is None else duration(seconds),
    ]


def _machine(environment: dict[str, Any]) -> str:
    """Returns what computed; a run folder may be a stranger's, and say anything of it."""
    devices = environment.get("devices")
    kinds = sorted(set(map(str, devices))) if isinstance(devices, list) else []
    if kinds and kinds != ["cpu"]:
        return _printable(f"{len(devices or [])} × {', '.join(kinds)}")
    processor, cores = environment.get("processor", "–"), environment.get("cores", "–")
    return _printable(f"{processor}, {cores} cores")


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:80]


def _cells(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields a column's title and content for every part of an evaluation, or of several."""
    for name, value in values.items():
        title = TITLES.get(name, f"windows of {name.removeprefix('windows_')}")
        if name == "one_batch":
            mean, std = (_mean(value[part]) for part in ("mean", "std"))
            yield title, f"{mean:.4f}\n" + (f"± {std:.4f}" if value["num_batches"] > 1 else "–")
        elif name == "seen_share":
            yield title, _number(value, percent=True)
        elif name not in ("kind", "num_targets"):
            pair = value and (_number(value["loss_nats"]), _number(value["bits_per_char"]))
            yield title, "\n".join(pair) if pair else "–"


def _mean(value: Any) -> float:
    return Spread.from_dict(value).mean if isinstance(value, dict) else value


def _number(value: Any, *, percent: bool = False) -> str:
    """Returns a number, or the mean of several with its deviation, in four places."""
    if isinstance(value, dict):
        spread = Spread.from_dict(value)
        if not percent:
            return spread.describe()
        return f"{spread.mean:.1%} ± {spread.std:.1%}"
    return f"{value:.1%}" if percent else f"{value:.4f}"
