"""Files that are either whole or not there: temporary name, fsync, rename."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from astra_jax.errors import InputError


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place once the block has ended.

    If the block raises, the temporary file is removed and `path` is as it was.

    Args:
        path: the file to come to be.
        overwrite: whether an existing file is replaced.

    Raises:
        FileExistsError: `overwrite` is false and the file exists, also if another process
            made it while the block ran.
    """
    if not overwrite and path.exists():
        raise FileExistsError(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        if overwrite:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # Unlike a rename, fails where the name is taken.
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a whole file at once; raises as `replacing` does."""
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Writes a whole UTF-8 text file at once; raises as `replacing` does."""
    write_bytes(path, text.encode(), overwrite=overwrite)


def require_new_file(path: Path) -> None:
    """Finds out, before any work is done, whether a file can be made.

    Raises:
        InputError: it exists, or its folder does not or cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} exists already: choose another name")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Returns the process's umask, which can only be read by setting it."""
    current = os.umask(0)
    os.umask(current)
    return current
