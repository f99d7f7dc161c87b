"""Orbax checkpoints of a training state."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from astra_jax.errors import InputError

KEEP_LATEST = 2
"""Checkpoints kept: the newest, and the one before it should the newest be damaged."""

State = TypeVar("State")


class Checkpoints:
    """The checkpoints of one run, by step. Use as a context manager."""

    def __init__(self, folder: Path):
        """Opens the folder, which need not exist yet."""
        self.folder = folder
        self._checkpointer = ocp.training.Checkpointer(
            str(folder.absolute()),
            # Orbax's own choice is to save whenever it can and to keep everything.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # pyright: ignore[reportArgumentType]
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP_LATEST),  # pyright: ignore[reportArgumentType]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """The newest checkpoint's step; None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any) -> None:
        """Writes the state; it is on disk, whole, when this returns."""
        self._checkpointer.save(step, state)

    def restore(self, like: State) -> State:
        """Returns the newest state.

        Args:
            like: a state, or its shapes and types, of the structure that was saved.

        Raises:
            InputError: there is no checkpoint, it cannot be read, or it is of another shape.
        """
        step = self.latest_step
        if step is None:
            raise InputError(f"{self.folder} holds no checkpoint: train first")
        try:
            saved = self._checkpointer.metadata(step).metadata
            if not saved:
                raise ValueError("it lists no arrays")
            # Orbax casts and crops silently: what is on disk is compared before it is read.
            _require_equal_specs(_specs(saved), _specs(like), f"checkpoint {step} in {self.folder}")
            state = self._checkpointer.load(step, jax.tree.map(_on_this_machine, like))
            _require_equal_specs(_specs(state), _specs(like), f"what was read from {self.folder}")
            return state
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"checkpoint {step} in {self.folder} cannot be read ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); remove its folder to go on from the one before"
            ) from error


def _on_this_machine(leaf: Any) -> jax.ShapeDtypeStruct:
    """Says where an array is to go, which may not be where it was when it was saved."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _specs(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns shape and type of each leaf by its path, however the path's steps are written."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            tuple(leaf.shape),
            np.dtype(leaf.dtype).name,
        )
        for path, leaf in leaves
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
