"""Several devices: which are taken, and which arrays lie where."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from astra_jax.config import Preset
from astra_jax.errors import InputError
from astra_jax.machine.processor import num_cores

Devices = int | Literal["all"] | None
"""How many devices to train on. None is all of those of several processes, or one accelerator, or
as many cores of a CPU as are worth it."""

ROWS_OF_A_CORE, WIDTH_OF_ALL_CORES = 16, 512
"""Where a CPU's cores share the batch rather than each product.

XLA gives the small products of a step to one core. With the batch shared, every core does its own
rows' steps, and meets the others once, at the sum of the gradients: measured, H = 128 and 256 train
1.4 times as fast on two cores, and 256 texts are written 1.9 times as fast at H = 128. From H = 512
on the products are shared well, and it is no gain.
"""

Tree = TypeVar("Tree")


def split_cpu() -> None:
    """Makes every core of a CPU a device; call before anything is computed.

    A number that the user has already given JAX is kept.
    """
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", num_cores())


def to_device(tree: Any) -> Any:
    """Returns arrays as JAX arrays of this process's device, which share no memory with them.

    `jnp.asarray` compiles a program for each shape it meets, for some hundred times the cost of
    the copy. `jax.device_put` alone may read on from the memory that it was given.
    """
    return jax.device_put(jax.tree.map(np.array, tree))


@dataclass(frozen=True)
class Placement:
    """Which devices compute: they share the batches of one run, or several runs, or texts.

    The training step is one function on one device and on many; where its arguments lie decides
    which of them compute.

    Attributes:
        mesh: the devices, along one axis.
    """

    mesh: Mesh

    @classmethod
    def of(cls, devices: Devices, preset: Preset) -> "Placement":
        """Chooses devices for a training.

        Raises:
            InputError: there are fewer, or a batch cannot be shared among them.
        """
        found, batch_size = jax.devices(), preset.data.batch_size
        together = jax.process_count() > 1
        if devices == "all" or (devices is None and together):
            count = len(found)
        else:
            worth = _worth_using(found, preset.model.hidden_dim, batch_size)
            count = worth if devices is None else devices
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

    @classmethod
    def of_runs(cls, devices: Devices, num_runs: int) -> "Placement":
        """Chooses devices that share several runs, every run on one of them.

        Raises:
            InputError: there are fewer, or fewer runs than devices.
        """
        found = jax.devices()
        most, kind = min(len(found), num_runs), found[0].platform
        wanted = (most if kind == "cpu" else 1) if devices is None else devices
        count = most if wanted == "all" else wanted
        if not 0 < count <= most:
            raise InputError(
                f"--devices {count} is not possible: {num_runs} runs can be shared by {most} at "
                f"most, as there are {len(found)} ({kind.upper()})"
            )
        return cls(Mesh(np.array(found[:count]), ("runs",)))

    @classmethod
    def of_texts(cls, hidden_dim: int, num_texts: int) -> "Placement":
        """Chooses devices of this process that share texts which are written at once."""
        found = jax.local_devices()
        count = _worth_using(found, hidden_dim, num_texts)
        return cls(Mesh(np.array(found[:count]), ("data",)))

    @property
    def mesh_of_several(self) -> Mesh | None:
        """The mesh, if it is of more than one device."""
        return self.mesh if self.mesh.size > 1 else None

    def replicate(self, tree: Tree) -> Tree:
        """Returns the arrays on every device."""
        return jax.tree.map(self._replicate, tree)

    def bring(self, tree: Tree) -> Tree:
        """Returns the arrays on every device, and as they are if they lie there already.

        `replicate` copies those too, so that their sharding equals that of a program's results;
        where they are only read, that is a millisecond wasted.
        """
        everywhere = NamedSharding(self.mesh, P())
        there = all(
            isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(everywhere, leaf.ndim)
            for leaf in jax.tree.leaves(tree)
        )
        return tree if there else self.replicate(tree)

    def _replicate(self, leaf: Any) -> Any:
        sharding = NamedSharding(self.mesh, P())
        if getattr(leaf, "sharding", None) == sharding:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.device_put(np.asarray(jax.random.key_data(leaf)), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(np.asarray(leaf), sharding)

    def spread(self, tree: Tree) -> Tree:
        """Returns arrays whose first axis, of runs, is shared among the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, P("runs")))

    def share(self, rows: Any) -> Any:
        """Returns rows [S, B] with B shared among the devices."""
        return jax.device_put(np.asarray(rows), NamedSharding(self.mesh, P(None, "data")))


def _worth_using(found: Sequence[Any], hidden_dim: int, batch_size: int) -> int:
    """Returns how many devices one process takes for a batch if nobody says."""
    if found[0].platform != "cpu" or hidden_dim >= WIDTH_OF_ALL_CORES:
        return 1
    most = min(len(found), batch_size // ROWS_OF_A_CORE)
    return max((count for count in range(1, most + 1) if batch_size % count == 0), default=1)
