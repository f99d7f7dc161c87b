"""A corpus too large for memory: encoded into a file chunk by chunk, read where it is needed."""

import codecs
import contextlib
import hashlib
import itertools
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Int, Integer

from astra_jax.config import Level
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.storage.atomic import replacing

LARGE_BYTES = 64_000_000
"""Files of running text from this size on are not read into memory."""

CHUNK_BYTES = 1 << 22
"""Bytes that are decoded at once; a character may lie across two chunks."""

CODE_POINTS = 0x110000
"""How many Unicode has; the largest is one less."""

MOST_TOKENS = 2**31 - 1
"""Offsets of windows are counted in an int32."""

SPARE_BYTES = 64_000_000
"""What a disk should have left when the encoded corpus is on it."""

ABANDONED_SECONDS = 3600.0
"""A temporary file that has not grown for so long is of a process that was killed."""


@dataclass(frozen=True)
class TokenFile:
    """Ids in a file, or a part of them.

    Attributes:
        path: the file.
        dtype: of the ids in it.
        vocabulary: whose ids they are.
        start: place of the first id.
        length: N, how many ids there are.
    """

    path: Path
    dtype: np.dtype
    vocabulary: Vocabulary
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def part(self, start: int, stop: int) -> Self:
        """Returns the ids from one place to another, which stay where they are."""
        return replace(self, start=self.start + start, length=stop - start)

    def windows(
        self, starts: Int[np.ndarray, " W"], length: int
    ) -> Integer[np.ndarray, "W {length}"]:
        """Returns the ids that stand from each of some places on.

        They are read, not mapped: the pages of a mapped file count as this process's memory, and
        there come to be as many of them as the file has.

        Raises:
            InputError: the file is gone, or shorter than it was.
        """
        found = np.empty((len(starts), length), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                for window, start in zip(found, (self.start + starts).tolist(), strict=True):
                    file.seek(start * self.dtype.itemsize)
                    if file.readinto(window.data) != window.nbytes:
                        raise EOFError
        except (OSError, EOFError) as error:
            raise InputError(
                f"{self.path} was removed or cut while it was trained on: begin again, or go on "
                "with the run by --resume"
            ) from error
        return found


class Encoded(NamedTuple):
    """A corpus as ids, and the sha256 of what it was made from, a byte order mark left out."""

    tokens: TokenFile
    sha256: str


def open_tokens(path: Path, level: Level, folder: Path) -> Encoded:
    """Returns a file's ids, which are encoded once and kept in a folder.

    Bytes are their own ids: of them nothing is written.

    Args:
        path: the corpus.
        level: what a token is.
        folder: where encoded corpora are kept, by sha256 and level.

    Raises:
        InputError: the file is not UTF-8, is too long, has changed while it was read, or its ids
            cannot be kept.
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    chunks = _chunks(path, level, digest)
    if level == "byte":
        length, vocabulary = sum(map(len, chunks)), Vocabulary.of_bytes()
    else:
        length, vocabulary = _survey(path, chunks)
    if length > MOST_TOKENS:
        raise InputError(
            f"the corpus {path} has {length:,} {level}s, more than the {MOST_TOKENS:,} that can be "
            "counted: split the file"
        )
    sha256, dtype = digest.hexdigest(), vocabulary.dtype
    ids = path
    if level == "char":
        ids = folder / f"{sha256}-{level}.{dtype}"
        if not ids.is_file() or ids.stat().st_size != length * dtype.itemsize:
            _encode(path, ids, vocabulary, length * dtype.itemsize, sha256)
    return Encoded(TokenFile(ids, dtype, vocabulary, 0, length), sha256)


def not_utf_8(path: Path, byte: int, offset: int) -> InputError:
    """Returns what is wrong with a corpus that cannot be decoded."""
    return InputError(
        f"the corpus {path} is not UTF-8 text: byte {byte:#04x} at offset {offset}; convert the "
        "file to UTF-8 first, or train on bytes with --level byte"
    )


def _chunks(path: Path, level: Level, digest: "hashlib._Hash") -> Iterator[bytes]:
    """Yields a file's bytes, which go into the digest; a text's byte order mark is none of it."""
    with path.open("rb") as file:
        if level == "char" and file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            yield chunk


def _code_points(path: Path, chunks: Iterator[bytes]) -> Iterator[Int[np.ndarray, " N"]]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    for chunk in itertools.chain(chunks, [b""]):  # With the last, nothing may be left over.
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            place = offset - held + error.start
            raise not_utf_8(path, error.object[error.start], place) from error
        offset += len(chunk)
        yield np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _survey(path: Path, chunks: Iterator[bytes]) -> tuple[int, Vocabulary]:
    """Returns how many characters a text has, and which."""
    seen, length = np.zeros(CODE_POINTS, bool), 0
    for points in _code_points(path, chunks):
        seen[points] = True
        length += len(points)
    return length, Vocabulary(tokens=tuple(map(chr, np.flatnonzero(seen))))


def _encode(path: Path, ids: Path, vocabulary: Vocabulary, size: int, sha256: str) -> None:
    """Writes a text's ids, whole or not at all."""
    table = vocabulary.ids_of_code_points.astype(vocabulary.dtype)
    digest = hashlib.sha256()
    try:
        ids.parent.mkdir(parents=True, exist_ok=True)
        _drop_abandoned(ids.parent)
        _require_space(ids.parent, size)
        with replacing(ids) as temporary, temporary.open("wb") as file:
            for points in _code_points(path, _chunks(path, "char", digest)):
                # Of a file that changes meanwhile a character may lie beyond the table.
                file.write(table.take(points, mode="clip").tobytes())
            if digest.hexdigest() != sha256:
                raise InputError(f"the corpus {path} changed while it was read: begin again")
    except OSError as error:
        raise InputError(
            f"cannot keep the encoded corpus in {ids.parent}: {error.strerror or error}; set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from error


def _drop_abandoned(folder: Path) -> None:
    """Removes what was being written when a process was killed, and has not changed since."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # Another process does the same.
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        raise InputError(
            f"the encoded corpus needs {size / 1e6:,.0f} MB in {folder}, which has "
            f"{free / 1e6:,.0f} MB left: make room, or set XDG_CACHE_HOME to a larger disk"
        )
