"""Contenders made ready: built, checked against ours, and warmed up."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from astra_jax.errors import InputError, first_line
from astra_jax.training.pace import SECONDS_PER_CALL
from benchmarks.agreement import Agreement, DisagreementError
from benchmarks.peers import PEERS
from benchmarks.rounds import Contender, run_rounds
from benchmarks.time_limit import time_limit

Tell = Callable[[str], None]

LIMIT_SECONDS = 180.0
"""How long an optional contender may take until it is ready."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How contenders are timed.

    Attributes:
        peers: who takes part, ours first.
        repeats: rounds.
        seconds: about how long a turn takes; by default as long as a call of `fit`, so that the
            cost of starting one is spread over as many steps as in training.
        limit: see `LIMIT_SECONDS`.
        tell: is told what goes on.
    """

    peers: Sequence[str]
    repeats: int = 7
    seconds: float = SECONDS_PER_CALL
    limit: float = LIMIT_SECONDS
    tell: Tell = print

    def __post_init__(self) -> None:
        """Refuses what nothing could be timed by; raises `InputError`."""
        if self.repeats < 1:
            raise InputError(f"--repeats must be at least 1, got {self.repeats}")
        for name in ("seconds", "limit"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"--{name} must be above 0 and finite, got {value:g}")


Entry = tuple[Contender, Agreement | None]
"""A contender, and how far it is from ours if it claims to compute the same."""


@dataclass
class Lineup:
    """Who takes part.

    Attributes:
        rules: how they are timed.
        contenders: who is ready.
        agreements: by name, of those that claim to compute what ours does.
        missing: by name, why somebody is not there.
    """

    rules: Rules
    contenders: list[Contender] = field(default_factory=list)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def enter_all(self, make: Callable[[str], Sequence[Entry]]) -> None:
        """Prepares everyone; who is optional and cannot take part is missing.

        Args:
            make: returns the contenders that a name stands for, held to ours.

        Raises:
            DisagreementError: somebody does not compute what they say.
        """
        for name in self.rules.peers:
            self.rules.tell(f"{name}: {PEERS[name].about}")
            if not PEERS[name].optional:
                self.enter(make(name))
                continue
            try:
                with time_limit(self.rules.limit):
                    self.enter(make(name))
            except DisagreementError:
                raise
            except Exception as error:  # Whatever a compiler may raise is told, not hidden.
                self.missing[name] = _reason(error)
                self.rules.tell(f"{name} does not take part: {self.missing[name]}")

    def enter(self, entries: Sequence[Entry]) -> None:
        """Warms contenders up, and lets them take part."""
        for contender, _ in entries:
            contender.warm_up(self.rules.seconds)
        for contender, agreement in entries:
            self.contenders.append(contender)
            if agreement is not None:
                self.agreements[contender.name] = agreement

    def run(self) -> dict[str, Any]:
        """Runs the rounds; returns the fields that every record has."""
        return {
            "seconds": run_rounds(self.contenders, self.rules.repeats, self.rules.tell),
            "agreement": {name: asdict(one) for name, one in self.agreements.items()},
            "missing": self.missing,
        }


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)[:200]}"
