"""Tests of corpora in files of ids: the same ids, batches and trainings as in memory."""

import codecs
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import Level
from astra_jax.data import builtin_corpus, datasets, token_files
from astra_jax.data.corpus import load_corpus
from astra_jax.data.datasets import EMPTY, StoredWindows, TextWindows
from astra_jax.data.token_files import Encoded, TokenFile, open_tokens
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.presets import override
from astra_jax.storage.user_cache import cache_folder
from tests.trainings import TEXT, Train, final_params, without_times


def encode(data: bytes, level: Level, chunk: int) -> tuple[np.ndarray, Encoded]:
    """Returns all ids of a file with these bytes, and what was found out about it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        path.write_bytes(data)
        with mock.patch.object(token_files, "CHUNK_BYTES", chunk):
            encoded = open_tokens(path, level, Path(folder) / "cache")
        ids = encoded.tokens.windows(np.array([0]), len(encoded.tokens))[0]
    return ids, encoded


characters = st.characters(exclude_categories=["Cs"])


@given(
    text=st.text(characters, min_size=1, max_size=40),
    many=st.sampled_from([0, 300, 70_000]),
    chunk=st.integers(1, 9),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
)
@settings(max_examples=60, deadline=None)
def test_ids_of_a_file_are_those_of_its_text_whatever_its_chunks(
    text: str, many: int, chunk: int, mark: bytes
) -> None:
    # With as many characters as need one byte each, two, or four.
    text += "".join(map(chr, range(0x10000, 0x10000 + many)))
    text = text.removeprefix("\ufeff") or "a"
    ids, encoded = encode(mark + text.encode(), "char", chunk if many == 0 else 1000 * chunk + 1)
    vocabulary = Vocabulary.of_text(text)
    assert encoded.tokens.vocabulary == vocabulary
    assert np.array_equal(ids, vocabulary.encode(text))
    assert encoded.sha256 == hashlib.sha256(text.encode()).hexdigest()
    width = 1 if len(vocabulary) <= 256 else 2 if len(vocabulary) <= 2**16 else 4
    assert encoded.tokens.dtype.itemsize == width


@given(data=st.binary(min_size=1, max_size=60), chunk=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_bytes_are_their_own_ids_and_no_text_is_refused_as_in_memory(
    data: bytes, chunk: int
) -> None:
    ids, encoded = encode(data, "byte", chunk)
    assert bytes(ids.tolist()) == data
    assert encoded.sha256 == hashlib.sha256(data).hexdigest()
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        with pytest.raises(InputError, match=rf"byte {wrong:#04x} at offset {error.start};"):
            encode(data, "char", chunk)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large."""
    monkeypatch.setattr(token_files, "LARGE_BYTES", 0)


@pytest.mark.usefixtures("large")
def test_ids_are_kept_and_made_anew_where_they_are_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("a text of its own\n" * 50)
    tokens = load_corpus("shakespeare", str(path)).content
    assert isinstance(tokens, TokenFile)
    (kept,) = cache_folder().iterdir()
    before, made = kept.read_bytes(), kept.stat().st_mtime_ns
    load_corpus("shakespeare", str(path))
    assert kept.stat().st_mtime_ns == made
    os.truncate(kept, 100)
    load_corpus("shakespeare", str(path))
    assert kept.read_bytes() == before
    assert list(cache_folder().iterdir()) == [kept]
    first = tokens.part(2, 6).windows(np.array([0]), 4)[0]
    assert tokens.vocabulary.decode(first) == "text"
    for spoil in (lambda: os.truncate(kept, 3), kept.unlink):
        spoil()
        with pytest.raises(InputError, match="was removed or cut while it was trained on: begin"):
            tokens.windows(np.array([0]), 4)


