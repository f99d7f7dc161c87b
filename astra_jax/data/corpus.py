"""Where text comes from: a named file, a data folder, the cache, a download, or the project."""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from astra_jax.config import DatasetName, Level, Record, StrPath
from astra_jax.data import builtin_corpus, token_files
from astra_jax.data.token_files import TokenFile, not_utf_8, open_tokens
from astra_jax.errors import InputError
from astra_jax.storage.atomic import write_bytes
from astra_jax.storage.user_cache import cache_folder

Origin = Literal["file", "data folder", "cache", "download", "built-in", "imported"]

DOWNLOAD_SECONDS = 15.0
BUILTIN = "builtin"
DATA_DIR_VARIABLE = "ASTRA_DATA_DIR"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A corpus that the studies were made on, identified to the byte."""

    title: str
    file_name: str
    url: str
    size: int
    sha256: str


PUBLISHED: dict[DatasetName, Published] = {
    "shakespeare": Published(
        title="Tiny Shakespeare",
        file_name="tiny_shakespeare.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "names": Published(
        title="the names list",
        file_name="names.txt",
        url="https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        size=228_145,
        sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRecord(Record):
    """What a run knows of its corpus.

    Attributes:
        name: what a person would call it, for captions and tables.
        origin: how it was found; `imported` where only a model's weights are known.
        path: the absolute path of a file that was asked for by name, else None.
        sha256: of its bytes, those of UTF-8 if it is text; None where it is not known.
        characters: its length, in bytes where these are the tokens; None where it is not known.
    """

    name: str
    origin: Origin
    path: str | None
    sha256: str | None
    characters: int | None

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        # It is printed, also where it comes out of a stranger's file.
        self._require("name", self.name.isprintable() and len(self.name) <= 500, "a short line")

    @classmethod
    def unknown(cls, weights: str) -> Self:
        """Returns what is known of the corpus behind a file of weights: nothing."""
        name = f"an unknown text, weights from {_printable(weights)}"
        return cls(name=name, origin="imported", path=None, sha256=None, characters=None)

    @property
    def is_published(self) -> bool:
        """Whether this is, to the byte, a corpus of the studies."""
        return self.sha256 in {published.sha256 for published in PUBLISHED.values()}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text, or bytes, and where it came from; for names, one word a line.

    Attributes:
        content: of running text that is large, a file of ids.
        record: what a run knows of it.
    """

    content: str | bytes | TokenFile
    record: CorpusRecord

    @property
    def text(self) -> str:
        """The text of a corpus of characters that is not large.

        Raises:
            InputError: it is of bytes, or so large that it is kept as a file of ids.
        """
        if not isinstance(self.content, str):
            raise InputError(f"{self.record.name} is no text in memory: use its content")
        return self.content


def load_corpus(
    dataset: DatasetName, source: StrPath | None = None, level: Level = "char"
) -> Corpus:
    """Finds the text to train on.

    Args:
        dataset: which of the two published corpora is meant where `source` does not say.
        source: a file of UTF-8 text, or `builtin` for the text that the project generates.
            None looks for the published corpus in `$ASTRA_DATA_DIR`, the user's cache and at
            its public address, and takes the built-in text where none of these has it.
        level: `byte` takes any file as it is.

    Raises:
        InputError: there is no such dataset or level, or the file cannot be read, is not UTF-8, or
            is not the published corpus although it stands in its place.
    """
    if dataset not in PUBLISHED:
        names = ", ".join(PUBLISHED)
        raise InputError(f"unknown dataset {dataset!r}: choose one of {names}")
    if level not in get_args(Level):
        raise InputError(f"unknown level {level!r}: choose one of {', '.join(get_args(Level))}")
    if source == BUILTIN:
        return _builtin(dataset, level)
    if source is not None:
        # Words are padded into arrays, for which they must be in memory.
        path, running = Path(source).expanduser(), dataset != "names"
        return _read(path, path.name, "file", level, may_be_large=running)
    published = PUBLISHED[dataset]
    for folder, origin in _folders():
        path = folder / published.file_name
        if path.is_file():
            corpus = _read(path, published.file_name, origin, level)
            advice = f"remove it, or train on it as it is with --corpus {path}"
            assert not isinstance(corpus.content, TokenFile)
            _verify(_bytes(corpus.content), published, str(path), advice)
            return corpus
    return _download(published, level) or _builtin(dataset, level)


