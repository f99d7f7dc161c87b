"""Contenders that take turns, A B C A B C, so that a machine's moods meet them all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

SETTLE_SECONDS = 0.02
"""Long enough for threads that spin while they wait for work, as OpenMP's do, to go idle."""


class Contender(Protocol):
    """Whoever takes part in the rounds."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        ...

    def warm_up(self, seconds: float) -> None:
        """Compiles, and finds out how much work a turn of about so many seconds has."""
        ...

    def turn(self) -> float:
        """Works, and returns the seconds that a unit of the work took."""
        ...


class Timed:
    """A contender that does some units of work, a step say, when it is called."""

    def __init__(self, name: str, work: Callable[[int], object], least: int = 1, most: int = 10**9):
        """Takes what it is.

        Args:
            name: see `Contender`.
            work: does so many units, and returns once they are done.
            least: units that a turn has at least; it has a multiple of them.
            most: that it has at most.
        """
        self.name, self.units = name, least
        self._least, self._most = least, most
        self._work = work

    def warm_up(self, seconds: float) -> None:
        """Works twice: the first time may compile."""
        self._work(self._least)
        took = clocked(lambda: self._work(self._least))
        units = min(self._least * round(seconds / took), self._most)
        self.units = max(units, self._least)

    def turn(self) -> float:
        """Works."""
        return clocked(lambda: self._work(self.units)) / self.units


def clocked(call: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def clocked_apart(call: Callable[[], object]) -> float:
    """Returns the seconds that a call takes when the threads of what ran before are idle."""
    time.sleep(SETTLE_SECONDS)
    return clocked(call)


def run_rounds(
    contenders: Sequence[Contender], repeats: int, tell: Callable[[str], None]
) -> dict[str, list[float]]:
    """Lets contenders take turns.

    Args:
        contenders: who takes part, in this order; they are warm.
        repeats: rounds.
        tell: is told what goes on.

    Returns:
        The seconds a unit of each turn, by name; the i-th of all names are of one round.
    """
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(repeats):
        tell(f"round {number + 1} of {repeats}")
        for contender in contenders:
            time.sleep(SETTLE_SECONDS)
            samples[contender.name].append(contender.turn())
    return samples


class Spread(NamedTuple):
    """The median of some numbers, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Returns the spread of at least one number."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def ratio(taken: Sequence[float], of: Sequence[float]) -> Spread:
    """Returns the ratios `taken / of`, paired round by round."""
    return Spread.of([one / other for one, other in zip(taken, of, strict=True)])


@dataclass(frozen=True)
class Summary:
    """What the turns of one contender say.

    Attributes:
        seconds: of a unit of work.
        ratio: to the first of all contenders, turn by turn of the same round; above 1 is slower.
    """

    seconds: Spread
    ratio: Spread


def summarize(samples: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    """Returns what the rounds say of each, in comparison with the first."""
    first = next(iter(samples.values()))
    return {name: Summary(Spread.of(taken), ratio(taken, first)) for name, taken in samples.items()}
