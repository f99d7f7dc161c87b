"""Tests of where text comes from, with a small corpus in the published one's place."""

import codecs
import dataclasses
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from astra_jax.data import builtin_corpus, corpus, token_files
from astra_jax.data.corpus import DATA_DIR_VARIABLE, PUBLISHED, Published, load_corpus
from astra_jax.data.splits import corpus_vocabulary
from astra_jax.errors import InputError
from astra_jax.storage.user_cache import cache_folder

fetch = corpus._fetch  # Kept before conftest's fixture takes it away from every test.

TEXT = "Ångström & Öre,\r\n\na small corpus.\n" * 20
DATA = TEXT.encode()
SHA256 = hashlib.sha256(DATA).hexdigest()
SMALL = Published(
    title="Small Corpus",
    file_name="small.txt",
    url="http://127.0.0.1:9/small.txt",
    size=len(DATA),
    sha256=SHA256,
)
WRONG = DATA.replace(b"small", b"smell")


@pytest.fixture(autouse=True)
def _small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "shakespeare", SMALL)


class Server(ThreadingHTTPServer):
    """Serves one reply and counts who asks for it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.status, self.requests = DATA, 200, 0
        self.pause = 0.0  # Seconds before each byte of the reply.
        self.stopped = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.reply)))
        self.end_headers()
        size = 1 if self.server.pause else len(self.server.reply)
        for start in range(0, len(self.server.reply), size):
            if self.server.stopped.wait(self.server.pause):
                return
            try:
                self.wfile.write(self.server.reply[start : start + size])
            except OSError:
                return  # The client has given up, as it should.

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The published address, on this machine."""
    monkeypatch.setattr(corpus, "_fetch", fetch)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        url = f"http://127.0.0.1:{running.server_address[1]}/small.txt"
        monkeypatch.setitem(PUBLISHED, "shakespeare", dataclasses.replace(SMALL, url=url))
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.stopped.set()
        running.shutdown()
        thread.join()


def cached() -> dict[str, bytes]:
    """Returns whatever lies in the cache, forgotten temporary files included."""
    folder = cache_folder()
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_corpus_is_looked_for_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    named = tmp_path / "mine.txt"
    named.write_text("mine")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    (tmp_path / "small.txt").write_bytes(DATA)
    cache_folder().mkdir(parents=True)
    (cache_folder() / "small.txt").write_bytes(DATA)

    found = load_corpus("shakespeare", str(named))
    assert (found.text, found.record.name, found.record.origin, found.record.path) == (
        "mine",
        "mine.txt",
        "file",
        str(named),
    )
    assert load_corpus("shakespeare", "builtin").record.origin == "built-in"
    assert load_corpus("shakespeare").record.origin == "data folder"
    (tmp_path / "small.txt").unlink()
    assert load_corpus("shakespeare").record.origin == "cache"
    (cache_folder() / "small.txt").unlink()
    assert server.requests == 0  # Whoever has the text does not ask for it.
    assert load_corpus("shakespeare").record.origin == "download"
    (cache_folder() / "small.txt").unlink()
    server.status = 404
    assert load_corpus("shakespeare").record.origin == "built-in"


