"""What the runs of a model write with their state carried and without, taken together."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from astra_jax.errors import InputError
from astra_jax.runs.metrics import Spread
from study.outcomes import Outcome, number_at
from study.records import RunRecord

STATEFUL, STATELESS = "stateful", "stateless"
MODES = (STATEFUL, STATELESS)

MEASURES: dict[bool, dict[str, str]] = {
    False: {
        "nats_per_char": "loss on its own samples (nats)",
        "known_words": "words that the corpus has",
        "repetition": "repeated 8-grams",
    },
    True: {
        "later_nats_per_char": "loss of later letters (nats)",
        "known_words": "words that it was trained on",
        "distinct": "distinct words",
    },
}
"""What is told of running text, and of words, by the name that it has in a record."""

GREEDY, PUBLISHED = "greedy", "top-k, temperature 1.0"
"""The samplers of which the study printed texts; how many characters are the top differs."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What one sampler writes, or what real text is.

    Attributes:
        mode: whether the state is carried; `reference` of real text.
        strategy: how characters are picked; empty of real text.
        measures: over the runs, by their names in `MEASURES`; those that are known.
        errors: standard errors of these means, where they are known: of several runs by how they
            differ, of a single one by how its texts do.
        text: of the first run.
    """

    mode: str
    strategy: str
    measures: dict[str, Spread]
    errors: dict[str, float]
    text: str


def written_by(outcome: Outcome) -> list[Written]:
    """Returns real text, and then every sampler; nothing where no run has told of them.

    Raises:
        InputError: a record has something else there.
    """
    told = [record for record in outcome.furthest if record.samplers]
    grouped: dict[tuple[str, str], list[tuple[RunRecord, dict[str, Any]]]] = {}
    for record in told:
        for mode, strategy, values in _samplers(record):
            grouped.setdefault((mode, strategy), []).append((record, values))
    return [
        Written(
            mode=mode,
            strategy=strategy,
            measures=(measures := _measures(found, MEASURES[outcome.is_words])),
            errors=_errors(found, measures),
            text=str(found[0][1].get("text", "")),
        )
        for (mode, strategy), found in grouped.items()
    ]


def find(written: list[Written], mode: str, strategy: str) -> Written | None:
    """Returns what one sampler writes, if it is among these."""
    for one in written:
        if (one.mode, re.sub(r"top-k \d+", "top-k", one.strategy)) == (mode, strategy):
            return one
    return None


def _samplers(record: RunRecord) -> Iterator[tuple[str, str, dict[str, Any]]]:
    samplers = record.samplers or {}
    reference, listed = samplers.get("reference"), samplers.get("samplers")
    if not isinstance(reference, dict) or not isinstance(listed, list):
        raise InputError(f"{record.file_name} is damaged: samplers have no reference or list")
    yield "reference", "", reference
    for values in listed:
        if not isinstance(values, dict) or values.get("mode") not in MODES:
            raise InputError(f"{record.file_name} is damaged: {values!r} is no sampler")
        yield values["mode"], str(values.get("strategy")), values


def _measures(
    found: list[tuple[RunRecord, dict[str, Any]]], names: dict[str, str]
) -> dict[str, Spread]:
    measures = {}
    for name in names:
        numbers = [number_at(record, values, (name, "mean")) for record, values in found]
        if known := [number for number in numbers if number is not None]:
            measures[name] = Spread.of(known)
    return measures


def _errors(
    found: list[tuple[RunRecord, dict[str, Any]]], measures: dict[str, Spread]
) -> dict[str, float]:
    if len(found) > 1:
        return {name: spread.std / math.sqrt(len(found)) for name, spread in measures.items()}
    ((record, values),) = found
    # A word is distinct by those before it, so the words of one run have no scatter of their own.
    names = [name for name in measures if name != "distinct"]
    numbers = {name: number_at(record, values, (name, "error")) for name in names}
    return {name: number for name, number in numbers.items() if number is not None}
