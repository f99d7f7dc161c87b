"""How many steps a call to the device does."""

import time

from astra_jax.training.trainer import MAX_STEPS_PER_CALL

SECONDS_PER_CALL = 3.0
"""How long a call to the device should take: often enough to be told of and to stop, seldom enough
to be free. Its memory is new, whose first touch takes a tenth of a step of Astra-γ on a CPU."""


def steps_of_a_call(seconds_per_step: float) -> int:
    """Returns how many steps a call is to do if each takes so long."""
    return max(1, min(round(SECONDS_PER_CALL / seconds_per_step), MAX_STEPS_PER_CALL))


class Pace:
    """Chooses how many steps a call does, so that it takes about `SECONDS_PER_CALL`.

    The first call's time, which has the compilation in it, says nothing of a step's.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.seconds_per_step = SECONDS_PER_CALL
        self.known = False
        self._compiled = False
        self._last = 0.0

    def start(self) -> None:
        """Begins to measure anew, after a pause in the steps."""
        self._last = time.perf_counter()

    def steps(self, remaining: int) -> int:
        """Returns the steps of the next call."""
        return min(steps_of_a_call(self.seconds_per_step), remaining)

    def observe(self, count: int) -> float:
        """Takes note that `count` more steps are done, and returns the seconds they took."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if self._compiled:
            self.seconds_per_step, self.known = seconds / count, True
        self._compiled = True
        return seconds