@pytest.mark.parametrize("origin", ["file", "data folder", "cache", "download"])
def test_published_text_is_known_by_its_bytes_from_wherever_it_comes(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = None
    if origin == "file":
        source = str(tmp_path / "other_name.txt")
        Path(source).write_bytes(DATA)
    elif origin == "data folder":
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
        (tmp_path / "small.txt").write_bytes(DATA)
    elif origin == "cache":
        cache_folder().mkdir(parents=True)
        (cache_folder() / "small.txt").write_bytes(DATA)
    else:
        monkeypatch.setattr(corpus, "_fetch", lambda url, size: DATA)
    found = load_corpus("shakespeare", source)
    assert found.text == TEXT  # Line ends as they are in the file.
    assert found.record.is_published
    record = json.loads(json.dumps(found.record.to_dict()))
    assert record == dict(
        name="Small Corpus",
        origin=origin,
        path=source,
        sha256=SHA256,
        characters=len(TEXT),
    )


@pytest.mark.parametrize(
    ("dataset", "name", "generate"),
    [
        ("shakespeare", "built-in play", builtin_corpus.play),
        ("names", "built-in names", builtin_corpus.names),
    ],
)
@pytest.mark.parametrize("source", ["builtin", None], ids=["asked-for", "nothing-else-there"])
def test_builtin_corpus_says_that_it_is_one(
    dataset: corpus.DatasetName, name: str, generate: Callable[[], str], source: str | None
) -> None:
    text = generate()
    found = load_corpus(dataset, source)
    assert found.text == text
    assert found.record.to_dict() == dict(
        name=name,
        origin="built-in",
        path=None,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        characters=len(text),
    )


def test_record_of_a_file_has_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("mine")
    assert load_corpus("names", "mine.txt").record.path == str(tmp_path / "mine.txt")


@pytest.mark.parametrize("data", [WRONG, DATA[:-1], DATA + b"\n"], ids=["other", "short", "long"])
@pytest.mark.parametrize("place", ["data folder", "cache"])
def test_another_text_in_the_published_ones_place_is_an_error(
    place: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "data folder":
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    folder = tmp_path if place == "data folder" else cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.txt").write_bytes(data)
    with pytest.raises(InputError) as error:
        load_corpus("shakespeare")
    digest = hashlib.sha256(data).hexdigest()
    assert str(error.value) == (
        f"{folder / 'small.txt'} is not the published small.txt: {len(data)} bytes, sha256 "
        f"{digest[:12]}…, expected {len(DATA)} bytes, {SHA256[:12]}…; remove it, or train on it "
        f"as it is with --corpus {folder / 'small.txt'}"
    )
    assert (folder / "small.txt").read_bytes() == data


def test_download_is_cached_whole_and_not_repeated(server: Server) -> None:
    first, second = load_corpus("shakespeare"), load_corpus("shakespeare")
    assert (first.record.origin, second.record.origin) == ("download", "cache")
    assert first.text == second.text == TEXT
    assert server.requests == 1
    assert cached() == {"small.txt": DATA}


def test_download_goes_on_without_a_cache_that_can_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_corpus("shakespeare").text == load_corpus("shakespeare").text == TEXT
    assert server.requests == 2


@pytest.mark.parametrize("reply", [WRONG, DATA + b"\n"], ids=["other", "long"])
def test_download_of_another_text_is_an_error_and_not_kept(server: Server, reply: bytes) -> None:
    server.reply = reply
    with pytest.raises(InputError, match=f"{SMALL.file_name} is not the published small.txt: .*"):
        load_corpus("shakespeare")
    assert (server.requests, cached()) == (1, {})


# The first byte late: the wait for an answer is bounded. All of them: the whole transfer is.
@pytest.mark.parametrize("pause", [30.0, 0.02], ids=["stalled", "dripping"])
def test_slow_download_is_given_up_for_the_builtin_text(
    server: Server, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "DOWNLOAD_SECONDS", 0.3)
    server.pause = pause
    started = time.monotonic()
    assert load_corpus("shakespeare").record.origin == "built-in"
    assert time.monotonic() - started < 3  # The dripping reply alone would take 14 s.
    assert (server.requests, cached()) == (1, {})


def test_download_from_what_speaks_no_http_is_given_up_for_the_builtin_text(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.wfile.write(b"login first\r\n"))
    assert load_corpus("shakespeare").record.origin == "built-in"


def test_cache_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "astra"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative/path"):  # As the specification asks.
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / ".cache" / "astra"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "astra"


def test_a_user_without_a_home_trains_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert load_corpus("shakespeare").record.origin == "download"


def test_file_that_is_not_utf_8_is_an_error_that_says_where(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("Ödön".encode("latin-1"))
    with pytest.raises(InputError) as error:
        load_corpus("shakespeare", str(path))
    assert str(error.value) == (
        f"the corpus {path} is not UTF-8 text: byte 0xd6 at offset 0; convert the file to UTF-8 "
        "first, or train on bytes with --level byte"
    )
    corpus = load_corpus("shakespeare", str(path), "byte")
    assert corpus.content == path.read_bytes()
    assert corpus.record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert corpus.record.characters == 4


def test_bytes_of_the_published_text_are_known_as_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    (tmp_path / "small.txt").write_bytes(DATA)
    corpus = load_corpus("shakespeare", level="byte")
    assert (corpus.content, corpus.record.is_published) == (DATA, True)
    (tmp_path / "small.txt").write_bytes(WRONG)
    with pytest.raises(InputError, match=r"is not the published small\.txt"):
        load_corpus("shakespeare", level="byte")
    builtin = load_corpus("shakespeare", "builtin", "byte").content
    assert builtin == load_corpus("shakespeare", "builtin").text.encode()


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.txt", "No such file or directory"), (".", "Is a directory")]
)
def test_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    with pytest.raises(InputError) as error:
        load_corpus("names", str(path))
    assert str(error.value) == (
        f"cannot read the corpus {path}: {reason}; give a UTF-8 text file, or 'builtin' for the "
        "built-in text"
    )


def test_a_path_that_no_run_could_write_down_is_refused(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    with pytest.raises(InputError, match=r"caf\\udce9\.txt', is not UTF-8: rename the file"):
        load_corpus("shakespeare", path)


@pytest.mark.parametrize("limit", [0, 10**9], ids=["large", "in memory"])
def test_a_byte_order_mark_is_none_of_a_text_and_three_of_the_bytes(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_files, "LARGE_BYTES", limit)
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_bytes(b"a text")
    marked.write_bytes(codecs.BOM_UTF8 + b"a text")
    found = [load_corpus("shakespeare", path) for path in (plain, marked)]
    records = [dataclasses.replace(one.record, name="", path=None) for one in found]
    assert records[0] == records[1]
    assert corpus_vocabulary(found[1].content, "shakespeare").tokens == tuple(sorted(set("a text")))
    assert load_corpus("shakespeare", marked, "byte").record.characters == 9


def test_download_that_breaks_off_is_given_up_for_the_builtin_text(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: Handler) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[:-5])

    monkeypatch.setattr(Handler, "do_GET", answer)
    assert load_corpus("shakespeare").record.origin == "built-in"
    assert cached() == {}


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(InputError, match="unknown level 'bytes': choose one of char, byte"):
        load_corpus("shakespeare", "builtin", level="bytes")  # pyright: ignore[reportArgumentType]
