"""Several devices and several processes: what lies where, who writes, what all must agree on."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from astra_jax.errors import InputError

Devices = int | Literal["all"] | None
"""How many devices to train on. None is one, or all of those of several processes."""

Tree = TypeVar("Tree")


def connect(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins this process with others into one training; call before anything is computed.

    Args:
        coordinator: host and port of process 0, like `10.0.0.1:1234`.
        num_processes: how many there are.
        process_id: which of them this one is, counted from 0.

    Raises:
        InputError: the numbers cannot be, or the others were not found.
    """
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process-id must be at least 0 and below --num-processes {num_processes}, "
            f"got {process_id}"
        )
    # It would take SIGTERM for itself; `stopping` makes all processes stop at one step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the {num_processes} processes at {coordinator}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def is_primary() -> bool:
    """Whether this process is the one that writes and tells."""
    return jax.process_index() == 0


def wait_for_all(place: str) -> None:
    """Waits until every process has come to this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def agree(count: int, signal_number: int | None) -> tuple[int, int | None]:
    """Returns what all processes go on with.

    Their clocks differ, and a signal may reach one before the others; but all must run the same
    steps.

    Args:
        count: of steps; the first process's is taken.
        signal_number: that has come to this process; that of any is taken.
    """
    if jax.process_count() == 1:
        return count, signal_number
    said = multihost_utils.process_allgather(np.array([count, signal_number or 0]))
    return int(said[0, 0]), int(said[:, 1].max()) or None


def local(tree: Tree) -> Tree:
    """Returns values that every device has as arrays of this process's own memory."""
    return jax.tree.map(np.array, tree)


@dataclass(frozen=True)
class Placement:
    """Data parallelism: every device has the state, and its share of each batch.

    The training step is one function on one device and on many; where its arguments lie decides
    which of them compute.

    Attributes:
        mesh: the devices, along one axis.
    """

    mesh: Mesh

    @classmethod
    def of(cls, devices: Devices, batch_size: int) -> "Placement":
        """Chooses devices.

        Raises:
            InputError: there are fewer, or a batch cannot be shared among them.
        """
        found = jax.devices()
        together = jax.process_count() > 1
        count = len(found) if devices == "all" or (devices is None and together) else devices or 1
        kind = found[0].platform.upper()
        if not 0 < count <= len(found) or (together and count < len(found)):
            raise InputError(
                f"--devices {count} is not possible: this training has {len(found)} ({kind}), "
                f"{'and all processes take part' if together else 'choose from these'}"
            )
        if batch_size % count:
            raise InputError(
                f"a batch of {batch_size} cannot be shared by {count} devices: choose a "
                "--batch-size or --devices that divides"
            )
        return cls(Mesh(np.array(found[:count]), ("data",)))

    @property
    def mesh_of_several(self) -> Mesh | None:
        """The mesh, if it is of more than one device."""
        return self.mesh if self.mesh.size > 1 else None

    def replicate(self, tree: Tree) -> Tree:
        """Returns the arrays on every device."""
        return jax.tree.map(self._replicate, tree)

    def _replicate(self, leaf: Any) -> Any:
        sharding = NamedSharding(self.mesh, P())
        if getattr(leaf, "sharding", None) == sharding:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.device_put(np.asarray(jax.random.key_data(leaf)), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(np.asarray(leaf), sharding)

    def share(self, rows: Any) -> Any:
        """Returns rows [S, B] with B shared among the devices."""
        return jax.device_put(np.asarray(rows), NamedSharding(self.mesh, P(None, "data")))
