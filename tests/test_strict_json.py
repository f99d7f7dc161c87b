"""Tests of JSON from strangers: what is taken comes back, all else is refused in one way."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import LATER, Preset
from astra_jax.data.vocabulary import Vocabulary, published_vocabulary
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.storage import strict_json
from astra_jax.storage.strict_json import MAX_BYTES, MAX_DEPTH, MAX_WHOLE
from tests.test_runs import create

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_WHOLE, MAX_WHOLE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
# And what Python alone calls JSON.
hostile = values | st.sampled_from([10**30, -(10**400), float("nan"), float("inf"), "\ud800"])


@given(value=values, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert strict_json.parse(text) == strict_json.parse(text.encode()) == value


@given(data=st.binary(max_size=40) | st.text('[]{}\\",:0123456789eE+-.nul\n', max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_json_or_refused(data: bytes | str) -> None:
    with contextlib.suppress(InputError):
        assert strict_json.parse(data) == json.loads(data)


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "one level too many": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "is nested deeper than"),
    "deep lists": ("[" * 100_000, "is nested deeper than 32"),
    "deep objects": ('{"a":' * 100_000, "is nested deeper than 32"),
    "long": (" " * (MAX_BYTES + 1), "is longer than the 4,194,304 bytes"),
    "a field twice": ('{"a": 1, "a": 2}', "has a field twice"),
    "65 bits": (str(MAX_WHOLE + 1), "does not fit into 64 bits"),
    "5000 digits": ("9" * 5000, "is not valid JSON"),
    "infinite": ("1e999", "too large for a float"),
    "NaN": ("NaN", "NaN is no number"),
    "-Infinity": ("[-Infinity]", "-Infinity is no number"),
    "half a character": ('"\\ud800"', "half a surrogate pair"),
    "half a name": ('{"\\udfff": 1}', "half a surrogate pair"),
    "no UTF-8": (b"\xff", "is not valid JSON"),
    "nothing": ("", "is not valid JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_more_than_anyone_needs_is_refused(name: str) -> None:
    text, message = REFUSED[name]
    for form in (text, text if isinstance(text, bytes) else text.encode()):
        with pytest.raises(InputError, match=message):
            strict_json.parse(form)


def test_the_deepest_and_largest_that_is_allowed_is_taken() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(strict_json.parse(deepest)) == deepest
    assert strict_json.parse(str(MAX_WHOLE).ljust(MAX_BYTES)) == MAX_WHOLE
    largest = Vocabulary(tokens=tuple(map(chr, range(0x10000, 0x10000 + 2**18))))
    text = json.dumps(largest.to_dict(), indent=2, ensure_ascii=False)
    assert Vocabulary.from_dict(strict_json.parse(text.encode())) == largest


def put(document: Any, draw: Callable[[Any], Any]) -> None:
    """Puts something hostile into one place of a document, or takes something away."""
    key = draw(st.sampled_from([*document] if isinstance(document, dict) else [0]))
    if isinstance(document[key], dict | list) and document[key] and draw(st.booleans()):
        put(document[key], draw)
    elif draw(st.booleans()):
        document[key] = draw(hostile)
    else:
        del document[key]


CLASSES: list[tuple[Any, Any]] = [
    (Preset, PRESETS["names", "gamma"].to_dict()),
    (Vocabulary, published_vocabulary("names").to_dict()),
    (EpochMetrics, dict.fromkeys(EpochMetrics.__dataclass_fields__, 1)),
]


@pytest.mark.parametrize(("kind", "good"), CLASSES, ids=["Preset", "Vocabulary", "EpochMetrics"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_record_of_hostile_values_is_refused_or_is_what_they_say(
    kind: Any, good: Any, data: st.DataObject
) -> None:
    document = json.loads(json.dumps(good))
    put(document, data.draw)
    with contextlib.suppress(InputError):
        record = kind.from_dict(document)
        if kind is Preset:  # What an older file does not have, it has by default.
            document["data"] = LATER["DataConfig"] | document["data"]
            document["train"] = LATER["TrainConfig"] | document["train"]
        assert record.to_dict() == document


@pytest.mark.parametrize("name", ["vocabulary.json", "metrics.jsonl"])
def test_what_never_ends_is_not_read(name: str, tmp_path: Path) -> None:
    create(tmp_path)
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (tmp_path / name).unlink(missing_ok=True)
        make(tmp_path / name)
        with pytest.raises(InputError, match=f"{name} .*is not a file"):
            Run.open(tmp_path).metrics()
