"""Several processes that train together: who writes, what all must agree on."""

import contextlib
import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from astra_jax.errors import InputError, first_line

FINDING_SECONDS = 300.0
"""How long processes wait for each other at first; JAX takes as long."""


def connect(
    coordinator: str,
    num_processes: int,
    process_id: int,
    tell: Callable[[str], object] = lambda _: None,
) -> None:
    """Joins this process with others into one training; call before anything is computed.

    Args:
        coordinator: host and port of process 0, like `10.0.0.1:1234`.
        num_processes: how many there are.
        process_id: which of them this one is, counted from 0.
        tell: is told that this process waits for the others.

    Raises:
        InputError: the numbers cannot be, or process 0 was not found. Where another does not
            come JAX aborts this process, with a message of its own.
    """
    if num_processes < 1:
        raise InputError(f"--num-processes must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process-id must be at least 0 and below --num-processes {num_processes}, "
            f"got {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(f"--coordinator must be HOST:PORT of process 0, got {coordinator!r}")
    minutes = f"{FINDING_SECONDS / 60:.0f} minutes at most"
    tell(f"waiting for all {num_processes} processes at {coordinator}, {minutes}")
    if process_id > 0:
        _find(host.strip("[]"), int(port))
    # It would take SIGTERM for itself; `stopping` makes all processes stop at one step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the {num_processes} processes at {coordinator}: {first_line(error)}"
        ) from error


def _find(host: str, port: int) -> None:
    """Waits until process 0 listens: to wait for it in vain ends in an abort of JAX's."""
    deadline = time.monotonic() + FINDING_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=10).close()
            return
        except (socket.gaierror, OverflowError) as error:
            raise InputError(f"there is no --coordinator {host}:{port}: {error}") from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"process 0 does not answer at {host}:{port}: {error}; start it, or correct "
                    "--coordinator"
                ) from error
        time.sleep(0.1)


def is_primary() -> bool:
    """Whether this process is the one that writes and tells."""
    return jax.process_index() == 0


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Waits, at the block's end, for every process; if one fails inside, all do.

    The others would wait for it until JAX gives up on it.

    Raises:
        InputError: another process has failed, and says why itself.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        alone = jax.process_count() == 1
        others = not alone and multihost_utils.process_allgather(np.array(failed)).any()
    if others:
        raise InputError("another process cannot go on, and has said why")


def leave(error: BaseException) -> NoReturn:
    """Ends this process at once if it is one of several, of which another has gone.

    A regular end would wait for it, and end in an abort of JAX's.

    Raises:
        RuntimeError: the error, of a process that is alone.
    """
    if jax.process_count() == 1:
        raise error
    print(
        f"error: another process has ended, or cannot be reached ({first_line(error)[:200]})",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


def require_same(what: str, value: object) -> None:
    """Raises in every process if a value differs between them: they would wait for each other.

    Args:
        what: it is, for the message.
        value: whose `repr` tells all that must be the same.

    Raises:
        InputError: a process has another than the first.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(repr(value).encode()).digest()
    said = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = np.flatnonzero((said != said[0]).any(axis=1))
    if others.size:
        names = ", ".join(map(str, others))
        raise InputError(
            f"{what} of process {names} is not that of process 0: give the same flags to all"
        )


def agree(count: int, signal_number: int | None) -> tuple[int, int | None]:
    """Returns what all processes go on with.

    Their clocks differ, and a signal may reach one before the others; but all must run the same
    steps.

    Args:
        count: of steps; the first process's is taken.
        signal_number: that has come to this process; that of any is taken.
    """
    if jax.process_count() == 1:
        return count, signal_number
    said = multihost_utils.process_allgather(np.array([count, signal_number or 0]))
    return int(said[0, 0]), int(said[:, 1].max()) or None
