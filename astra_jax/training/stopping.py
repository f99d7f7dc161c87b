"""What asks a training to stop: signals, and the end of the time that it was given."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from astra_jax.errors import TIME_IS_UP

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Takes note of Ctrl-C and of SIGTERM, to be looked at between two calls to the device.

    A second signal acts at once, as it would have without this. Use as a context manager.
    """

    def __init__(self, deadline: float | None = None) -> None:
        """Begins to listen when the block is entered.

        Args:
            deadline: on the clock `time.monotonic`, from when on it asks by itself.
        """
        self._came: int | None = None
        self._deadline = deadline
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Signals belong to the main thread; elsewhere nothing changes.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    @property
    def number(self) -> int | None:
        """Of the signal that came, or `TIME_IS_UP`; None while nothing asks."""
        if self._came is None and self._deadline is not None:
            return TIME_IS_UP if time.monotonic() >= self._deadline else None
        return self._came

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._came = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
