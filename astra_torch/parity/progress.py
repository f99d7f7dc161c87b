"""What a person sees while frameworks are compared: one line, or one line now and then."""

import time

from astra_jax.console import Console
from astra_jax.training.progress import LINE_SECONDS
from astra_jax.units import duration


class StageProgress:
    """Tells on standard error what is being compared, and how long it will take."""

    def __init__(self, console: Console | None = None):
        """Takes standard error unless a console is given."""
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._status = self._console.status("")
        self._stage, self._steps = "", 1
        self._started = self._last_line = time.monotonic()

    def stage(self, name: str, steps: int = 1) -> None:
        """A stage begins."""
        self._stage, self._steps = name, steps
        self._started = time.monotonic()
        self._tell(f"comparing {name} …")

    def step(self, done: int) -> None:
        """Some steps of the stage are done."""
        now = time.monotonic()
        left = (now - self._started) / done * (self._steps - done)
        line = f"comparing {self._stage}: step {done} of {self._steps}, {duration(left)} left"
        if self._console.is_terminal or now - self._last_line > LINE_SECONDS:
            self._tell(line)

    def end(self) -> None:
        """All is done, or given up."""
        self._status.stop()

    def _tell(self, line: str) -> None:
        self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._status.update(line)
            self._status.start()
        else:
            self._console.print(line, markup=False)
