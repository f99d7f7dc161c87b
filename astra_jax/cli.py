"""What the scripts share: parsing a dataclass, one-line errors, exit codes."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO, TypeVar

import tyro

from astra_jax.errors import DivergedError, InputError, StoppedError
from astra_jax.presets import describe_defaults

EXIT_INPUT, EXIT_DIVERGED, EXIT_SIGNAL = 2, 3, 128
EXIT_INTERRUPTED = EXIT_SIGNAL + signal.SIGINT

AGAIN_SECONDS = 0.5
"""After which a Ctrl-C that was swallowed comes again. By then the main thread, also of a busy
machine, has left the callback and the hook, which would swallow it once more."""

Arguments = TypeVar("Arguments")

_RULE = re.compile(r"^(?:╭.*|╰.*|[│ ]*[─-]{5,}[│ ]*)\n", re.MULTILINE)
"""Parts a title, what is wrong, and what may help, in tyro's box; a plain terminal's has dashes."""

_KINDS = {"INT": "a whole number", "FLOAT": "a number"}


def _watch_interrupts() -> None:
    """Lets Ctrl-C end a script in a line also where `run` cannot see it."""
    tell, swallow = sys.excepthook, sys.unraisablehook

    def tell_in_a_line(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            note("interrupted")
        else:
            tell(kind, error, trace)

    def interrupt_again(swallowed: Any) -> None:
        if issubclass(swallowed.exc_type, KeyboardInterrupt):
            again = threading.Timer(AGAIN_SECONDS, _interrupt_main_thread)
            again.daemon = True
            again.start()
        elif str(swallowed.exc_value) != "Event loop is closed":
            # Checkpoint reads raise this if they end after another one has failed and been
            # reported.
            swallow(swallowed)

    # While what takes a second is imported, which the scripts do after this module.
    sys.excepthook = tell_in_a_line
    # In a callback, as JAX has one at every collection of garbage: Python swallows it there.
    sys.unraisablehook = interrupt_again


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


_watch_interrupts()


def default(hint: str) -> object:
    """Returns what makes `--help` describe the default of a flag that is None if not given."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {hint})")


def of_preset(field: str) -> object:
    """Returns what makes `--help` say what a field is in the presets."""
    return default(describe_defaults(field))


def run(
    main: Callable[[Arguments], int | None], arguments: type[Arguments], doc: str | None
) -> NoReturn:
    """Parses the command line, calls `main` and ends the process.

    Exit codes: 0 done, or what `main` returns; 2 unusable input, told in one line; 3 training
    diverged; 130 stopped by Ctrl-C, 143 by SIGTERM. A traceback means a fault of the program.

    Args:
        main: what the script does.
        arguments: a dataclass whose fields are the flags and whose docstrings are their help.
        doc: the script's description.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # A terminal may not know every character.
        sys.stdout.reconfigure(errors="backslashreplace")
    # What goes wrong in Orbax's threads is raised by `Checkpoints` as well, in one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    code = None
    try:
        code = main(_parse(arguments, doc))
        print(end="", flush=True)  # Unlike a flush of what a shell may have closed, and so is None.
    except InputError as error:
        _fail(f"error: {error}", EXIT_INPUT)
    except DivergedError as error:
        _fail(f"error: {error}", EXIT_DIVERGED)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except StoppedError as error:
        _fail(str(error), EXIT_SIGNAL + error.number)
    except BrokenPipeError:  # Whoever read the output, `head` say, has seen enough.
        _silence(sys.stdout)
    except OSError as error:  # A folder that may not be read or written, a full disk.
        _fail(f"error: {error}", EXIT_INPUT)
    except Exception as error:
        if _is_without_device(error):
            _fail(
                f"error: JAX has no device for JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}: "
                "install what it needs, or leave the variable out",
                EXIT_INPUT,
            )
        if not _is_out_of_memory(error):
            raise
        _fail(f"error: the memory of this machine is not enough: {error}; ask for less", EXIT_INPUT)
    sys.exit(code or 0)


def _is_without_device(error: Exception) -> bool:
    """Whether JAX, which is not imported for this, has found none of the platforms asked for."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return "JAX_PLATFORMS" in os.environ and last.filename.endswith("xla_bridge.py")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or XLA, which is not imported for this, has found no memory."""
    is_xla = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)
    return is_xla or isinstance(error, MemoryError)


def _parse(arguments: type[Arguments], doc: str | None) -> Arguments:
    """Parses the command line; says what is wrong with it in one line, not in tyro's box."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return _at_home(tyro.cli(arguments, description=doc, config=config))
    except SystemExit as end:
        if not end.code:  # None, where a completion script was printed.
            sys.exit(0)
    _fail(f"error: {_in_a_line(complaint.getvalue())}; see --help", EXIT_INPUT)


def _in_a_line(box: str) -> str:
    """Returns what tyro's box says is wrong, and which flag may be meant instead."""
    parts = _RULE.split(re.sub(r"\x1b\[[0-9;]*m", "", box))
    _, wrong, *more = (" ".join(re.sub("[│╭╰╮╯]", " ", part).split()) for part in parts)
    typed = re.search(r"^Error parsing (\S+): no type matching (\w+) .*? from \[(.*?)\]\.", wrong)
    if typed:
        flag, kind, given = typed.groups()
        wrong = f"{flag} must be {_KINDS.get(kind, kind)}, got {given}"
    meant = re.search(r"Perhaps you meant: (--[\w-]+)", " ".join(more))
    wrong = wrong.removesuffix(" Expected 1 values.").removesuffix(".")
    return wrong + (f"; is {meant[1]} meant?" if meant else "")


def say(message: str) -> None:
    """Prints a message of a command that goes on even if nobody reads its output."""
    try:
        print(message, flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def note(message: str) -> None:
    """Tells a person something beside the output proper, on standard error, if it is read."""
    try:
        print(message, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _silence(sys.stderr)


def teller(quiet: bool) -> Callable[[str], None]:
    """Returns what tells a person something that is not empty, unless all is to be quiet."""

    def tell(message: str) -> None:
        if message and not quiet:
            note(message)

    return tell


def _at_home(arguments: Arguments) -> Arguments:
    """Puts the user's folder for `~` in paths: a shell does so only where a word begins with it."""
    homes = {
        field.name: _expand(getattr(arguments, field.name))
        for field in dataclasses.fields(arguments)  # pyright: ignore[reportArgumentType]
    }
    return dataclasses.replace(arguments, **homes)  # pyright: ignore[reportArgumentType]


def _expand(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_expand, value))
    return value.expanduser() if isinstance(value, Path) else value


def _fail(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    # A name out of a stranger's file could otherwise give orders to the terminal.
    note("".join(part if part.isprintable() else repr(part)[1:-1] for part in line))
    sys.exit(code)
