"""Orbax checkpoints: a training state and what belongs to it, whole or not there."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import jax
import numpy as np

from astra_jax.config import StrPath
from astra_jax.errors import InputError, StorageError, first_line
from astra_jax.machine import processes
from astra_jax.storage.hashing import hash_arrays

KEEP_LATEST = 2
"""Checkpoints kept: the newest, and the one before it should the newest be damaged."""

MEETING_SECONDS = 120
"""How long one of several processes waits for the others at each stage of a checkpoint: one that
could not write never comes."""

ATTEMPTS = 10
"""Times that a reader begins anew where a writer has removed what was to be read."""

State = TypeVar("State")
Read = TypeVar("Read")


class Saved(NamedTuple, Generic[State]):
    """What a checkpoint holds.

    Attributes:
        state: arrays.
        record: what else is known of them, JSON-ready.
    """

    state: State
    record: dict[str, Any]


def require_findable(folder: Path) -> None:
    """Refuses a folder in which Orbax would not find again what it has written.

    It looks for the parts of a checkpoint by patterns, and takes a backslash for a slash.

    Raises:
        InputError: its name, or that of a folder above it, has such a character.
    """
    place = str(folder.absolute())
    found = sorted(set("*?[\\") & set(place))
    if not place.isprintable() and any("\ud800" <= character <= "\udfff" for character in place):
        found.append("bytes that are not UTF-8")
    if found:
        raise InputError(
            f"a run cannot be kept in {place}: checkpoints are not found under a name with "
            f"{' or '.join(found)} in it; choose another folder, or give this one another name"
        )


class Checkpoints:
    """The checkpoints in one folder, by step. Use as a context manager."""

    def __init__(self, folder: StrPath, keep: int | None = None):
        """Opens the folder, if there is one. The first checkpoint makes it.

        Args:
            folder: of these checkpoints and nothing else.
            keep: how many of the newest are kept as new ones are written. None is only to read;
                a reader leaves half-written checkpoints alone, which a writer removes.

        Raises:
            InputError: the list of what is there is damaged, or what is written would not be found.
        """
        self.folder, self.keep = Path(folder), keep
        if keep is not None:
            require_findable(self.folder)
        self._pending: Any = None
        # Orbax is slow to import, and a new run has no use for it before its first checkpoint.
        self._opened = self._open() if self.folder.exists() else None

    @property
    def _checkpointer(self) -> Any:
        self._opened = self._opened or self._open()
        return self._opened

    def _open(self) -> Any:
        from orbax.checkpoint import v1 as ocp

        context = ocp.Context()
        context.asynchronous.timeout_secs = MEETING_SECONDS
        try:
            return ocp.training.Checkpointer(
                str(self.folder.absolute()),
                context=context,
                # Orbax's own choice is to save whenever it can and to keep everything.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # pyright: ignore[reportArgumentType]
                preservation_policy=ocp.training.preservation_policies.LatestN(self.keep),  # pyright: ignore[reportArgumentType]
                cleanup_tmp_directories=self.keep is not None,
            )
        except (ValueError, TypeError, LookupError) as error:
            raise InputError(
                f"a checkpoint in {self.folder} cannot be read ({_reason(error)}); "
                "remove the damaged one"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
            elif self._pending is not None:
                # What went wrong first is what a person must hear of; others may not come here.
                with contextlib.suppress(Exception):
                    self._pending.result()
        finally:
            with contextlib.suppress(Exception):  # It says once more what `wait` has said.
                if self._opened is not None:
                    self._opened.close()

    @property
    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step; None where there is none."""
        self.wait()
        latest = None if self._opened is None else self._opened.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Begins to write a checkpoint; it is written in the background.

        Args:
            step: its number, larger than those before.
            state: arrays; they may be donated or changed as soon as this returns.
            record: JSON-ready values, kept with the state.

        Raises:
            InputError: the folder was opened to be read.
            StorageError: this one or the one before could not be written.
        """
        self._require_writer()
        self.wait()
        # A copy, because on a CPU the arrays that JAX hands out share the device's own memory.
        arrays = jax.tree.map(np.array, state)
        text = json.dumps(record, allow_nan=False)
        metadata: dict[str, Any] = {"record": text, "sha256": _digest(arrays, text)}
        # In all of several processes or none: Orbax lets them wait for each other.
        with processes.all_or_none(), self._telling():
            checkpointer = self._checkpointer
            self._require_room(arrays)
        with self._telling():
            self._pending = checkpointer.save_async(step, arrays, custom_metadata=metadata)
            if self._pending is None:
                raise OSError(f"checkpoint {step} is not newer than the newest")

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk; raises `StorageError` if it is not."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with processes.all_or_none(), self._telling():
                pending.result()

    def _require_room(self, arrays: Any) -> None:
        # Orbax's threads would find out as well, but wait for minutes for what cannot come.
        with tempfile.TemporaryFile(dir=self.folder):
            pass
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise OSError(f"no space left: {size:,} bytes needed, {free:,} free")

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Says in one line why a checkpoint could not be written, and what there still is."""
        try:
            yield
        except Exception as error:
            raise StorageError(
                f"cannot write a checkpoint into {self.folder}: {_reason(error)}; "
                f"{self._what_is_left()}"
            ) from error

    def _what_is_left(self) -> str:
        steps = [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]
        return f"the last good one is of step {max(steps)}" if steps else "there is none before it"

    def _require_writer(self) -> None:
        if self.keep is None:
            raise InputError(f"{self.folder} is open to be read: to write, give how many to keep")

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints of later steps; raises `InputError` as `save` does."""
        self._require_writer()
        for checkpoint in [] if self._opened is None else list(self._opened.checkpoints):
            if checkpoint.step > step:
                self._checkpointer.delete(checkpoint.step)

    def restore(self, like: State) -> Saved[State]:
        """Returns the newest state, as NumPy arrays, and its record.

        Args:
            like: a state, or its shapes and types, of the structure that was saved.

        Raises:
            InputError: there is no checkpoint, it cannot be read, it is of another shape, or it
                does not hold what was written.
        """
        step = self.latest_step
        if step is None:
            raise InputError(f"{self.folder} holds no checkpoint: train first")
        name = f"checkpoint {step} in {self.folder}"
        try:
            return self._restore(step, like, name)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{name} cannot be read ({_reason(error)}); {_GO_BACK}") from error

    def _restore(self, step: int, like: State, name: str) -> Saved[State]:
        found = self._checkpointer.metadata(step)
        if not found.metadata:
            raise ValueError("it lists no arrays")
        # Orbax casts and crops silently: what is on disk is compared before it is read.
        _require_equal_specs(_specs(found.metadata), _specs(like), name)
        state = self._checkpointer.load(step, jax.tree.map(_in_host_memory, like))
        _require_equal_specs(_specs(state), _specs(like), f"what was read from {self.folder}")
        metadata = found.custom_metadata
        record = metadata.get("record") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or not isinstance(record, str):
            raise ValueError("it has no record")
        if _digest(state, record) != metadata.get("sha256"):
            raise InputError(
                f"{name} does not hold what was written (its sha256 is another); {_GO_BACK}"
            )
        return Saved(state, json.loads(record))


def read_beside_writer(folder: Path, read: Callable[[Checkpoints], Read]) -> Read:
    """Returns what is read of a folder that another process may be writing into.

    What was found there may be removed as too old before it is read; then there is a newer one.

    Args:
        folder: see `Checkpoints`.
        read: reads it; what it raises is raised if nothing has come or gone meanwhile.
    """
    for _ in range(ATTEMPTS):
        found = _entries(folder)
        try:
            with Checkpoints(folder) as checkpoints:
                return read(checkpoints)
        except (InputError, FileNotFoundError):
            if _entries(folder) == found:
                raise
    raise InputError(
        f"{folder} is written too fast to be read: give a larger --checkpoint-every, or wait until "
        "the training has ended"
    )


def _entries(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def _reason(error: Exception) -> str:
    """Returns what an error says in its first line, which of Orbax's may be a whole state.

    Of chained exceptions it is the first.
    """
    while isinstance(cause := error.__cause__ or error.__context__, Exception):
        error = cause
    return f"{type(error).__name__}: {first_line(error)}"[:MOST_OF_A_REASON]


MOST_OF_A_REASON = 300
"""Characters of what went wrong that a person is told."""

_GO_BACK = "remove its folder to go on from the one before"


def _digest(state: Any, record: str) -> str:
    """Returns the sha256 of a state's arrays and of its record."""
    leaves = {path: np.asarray(leaf) for path, leaf in _leaves(state).items()}
    return hash_arrays(leaves | {"record": np.frombuffer(record.encode(), np.uint8)})


def _in_host_memory(leaf: Any) -> np.ndarray:
    """Says what an array is, and that it is to come as NumPy's: its devices may be gone."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _leaves(tree: Any) -> dict[str, Any]:
    """Returns each leaf by its path, however the path's steps are written."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _specs(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns shape and type of each leaf by its path."""
    return {
        path: (tuple(leaf.shape), np.dtype(leaf.dtype).name) for path, leaf in _leaves(tree).items()
    }


def _require_equal_specs(saved: dict[str, Any], wanted: dict[str, Any], name: str) -> None:
    differing = sorted(path for path in saved | wanted if saved.get(path) != wanted.get(path))
    if differing:
        path = differing[0]
        raise InputError(
            f"{name} does not fit the run's config.json in {len(differing)} of {len(wanted)} "
            f"arrays: {path} is {saved.get(path, 'missing')}, expected "
            f"{wanted.get(path, 'nothing of that name')}"
        )
