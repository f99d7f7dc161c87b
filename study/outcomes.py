"""What the runs of a model by one recipe come to together."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from astra_jax.errors import InputError
from astra_jax.presets import NOTEBOOK, override
from astra_jax.published import PUBLISHED_LOSSES
from astra_jax.runs.metrics import EpochMetrics, Spread
from study.plan import Row
from study.records import RunRecord

TEXT_LOSSES = {
    "carried": "state carried",
    "windows_128": "windows of 128",
    "windows_256": "windows of 256",
}
WORD_LOSSES = {"all": "all words", "seen": "words trained on", "unseen": "other words"}
"""Losses over the whole validation part, and what a table calls them. The first is the one that
models are compared by."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The runs of one row of the study, by their seeds.

    Attributes:
        row: which; its seeds are as many as there are runs.
        records: of all its runs, at least one.
    """

    row: Row
    records: tuple[RunRecord, ...]

    @property
    def title(self) -> str:
        """What a person calls it."""
        title = self.records[0].preset.title
        return title if self.row.recipe == NOTEBOOK else f"{title}, {self.row.recipe}"

    @property
    def is_complete(self) -> bool:
        """Whether a run has come to its end."""
        return any(record.is_complete for record in self.records)

    @property
    def furthest(self) -> tuple[RunRecord, ...]:
        """The runs that have done the most steps."""
        steps = max(record.steps_done for record in self.records)
        return tuple(record for record in self.records if record.steps_done == steps)

    @property
    def is_words(self) -> bool:
        """Whether it is of words."""
        return self.row.dataset == "names"

    @property
    def corpus(self) -> str:
        """What a person calls what it is trained on."""
        return self.records[0].corpus.name

    @property
    def parameters(self) -> int:
        """Of the model."""
        return self.records[0].preset.model.num_parameters

    @property
    def epochs_planned(self) -> int:
        """Of the recipe."""
        return self.records[0].preset.train.epochs

    @property
    def epochs(self) -> list[int]:
        """The epochs that the runs have done that are furthest.

        Runs that are behind are left out everywhere: if the set of runs changed from one epoch to
        the next, their mean could rise or fall though no run does.
        """
        return [line.epoch for line in self.furthest[0].epochs]

    def lines(self, epoch: int) -> list[EpochMetrics]:
        """Returns what the runs that are furthest told of an epoch."""
        return [record.epochs[epoch - 1] for record in self.furthest]

    def of_epoch(self, epoch: int, value: Callable[[EpochMetrics], float]) -> Spread:
        """Returns a value over the runs that are furthest."""
        return Spread.of([value(line) for line in self.lines(epoch)])

    def seconds(self, epoch: int) -> float:
        """Returns what an epoch's training took of its machine, the mean over these runs."""
        return statistics.fmean(
            record.epochs[epoch - 1].train_seconds / record.runs_together[epoch - 1]
            for record in self.furthest
        )

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest validation loss, the mean over the runs."""
        return min(self.epochs, key=lambda epoch: self.val_loss(epoch).mean)

    def val_loss(self, epoch: int) -> Spread:
        """Returns the loss of the whole validation part after an epoch, in nats."""
        return self.of_epoch(epoch, lambda line: line.val_loss_nats)

    @property
    def published(self) -> Mapping[int, tuple[float, float | None]]:
        """The study's losses by epoch; none unless model, recipe and corpus are its own."""
        if not all(record.is_published_setup for record in self.records):
            return {}
        return PUBLISHED_LOSSES.get((self.row.dataset, self.row.model), {})

    def evaluated(self, *path: str) -> list[float]:
        """Returns a number of the evaluation of each run that stands furthest and has it.

        Raises:
            InputError: a record has something else there.
        """
        found = [number_at(record, record.evaluation, path) for record in self.furthest]
        return [number for number in found if number is not None]

    @property
    def measures(self) -> dict[str, str]:
        """The losses over the whole validation part, by their names in the evaluation."""
        return WORD_LOSSES if self.is_words else TEXT_LOSSES


def number_at(record: RunRecord, values: Any, path: Iterable[str]) -> float | None:
    """Returns a number inside nested dictionaries; None where one of them has none.

    Raises:
        InputError: there is something else.
    """
    for name in path:
        if values is None:
            return None
        if not isinstance(values, dict):
            raise InputError(f"{record.file_name} is damaged: {name} is looked for in {values!r}")
        values = values.get(name)
    if values is None or (isinstance(values, int | float) and not isinstance(values, bool)):
        return values
    raise InputError(f"{record.file_name} is damaged: {'.'.join(path)} is {values!r}, no number")


def outcomes_of(records: Iterable[RunRecord]) -> list[Outcome]:
    """Returns the outcomes of all records, models of running text first, small ones first.

    Raises:
        InputError: runs of one row are of several recipes or corpora.
    """
    groups = [tuple(group) for _, group in groupby(records, key=lambda record: record.stem)]
    for group in groups:
        _require_one_recipe(group)
    outcomes = [Outcome(row=_row_of(group), records=group) for group in groups]
    return sorted(outcomes, key=lambda each: (each.is_words, each.parameters, each.row.recipe))


def _row_of(group: tuple[RunRecord, ...]) -> Row:
    preset = group[0].preset
    return Row(
        dataset=preset.data.dataset,
        model=preset.name,
        recipe=group[0].recipe,
        seeds=len(group),
    )


def _require_one_recipe(group: tuple[RunRecord, ...]) -> None:
    first = group[0]
    for record in group[1:]:
        meant = override(first.preset, seed=record.seed)
        if record.preset != meant or record.corpus.sha256 != first.corpus.sha256:
            raise InputError(
                f"{record.file_name} is not of the recipe and corpus of {first.file_name}: train "
                "one of them anew by --again, or remove it"
            )