def _folders() -> list[tuple[Path, Origin]]:
    folders: list[tuple[Path, Origin]] = []
    if data_dir := os.environ.get(DATA_DIR_VARIABLE):
        folders.append((Path(data_dir).expanduser(), "data folder"))
    with contextlib.suppress(FileNotFoundError):
        folders.append((cache_folder(), "cache"))
    return folders


def _builtin(dataset: DatasetName, level: Level) -> Corpus:
    text = builtin_corpus.names() if dataset == "names" else builtin_corpus.play()
    name = "built-in names" if dataset == "names" else "built-in play"
    return _corpus(text.encode() if level == "byte" else text, name, "built-in", None)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _corpus(content: str | bytes, name: str, origin: Origin, path: str | None) -> Corpus:
    return _identified(content, hashlib.sha256(_bytes(content)).hexdigest(), name, origin, path)


def _identified(
    content: str | bytes | TokenFile, digest: str, name: str, origin: Origin, path: str | None
) -> Corpus:
    name = {entry.sha256: entry.title for entry in PUBLISHED.values()}.get(digest, _printable(name))
    record = CorpusRecord(
        name=name, origin=origin, path=path, sha256=digest, characters=len(content)
    )
    return Corpus(content=content, record=record)


def _require_utf_8_path(path: Path) -> None:
    """Refuses a path that a run folder could not write down."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the path of the corpus, {str(path)!r}, is not UTF-8: rename the file or folder"
        ) from None


def _read(
    path: Path, name: str, origin: Origin, level: Level, *, may_be_large: bool = False
) -> Corpus:
    where = str(path.absolute()) if origin == "file" else None
    _require_utf_8_path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            # A run folder may name one, and neither a pipe nor a device needs to have an end.
            raise InputError(f"the corpus {path} is not a file: save the text in one first")
        if may_be_large and path.stat().st_size >= token_files.LARGE_BYTES:
            encoded = open_tokens(path, level, cache_folder())
            return _identified(encoded.tokens, encoded.sha256, name, origin, where)
        data = path.read_bytes()
        # A byte order mark is not part of the text.
        content = data if level == "byte" else data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"cannot read the corpus {path}: {error.strerror}; "
            f"give a UTF-8 text file, or {BUILTIN!r} for the built-in text"
        ) from error
    except UnicodeDecodeError as error:
        raise not_utf_8(path, error.object[error.start], error.start) from error
    return _corpus(content, name, origin, where)


def _printable(name: str) -> str:
    """Returns a file's name as it can be printed and written: on Linux it may be any bytes."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _verify(data: bytes, published: Published, where: str, advice: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if (len(data), digest) != (published.size, published.sha256):
        raise InputError(
            f"{where} is not the published {published.file_name}: {len(data)} bytes, sha256 "
            f"{digest[:12]}…, expected {published.size} bytes, {published.sha256[:12]}…; "
            f"{advice}"
        )


def _download(published: Published, level: Level) -> Corpus | None:
    """Returns the corpus from its public address, kept in the cache; None where out of reach."""
    try:
        data = _fetch(published.url, published.size)
    except (OSError, http.client.HTTPException):
        return None
    advice = "the address has changed its text: give another by --corpus FILE"
    _verify(data, published, published.url, advice)
    try:
        path = cache_folder() / published.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except OSError:
        pass  # A cache that cannot be written costs another download, not the run.
    content = data if level == "byte" else data.decode()
    return _corpus(content, published.file_name, "download", None)


def _fetch(url: str, size: int) -> bytes:
    """Returns at most one byte more than `size`, within a bound on the whole transfer."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()
    with urllib.request.urlopen(url, timeout=DOWNLOAD_SECONDS / 3) as response:
        while len(data) <= size and (chunk := response.read1(1 << 16)):
            data += chunk
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} took longer than {DOWNLOAD_SECONDS:.0f} s")
        if len(data) <= size and response.length:
            raise ConnectionError(f"{url} broke off after {len(data)} bytes")
    return bytes(data[: size + 1])