@pytest.mark.usefixtures("large")
def test_ids_that_cannot_be_kept_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("abc" * 100)

    def refused() -> str:
        with pytest.raises(InputError) as error:
            load_corpus("shakespeare", str(path))
        assert not cache_folder().exists() or not list(cache_folder().iterdir())
        return str(error.value)

    usage = shutil.disk_usage(tmp_path)._replace(free=64_000_299)
    with mock.patch.object(shutil, "disk_usage", return_value=usage):
        assert refused() == (
            f"the encoded corpus needs 0 MB in {cache_folder()}, which has 64 MB left: make room, "
            "or set XDG_CACHE_HOME to a larger disk"
        )
    with mock.patch.object(token_files, "MOST_TOKENS", 299):
        assert "has 300 chars, more than the 299 that can be counted: split" in refused()
    encode_once = token_files._encode

    for later in ("abd", "ab\N{SNOWMAN}"):  # Within the table of characters, and beyond it.

        def change(*arguments: Any, later: str = later) -> None:
            path.write_text(later * 100)
            encode_once(*arguments)

        path.write_text("abc" * 100)
        with mock.patch.object(token_files, "_encode", change):
            assert "changed while it was read: begin again" in refused()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot keep the encoded corpus in .*: Not a directory;"):
        load_corpus("shakespeare", str(path))


@pytest.mark.usefixtures("large")
def test_what_a_killed_process_was_writing_is_removed_in_time(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("abc" * 100)
    cache_folder().mkdir(parents=True)
    old, new = cache_folder() / ".0123.tmp", cache_folder() / ".4567.tmp"
    for left in (old, new):
        left.write_bytes(b"ids")
    os.utime(old, (0, 0))
    load_corpus("shakespeare", str(path))
    assert [old.exists(), new.exists()] == [False, True]


@given(data=st.data(), length=st.integers(12, 60), seq_len=st.integers(1, 8))
@settings(max_examples=15, deadline=None)
def test_equal_rows_make_equal_batches_from_a_file_and_from_memory(
    data: st.DataObject, length: int, seq_len: int
) -> None:
    num, size = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
    drawn = st.lists(st.integers(EMPTY, length - 3), min_size=num * size, max_size=num * size)
    rows = np.array(data.draw(drawn), np.int32).reshape(num, size)
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(range(100, 100 + length)))
        file.flush()
        path, dtype = Path(file.name), np.dtype(np.uint8)
        tokens = TokenFile(path, dtype, Vocabulary.of_bytes(), 0, length)
        mapped = StoredWindows(tokens.part(1, length), seq_len, size)
        whole = TextWindows(jnp.arange(101, 100 + length, dtype=jnp.int32), seq_len, size)
        room = data.draw(st.integers(1, 200))
        with mock.patch.object(datasets, "STAGE_TOKENS", room):
            stages = list(datasets.stages(mapped, rows))
        assert sum(stage.num_batches for stage in stages) == num
        assert len({stage.rows.shape for stage in stages}) == 1
        assert stages[0].rows.size * (seq_len + 1) <= max(room, size * (seq_len + 1))
        for stage in stages:
            for index in range(stage.num_batches):
                row = rows[stage.first + index]
                ours = stage.data.batch(jnp.asarray(stage.rows[index]))
                expected = whole.batch(jnp.asarray(row))
                assert np.array_equal(ours.targets, expected.targets)
                full = row != EMPTY
                assert np.array_equal(ours.inputs[full], expected.inputs[full])
        key = jax.random.key(0)
        assert np.array_equal(mapped.cover_rows(), whole.cover_rows())
        with pytest.raises(InputError, match="a compiled program cannot read windows out of"):
            jax.jit(mapped.batch)(rows[0])
        if length > seq_len + 2:
            assert np.array_equal(mapped.epoch_rows(key, 3), whole.epoch_rows(key, 3))


@pytest.mark.parametrize("level", ["char", "byte"])
def test_a_training_from_a_file_is_that_from_memory_to_the_bit(
    level: Level, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = override(TEXT, level=level)
    memory = train(preset, "memory")
    monkeypatch.setattr(token_files, "LARGE_BYTES", 0)
    # Two or three batches of seventeen characters fit: every epoch takes several stretches.
    monkeypatch.setattr(datasets, "STAGE_TOKENS", 3 * 4 * 17)
    mapped = train(preset, "mapped")
    assert mapped.corpus == memory.corpus
    assert mapped.vocabulary == memory.vocabulary
    assert without_times(mapped.metrics()) == without_times(memory.metrics())
    for ours, expected in zip(final_params(mapped), final_params(memory), strict=True):
        assert np.array_equal(ours, expected)


def test_a_text_of_ordinary_size_stays_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "play.txt"
    path.write_text(builtin_corpus.play()[:1000])
    assert isinstance(load_corpus("shakespeare", str(path)).content, str)
    assert not cache_folder().exists()
