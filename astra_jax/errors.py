"""The exceptions that the command line turns into one line and an exit code."""

import signal
from typing import Self

MAX_MESSAGE = 2000
"""Characters of a message."""

TIME_IS_UP = signal.SIGALRM
"""Stands for the end of the time that a training was given: the signal of timers."""


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, or its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InputError(ValueError):
    """A caller's mistake: what was given, what was expected, what to do.

    Everything that a person can get wrong (a flag, a file, a folder, a character) raises this
    class, so that a script can print the message alone, while a fault of the program itself
    still shows its traceback.
    """

    def __init__(self, message: str):
        """Takes the message, and cuts it short where a stranger's file has put a book into it."""
        cut = len(message) > MAX_MESSAGE
        super().__init__(f"{message[:MAX_MESSAGE]}…" if cut else message)


class StorageError(OSError):
    """Something could not be written: a full disk, a folder that may not be written."""


class DivergedError(ArithmeticError):
    """A loss or a gradient is no longer a finite number."""


class StoppedError(Exception):
    """A signal or a deadline asked a training to stop, and it has: everything done is saved.

    Attributes:
        number: of the signal, or `TIME_IS_UP`.
        step: that the training stands at.
    """

    def __init__(self, number: int, step: int):
        """Takes what the attributes say."""
        by = "the end of its time" if number == TIME_IS_UP else signal.Signals(number).name
        super().__init__(f"stopped by {by} after step {step}")
        self.number = number
        self.step = step

    def __reduce__(self) -> tuple[type[Self], tuple[int, int]]:
        """Lets a process hand it to another one, as `multiprocessing` does."""
        return type(self), (self.number, self.step)
