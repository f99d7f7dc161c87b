"""Files that are either whole or not there: temporary name, fsync, rename."""

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from astra_jax.errors import InputError

_CANNOT = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP}
"""What a file system answers that lacks hard links, or does not sync folders."""


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
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    # The name may be as long as names can be, so it is no part of the temporary one.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    _make(temporary)
    try:
        yield temporary
        _sync(temporary)
        if overwrite:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # A full disk does not say where it is full.
            error.filename = str(path)
        raise
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
    if path.exists() or path.is_symlink():  # A link to nothing is in the way as well.
        raise InputError(f"{path} exists already: choose another name")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Gives a file a name that none has; of several processes that try, one succeeds."""
    try:
        os.link(temporary, path)  # Unlike a rename, fails where the name is taken.
        return
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    # No hard links, as on FAT. Whoever makes the empty file has the name, and alone replaces it.
    _make(path)
    try:
        temporary.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _make(path: Path) -> None:
    """Makes an empty file that is not there yet, with the permissions of any new file."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Puts a new name on disk, where folders can be synced; the file is in its place anyway."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
