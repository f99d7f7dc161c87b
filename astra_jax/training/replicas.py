"""Several runs of one recipe, which differ in their seed, trained by one program."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from astra_jax.config import MAX_STEPS
from astra_jax.data.datasets import Dataset, stages
from astra_jax.data.splits import Split
from astra_jax.machine.placement import Placement
from astra_jax.training.engines import Steps
from astra_jax.training.trainer import Losses, StepMetrics, Trainer, TrainState

Tree = TypeVar("Tree")
MapRuns = Callable[[Callable[[Any], Any], Any], Any]
"""Calls a function for every run of a tree whose leaves have runs along their first axis."""


def one_by_one(call: Callable[[Any], Any], runs: Any) -> Any:
    """Computes one run after the other, in the program of a run that is alone."""
    return lax.map(call, runs)


def all_at_once(call: Callable[[Any], Any], runs: Any) -> Any:
    """Computes all runs in each operation, over one more axis."""
    return jax.vmap(call)(runs)


DEFAULT_MAPS: dict[str, MapRuns] = {
    "cpu": one_by_one,  # Small batched products are slow there: results/benchmarks/README.md.
    "gpu": all_at_once,  # Not measured.
    "tpu": all_at_once,  # Not measured.
}
"""How a device of each platform computes the runs that are its own."""


def at_once(num_runs: int) -> int:
    """Returns how many of so many runs compute at the same time, if all devices take part."""
    devices = jax.devices()
    one_each = DEFAULT_MAPS[devices[0].platform] is one_by_one
    return min(num_runs, len(devices)) if one_each else num_runs


class Replicas:
    """Several runs that differ in their seed, in one program; devices share the runs.

    No device ever waits for another, and the corpus lies on each once for all of its runs. A run
    that is further than the others rests until they are where it is.
    """

    def __init__(
        self,
        trainer: Trainer,
        place: Placement,
        splits: Sequence[Split],
        keys: Sequence[Key[Array, ""]],
        map_runs: MapRuns | None = None,
    ):
        """Brings data and keys to where they are computed with.

        Args:
            trainer: of the recipe, for one device.
            place: the devices, along the axis `runs`.
            splits: of each run; they share their arrays, as `splits.split_by_keys` makes them.
            keys: of each run's dropout.
            map_runs: how a device computes its runs; None chooses.
        """
        self.trainer, self._place, self._num_runs = trainer, place, len(keys)
        self._num_idle = -len(keys) % place.mesh.size
        platform = place.mesh.devices.flat[0].platform
        self._programs = _Programs(trainer, place.mesh, map_runs or DEFAULT_MAPS[platform])
        self._train, self._validation = map(place.replicate, splits[0][:2])
        self._keys = self._spread(np.stack([jax.random.key_data(key) for key in keys]))

    def load(self, states: Sequence[TrainState]) -> TrainState:
        """Stacks the states along a first axis; devices that would have fewer runs get idle ones.

        An idle run has done all steps that there can be, and so does none.
        """
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(list(states)))
        state = self._spread(stacked)
        done = np.asarray(state.step).copy()
        done[self._num_runs :] = MAX_STEPS
        return state._replace(step=self._place.spread(done))

    def parts(self, value: Tree) -> list[Tree]:
        """Brings the value to the host, and takes it apart along its first axis."""
        fetched = jax.device_get(value)
        return [_of_run(run, fetched) for run in range(self._num_runs)]

    def run_steps(
        self, state: TrainState, rows: Int[np.ndarray, "R S B"], offset: int, step: int, count: int
    ) -> Steps:
        """See `Engine.run_steps`."""
        data, batches, first, count = self._train.stage(_abreast(rows), step - offset, count)
        state, metrics = self._programs.run_steps(
            state,
            self._place.replicate(data),
            self._apart(batches),
            np.int32(offset + first),
            np.int32(step + count),
            self._keys,
        )
        return Steps(state, metrics, count)

    def evaluate(self, state: TrainState, rows: Int[np.ndarray, "R S B"]) -> list[Losses]:
        """See `Engine.evaluate`."""
        found = []
        for stage in stages(self._validation, _abreast(rows)):
            data = self._place.replicate(stage.data)
            losses = self._programs.evaluate(state.params, data, self._apart(stage.rows))
            found.append([values[:, : stage.num_batches] for values in jax.device_get(losses)])
        sums, counts = (np.concatenate(values, axis=1) for values in zip(*found, strict=True))
        return [Losses(sums[run].astype(np.float64), counts[run]) for run in range(self._num_runs)]

    def _apart(self, rows: Int[Array | np.ndarray, "S RB"]) -> Any:
        """Gives rows that lie side by side back to their runs."""
        steps = len(rows)
        return self._spread(np.asarray(rows).reshape(steps, self._num_runs, -1).swapaxes(0, 1))

    def _spread(self, tree: Any) -> Any:
        """Shares arrays among the devices along their first axis; idle runs are like the last."""

        def fill_up(leaf: np.ndarray) -> np.ndarray:
            return np.concatenate([leaf, *[leaf[-1:]] * self._num_idle])

        return self._place.spread(jax.tree.map(fill_up, tree))


def _of_run(run: int, tree: Tree) -> Tree:
    """Returns what of a tree is one run's."""
    return jax.tree.map(lambda leaf: leaf[run], tree)


def _abreast(rows: Int[np.ndarray, "R S B"]) -> Int[np.ndarray, "S RB"]:
    """Lays all runs' rows of a step side by side, as those of one large batch."""
    return rows.swapaxes(0, 1).reshape(rows.shape[1], -1)


@dataclass(frozen=True)
class _Programs:
    """A trainer's programs for runs along a first axis. Equal ones share what is compiled."""

    trainer: Trainer
    mesh: Mesh
    map_runs: MapRuns

    @functools.partial(jax.jit, static_argnames="self", donate_argnames="state")
    def run_steps(
        self,
        state: TrainState,
        data: Dataset,
        rows: Int[Array, "R S B"],
        offset: Int[Array, ""] | np.int32,
        end: Int[Array, ""] | np.int32,
        keys: Any,
    ) -> tuple[TrainState, StepMetrics]:
        """Does the steps of `Trainer.run_steps` for every run."""

        def one(data, offset, end, state, rows, key):
            key = jax.random.wrap_key_data(key)
            return self.trainer.run_steps(state, data, rows, offset, end, key)

        return self._for_every_run(one, (data, offset, end), (state, rows, keys))

    @functools.partial(jax.jit, static_argnames="self")
    def evaluate(
        self, params: nnx.State, data: Dataset, rows: Int[Array, "R S B"]
    ) -> tuple[Float[Array, "R S"], Int[Array, "R S"]]:
        """Returns the summed losses of every run's batches, and how many targets each has."""

        def one(data, params, rows):
            return self.trainer.losses(params, data, rows)

        return self._for_every_run(one, (data,), (params, rows))

    def _for_every_run(self, one: Callable[..., Any], shared: Any, own: Any) -> Any:
        def on_a_device(shared, own):
            return self.map_runs(lambda own: one(*shared, *own), own)

        if self.mesh.size == 1:
            return on_a_device(shared, own)
        return jax.shard_map(
            on_a_device,
            mesh=self.mesh,
            in_specs=(P(), P("runs")),
            out_specs=P("runs"),
            check_vma=False,
        )(shared, own)
