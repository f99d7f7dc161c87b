"""Signals that ask a training to stop."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Takes note of Ctrl-C and of SIGTERM, to be looked at between two calls to the device.

    A second signal acts at once, as it would have without this. Use as a context manager.

    Attributes:
        number: of the signal that came; None while none has.
    """

    def __init__(self) -> None:
        """Begins to listen when the block is entered."""
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Signals belong to the main thread; elsewhere nothing changes.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
