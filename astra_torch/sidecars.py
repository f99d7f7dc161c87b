"""FILE.sha256 beside a file that has no place for a hash; `sha256sum -c` reads it too."""

import errno
import hashlib
import os
import re
from pathlib import Path

from astra_jax.errors import InputError
from astra_jax.storage.atomic import write_bytes


def path_of(path: Path) -> Path:
    """Returns where the hash of a file stands."""
    return path.with_name(f"{path.name}.sha256")


def write_with_hash(path: Path, data: bytes, *, is_hashed: bool) -> None:
    """Writes a file, whole or not at all, and its hash beside it.

    Args:
        path: the file.
        data: all of it.
        is_hashed: whether it has a hash in it. Then there is one beside it only if there was.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be written, or its hash cannot; then the file is not, either.
    """
    beside = path_of(path)
    wanted = not is_hashed or os.path.lexists(beside)
    if wanted and beside.is_dir():  # Fails by itself where the name is too long.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(beside))
    write_bytes(path, data, overwrite=False)
    if wanted:
        try:
            write(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def write(path: Path) -> None:
    """Writes the hash of a file beside it.

    Another process may replace the file meanwhile, and write the hash of its own: whoever is the
    last to write has looked once more, so that in the end file and hash belong together.
    """
    digest = None
    while digest != (digest := _digest(path)):
        own = os.fsencode(path.name)
        name = own.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        escaped = b"\\" if name != own else b""  # As GNU's sha256sum marks such a line.
        write_bytes(path_of(path), escaped + digest.encode() + b"  " + name + b"\n")


def verify(path: Path) -> None:
    """Compares a file with the hash beside it, if there is one.

    Raises:
        InputError: the file is not the one that the hash is of, or what is there is no hash.
    """
    beside = path_of(path)
    if not os.path.exists(beside):
        return
    if not beside.is_file() or beside.stat().st_size > 5000:
        raise InputError(f"{beside} is no line of sha256sum: remove it")
    line = re.fullmatch(rb"\\?([0-9a-fA-F]{64}) [ *][^\n]+\n?", beside.read_bytes())
    if line is None:
        raise InputError(f"{beside} is no line of sha256sum: remove it")
    if line[1].decode().lower() != _digest(path):
        raise InputError(
            f"{path} is damaged: its sha256 is not the one in {beside.name}; fetch or export it "
            "again, or remove that file if the change was meant"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
