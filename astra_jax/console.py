"""rich's console, for what must go on where nobody reads any more."""

import os

import rich.console


class Console(rich.console.Console):
    """A console that falls silent when its reader leaves, where rich's ends the process."""

    def on_broken_pipe(self) -> None:
        """Lets the work go on, and its results be written."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
