"""Compiled programs kept from one start to the next, where nobody else can put any."""

import contextlib
import hashlib
import os
import platform
import stat
from pathlib import Path

import jax

from astra_jax.machine.processor import cpuinfo
from astra_jax.storage.user_cache import cache_folder

MAX_BYTES = 1 << 30
"""What the kept programs may take. A training keeps less than a megabyte of them."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def enable() -> str:
    """Lets JAX keep what it compiles under the user's cache folder.

    What lies there is run when it is found: the folder is the user's alone, and is not used
    where anybody else could have written into it or put another in its place. A run needs no
    cache, so none of this can fail it.

    Every program is kept, however small: a start runs a dozen that compile in 30 to 100 ms each
    and are read in 2 to 8. What has not been read for longest goes when there is too much.

    Returns:
        Why there is no cache, in one line; empty if there is one.
    """
    folder = None
    try:
        folder = (cache_folder() / "jax" / _processor()).resolve()
        for path in (*reversed(folder.parents), folder):
            if not path.exists():
                path.mkdir(mode=0o700, exist_ok=True)
        _require_own(folder)
        _drop_oldest(folder, MAX_BYTES)
    except OSError as error:
        return (
            f"note: compiling anew, since {error.filename or folder} cannot keep compiled programs "
            f"({error.strerror or error})"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return ""


def _require_own(folder: Path) -> None:
    """Raises `PermissionError` if anybody but the user and root could change what is in there."""
    for path in (folder, *folder.parents):
        status = path.stat()
        sticky = path != folder and status.st_mode & stat.S_ISVTX  # As /tmp: only owners rename.
        if status.st_mode & _OTHERS_WRITE and not sticky:
            raise PermissionError(1, "others may write there", str(path))
        if hasattr(os, "getuid") and status.st_uid not in (0, os.getuid()):
            raise PermissionError(1, "it is another user's", str(path))
    if not os.access(folder, os.W_OK):
        raise PermissionError(1, "it may not be written", str(folder))


def _drop_oldest(folder: Path, max_bytes: int) -> None:
    """Removes the entries that were read or written longest ago, until the rest fits.

    JAX has such a bound as well, but finds entries by a second file beside each: one that lacks
    it, since a process was killed between the two, stops all further writing.
    """
    known: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # Another process does the same.
            status = path.stat()
            known.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    kept = 0
    for _, size, path in sorted(known, reverse=True):
        kept += size
        if kept > max_bytes:
            path.unlink(missing_ok=True)


def _processor() -> str:
    """Returns a name of what this processor can do: a home folder may be that of many machines.

    JAX tells accelerators apart, but not CPUs, whose programs use the instructions at hand.
    """
    traits = sorted(
        {line for line in cpuinfo() if line.startswith(("model name", "flags", "Features"))}
    )
    described = "\n".join([platform.machine(), platform.processor(), *traits])
    return hashlib.sha256(described.encode()).hexdigest()[:16]
