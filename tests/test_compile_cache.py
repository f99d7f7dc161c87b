"""Tests of the compile cache: it is used, it is the user's alone, and it never fails a run."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from astra_jax.machine import compile_cache

_ENABLE = compile_cache.enable  # Before a fixture puts it out of action.

# Compiles one program twice the slow way round: in a process of its own.
_PROGRAM = """
import jax
from astra_jax.machine import compile_cache
print(compile_cache.enable())
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
print(jax.jit(lambda x: x * 2 + 1)(20.0))
print(sum(name.endswith("/cache_hits") for name in hits) > 0)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compile_in_a_new_process() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        umask=0,  # What is for the user alone must be so by itself.
        cwd=Path(__file__).parents[1],
    )
    return done.stdout.splitlines()


def test_second_start_finds_what_the_first_compiled_and_damage_costs_time_only(cache: Path) -> None:
    assert compile_in_a_new_process() == ["", "41.0", "False"]
    assert compile_in_a_new_process() == ["", "41.0", "True"]
    for folder in (cache / "astra", *(cache / "astra" / "jax").iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700
    entries = list((cache / "astra" / "jax").glob("*/*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:50])
    assert compile_in_a_new_process() == ["", "41.0", "False"]


@pytest.mark.parametrize("where", ["astra", "astra/jax", "leaf"])
@pytest.mark.parametrize("mode", [0o770, 0o707], ids=oct)
def test_folder_that_others_may_write_is_not_used(cache: Path, where: str, mode: int) -> None:
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    leaf = cache / "astra" / "jax" / compile_cache._processor()
    leaf.mkdir(mode=0o700, parents=True)
    open_folder = leaf if where == "leaf" else cache / where
    open_folder.chmod(mode)
    assert f"{open_folder} cannot keep compiled programs (others may write there)" in _ENABLE()
    assert jax.config.jax_compilation_cache_dir == before  # pyright: ignore[reportAttributeAccessIssue]


def test_folder_of_another_user_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = cache / "astra" / "jax" / compile_cache._processor()
    leaf.mkdir(mode=0o700, parents=True)
    if os.getuid() == 0:
        os.chown(leaf, 12345, 12345)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert "cannot keep compiled programs (it is another user's)" in _ENABLE()


def test_cache_that_cannot_be_made_is_told_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file")
    told = _ENABLE()
    assert told.startswith("note: compiling anew")
    assert "\n" not in told
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert _ENABLE().startswith("note: compiling anew, since /proc/nowhere")

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert "~/.cache cannot keep compiled programs (no home folder is known" in _ENABLE()


def test_what_was_read_or_written_last_stays_within_the_bound(tmp_path: Path) -> None:
    for name, read, written in (("old", 4, 4), ("read", 9, 2), ("older", 0, 0), ("new", 3, 8)):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (read, written))
    compile_cache._drop_oldest(tmp_path, 399)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "read", "new"}
    compile_cache._drop_oldest(tmp_path, 200)
    assert {path.name for path in tmp_path.iterdir()} == {"read", "new"}


def test_enabling_bounds_the_cache(cache: Path) -> None:
    compile_in_a_new_process()
    leaf = next((cache / "astra" / "jax").iterdir())
    with (leaf / "forgotten").open("wb") as hole:
        hole.truncate(compile_cache.MAX_BYTES)
    os.utime(leaf / "forgotten", (0, 0))
    compile_in_a_new_process()
    assert not (leaf / "forgotten").exists()


def test_processors_that_differ_in_one_instruction_share_no_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ["flags\t: avx2 avx512f", "flags\t: avx2", "flags\t: avx2"]
    names = []
    for line in flags:
        monkeypatch.setattr(compile_cache, "cpuinfo", lambda line=line: ["model name\t: X", line])
        names.append(compile_cache._processor())
    assert names[0] != names[1] == names[2]
