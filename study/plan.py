"""What the study consists of: models, recipes, seeds."""

from dataclasses import dataclass, replace
from typing import Literal

from astra_jax.config import DatasetName, Preset
from astra_jax.errors import InputError
from astra_jax.experiments.groups import MAX_SEEDS
from astra_jax.presets import NOTEBOOK, TUNED, find_preset, override

Recipe = Literal["notebook", "tuned"]

PAGE, SEARCH = "page", "search"
"""Also accepted where rows are named: the page alone, and the search for tuned recipes."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model by one recipe.

    Attributes:
        dataset: what it is trained on.
        model: its name in the presets.
        recipe: how it is trained.
        seeds: how many runs of it there are, from seed 0 on.
    """

    dataset: DatasetName
    model: str
    recipe: Recipe
    seeds: int

    @property
    def name(self) -> str:
        """What the command line calls it, like `alpha`, `names-beta` or `gamma-tuned`."""
        model = f"names-{self.model}" if self.dataset == "names" else self.model
        return model if self.recipe == NOTEBOOK else f"{model}-{self.recipe}"

    @property
    def stem(self) -> str:
        """What its folder is called, and its files begin with."""
        return f"{self.dataset}-{self.model}-{self.recipe}"


def _row(dataset: DatasetName, model: str, recipe: Recipe, seeds: int) -> Row:
    return Row(dataset=dataset, model=model, recipe=recipe, seeds=seeds)


PLAN: tuple[Row, ...] = (
    _row("shakespeare", "alpha", NOTEBOOK, 6),
    _row("names", "alpha", NOTEBOOK, 6),
    _row("shakespeare", "alpha", TUNED, 6),
    _row("names", "alpha", TUNED, 6),
    _row("names", "beta", NOTEBOOK, 2),
    _row("names", "beta", TUNED, 2),
    _row("shakespeare", "beta", NOTEBOOK, 2),
    _row("shakespeare", "beta", TUNED, 2),
    _row("names", "gamma", NOTEBOOK, 1),
    _row("names", "gamma", TUNED, 1),
    _row("shakespeare", "gamma", NOTEBOOK, 1),
    _row("shakespeare", "gamma", TUNED, 1),
)
"""The whole study, in order of cost."""


def preset_of(row: Row) -> Preset:
    """Returns what a row trains, with seed 0."""
    return find_preset(row.model, row.dataset, row.recipe)


def presets_of(row: Row) -> list[Preset]:
    """Returns a preset for each seed of a row."""
    preset = preset_of(row)
    return [override(preset, seed=seed) for seed in range(row.seeds)]


def choose(only: str | None, seeds: int | None) -> list[Row]:
    """Returns the rows of the plan that are asked for.

    Args:
        only: their names, parted by commas; None is all; `page` and `search` are none.
        seeds: of each; None is as many as planned.

    Raises:
        InputError: no row has one of the names, or so many seeds cannot be.
    """
    if seeds is not None and not 1 <= seeds <= MAX_SEEDS:
        raise InputError(f"--seeds must be from 1 to {MAX_SEEDS}, got {seeds}")
    rows = list(PLAN)
    if only is not None:
        wanted = _names(only)
        known = [row.name for row in rows]
        if unknown := sorted(wanted - {*known, PAGE, SEARCH}):
            raise InputError(
                f"the study has no {', '.join(map(repr, unknown))}: choose from "
                f"{', '.join([*known, SEARCH, PAGE])}"
            )
        rows = [row for row in rows if row.name in wanted]
    return rows if seeds is None else [replace(row, seeds=seeds) for row in rows]


def chooses_search(only: str | None) -> bool:
    """Whether what is asked for has the search for tuned recipes in it, as the whole study has."""
    return only is None or SEARCH in _names(only)


def _names(only: str) -> set[str]:
    return {name.strip() for name in only.split(",")}
