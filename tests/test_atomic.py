"""Tests of files that are whole or not there."""

import ast
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from astra_jax.errors import InputError
from astra_jax.storage.atomic import replacing, require_new_file, write_bytes, write_text

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["links", "no links"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without hard links, which FAT and some network file systems lack."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", source, None, target)

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


def folder_contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_replacing_shows_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path  # A rename is atomic within one file system only.
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"new, whole")
    assert folder_contents(tmp_path) == {"a.bin": b"new, whole"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [{}, {"a.bin": b"old"}], ids=["new", "existing"])
def test_replacing_leaves_everything_as_it_was_when_the_block_raises(
    tmp_path: Path, before: dict[str, bytes], error: type[BaseException]
) -> None:
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error), replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert folder_contents(tmp_path) == before


@pytest.mark.usefixtures("_links")
def test_replacing_refuses_an_existing_file_if_told_so(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"first", overwrite=False)
    with pytest.raises(FileExistsError), replacing(tmp_path / "a.bin", overwrite=False):
        pytest.fail("the block must not run")
    assert folder_contents(tmp_path) == {"a.bin": b"first"}


def test_a_file_or_a_link_to_nothing_is_in_the_way_before_any_work_is_done(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    require_new_file(path)
    path.touch()
    link.symlink_to("nowhere")
    for there in (path, link):
        with pytest.raises(InputError, match="exists already: choose another name"):
            require_new_file(there)


@pytest.mark.usefixtures("_links")
def test_replacing_refuses_a_file_that_another_process_made_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(FileExistsError), replacing(path, overwrite=False) as temporary:
        temporary.write_bytes(b"mine")
        path.write_bytes(b"theirs")
    assert folder_contents(tmp_path) == {"a.bin": b"theirs"}


@pytest.mark.usefixtures("_links")
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_follow_the_umask(
    tmp_path: Path, umask: int, mode: int, overwrite: bool
) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a.bin", b"", overwrite=overwrite)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == mode


def test_write_text_is_utf_8_with_line_ends_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\r\n\n")
    assert folder_contents(tmp_path) == {"a.txt": b"\xc3\xa9\r\n\n"}


def test_write_into_a_missing_folder_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "missing" / "a.bin", b"")
    assert folder_contents(tmp_path) == {}


def test_a_full_disk_leaves_no_claim_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EPERM if len(paths) == 2 else errno.ENOSPC, "no")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "replace", lambda source, target: refuse(source))
    with pytest.raises(OSError, match="no"):
        write_bytes(tmp_path / "a.bin", b"new", overwrite=False)
    assert folder_contents(tmp_path) == {}


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("n" * 255), b"new", overwrite=False)
    assert folder_contents(tmp_path) == {"n" * 255: b"new"}


RACE = """
import errno, os, sys
from pathlib import Path
from astra_jax.storage.atomic import write_bytes

folder, own, links = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if links == "no links":
    def refuse(*paths):
        raise OSError(errno.EPERM, "no hard links")
    os.link = refuse
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    try:
        write_bytes(folder / str(number), own.encode() * 100_000, overwrite=False)
        print(number)
    except FileExistsError:
        pass
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_of_processes_that_race_for_a_new_name_exactly_one_gets_it(
    tmp_path: Path, links: str
) -> None:
    racers = {
        own: subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), own, links],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for own in "abc"
    }
    for racer in racers.values():
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers.values():
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {own: racer.communicate()[0].split() for own, racer in racers.items()}
    assert all(racer.returncode == 0 for racer in racers.values())
    expected = {name: own.encode() * 100_000 for own, names in won.items() for name in names}
    assert sum(map(len, won.values())) == len(expected) == 60
    assert folder_contents(tmp_path) == expected


# Functions that write to a path, and which of their arguments it is.
WRITERS = {"savefig": 0, "save": 1, "save_file": 1, "copyfile": 1, "copy": 1, "imsave": 0}


def _unsafe_writes(path: Path) -> list[str]:
    """Returns the calls in a module that write a file otherwise than through `replacing`."""
    found, source = [], path.read_text()
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else None
        mode = [ast.unparse(argument) for argument in (*call.args[-1:], *call.keywords)]
        opens = ast.unparse(call.func) in ("open", "io.open") or (name == "open" and mode)
        unsafe = opens and any(set(text) & set("wax+") and "'" in text for text in mode)
        unsafe = unsafe and ast.unparse(call.func) != "temporary.open"
        if name in ("write_text", "write_bytes", "touch", "tofile", "savetxt", "savez"):
            unsafe = ast.unparse(call.func) != "temporary.write_bytes"
        if name in WRITERS and len(call.args) > WRITERS[name]:
            owner = ast.unparse(call.func).rpartition(".")[0]
            target = ast.unparse(call.args[WRITERS[name]])
            safe = target == "temporary" or f" {target} = io.BytesIO()\n" in source
            unsafe = not safe and owner in ("torch", "shutil", "figure", "np", "plt")
        if unsafe:
            found.append(f"{path.name}:{call.lineno}: {ast.unparse(call)}")
    return found


def test_every_writer_in_the_repository_is_atomic(tmp_path: Path) -> None:
    folders = ("astra_jax", "astra_torch", "benchmarks", "study", "scripts")
    modules = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    # Of the tests' own modules, those that are commands.
    modules += [p for p in (ROOT / "parity_tests").glob("*.py") if "__main__" in p.read_text()]
    assert len(modules) > 50
    modules.remove(ROOT / "astra_jax" / "storage" / "locks.py")  # Nobody reads what is in a lock.
    modules.remove(ROOT / "parity_tests" / "fuzz.py")  # Its hostile files live for a moment.
    modules.remove(ROOT / "benchmarks" / "start.py")  # So does its corpus.
    modules.remove(ROOT / "benchmarks" / "memory.py")  # It writes to a file of the kernel's.
    assert [line for path in modules for line in _unsafe_writes(path)] == []
    (tmp_path / "careless.py").write_text(
        "path.write_text('x')\nopen(path, 'w')\nfigure.savefig(path)\n"
        "torch.save(state, path)\npath.open('ab')\nopen(path, mode='x')\n"
    )
    assert len(_unsafe_writes(tmp_path / "careless.py")) == 6


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_on_disk_before_it_has_its_name_and_the_name_before_the_call_ends(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = tmp_path / "a.bin", os.fsync
    synced: list[tuple[int, int | None, bool]] = []

    def spy(descriptor: int) -> None:
        fsync(descriptor)
        found = os.fstat(descriptor)
        size = None if stat.S_ISDIR(found.st_mode) else found.st_size
        synced.append((found.st_ino, size, path.exists()))

    monkeypatch.setattr(os, "fsync", spy)
    write_bytes(path, b"whole", overwrite=overwrite)
    assert synced == [(path.stat().st_ino, 5, False), (tmp_path.stat().st_ino, None, True)]
