"""Tests of files that are whole or not there."""

import os
import stat
from pathlib import Path

import pytest

from astra_jax.atomic import replacing, write_bytes, write_text


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


def test_replacing_refuses_an_existing_file_if_told_so(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"first", overwrite=False)
    with pytest.raises(FileExistsError), replacing(tmp_path / "a.bin", overwrite=False):
        pytest.fail("the block must not run")
    assert folder_contents(tmp_path) == {"a.bin": b"first"}


def test_replacing_refuses_a_file_that_another_process_made_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(FileExistsError), replacing(path, overwrite=False) as temporary:
        temporary.write_bytes(b"mine")
        path.write_bytes(b"theirs")
    assert folder_contents(tmp_path) == {"a.bin": b"theirs"}


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
