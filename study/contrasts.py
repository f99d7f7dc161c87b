"""What a tuned recipe changes, seed by seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from astra_jax.presets import NOTEBOOK, TUNED
from study.outcomes import Outcome, number_at
from study.verdicts import student

GOAL_NATS = 0.05
"""By how much the tuned recipe is to lower the loss that models are compared by."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One loss of a model by two recipes, in nats.

    Attributes:
        measure: which loss, by its name in the evaluation.
        notebook: of each seed that both recipes have done, by the study's recipe.
        tuned: of the same seeds, by the tuned one.
    """

    measure: str
    notebook: tuple[float, ...]
    tuned: tuple[float, ...]

    @property
    def gains(self) -> list[float]:
        """By how much the tuned loss is lower, seed by seed.

        A seed gives both recipes the same initial weights and, of words, the same split.
        """
        return [before - after for before, after in zip(self.notebook, self.tuned, strict=True)]

    @property
    def gain(self) -> float:
        """Their mean."""
        return statistics.fmean(self.gains)

    @property
    def error(self) -> float | None:
        """The standard error of the mean; None of a single seed."""
        if len(self.gains) < 2:
            return None
        return statistics.stdev(self.gains) / math.sqrt(len(self.gains))

    @property
    def is_enough(self) -> bool | None:
        """Whether the goal is reached; None where the interval of the gain has it inside.

        Student's, mean ± t · error. A single seed has none, and so leaves it open.
        """
        if self.error is None:
            return None
        margin, half = self.gain - GOAL_NATS, student(len(self.gains)) * self.error
        return None if abs(margin) < half else margin >= 0


def pairs_of(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """Returns the models that both recipes have trained to the end: notebook, then tuned."""
    done = {
        (each.row.dataset, each.row.model, each.row.recipe): each
        for each in outcomes
        if each.is_complete
    }
    return [
        (notebook, done[dataset, model, TUNED])
        for (dataset, model, recipe), notebook in done.items()
        if recipe == NOTEBOOK and (dataset, model, TUNED) in done
    ]


def contrasts_of(notebook: Outcome, tuned: Outcome) -> list[Contrast]:
    """Returns a contrast of each loss that both have; the first is what models are compared by."""
    contrasts = []
    for measure in notebook.measures:
        path = measure, "loss_nats"
        before, after = (
            {
                record.seed: value
                for record in each.furthest
                if (value := number_at(record, record.evaluation, path)) is not None
            }
            for each in (notebook, tuned)
        )
        if seeds := sorted(set(before) & set(after)):
            contrast = Contrast(
                measure=measure,
                notebook=tuple(before[seed] for seed in seeds),
                tuned=tuple(after[seed] for seed in seeds),
            )
            contrasts.append(contrast)
    return contrasts
