"""Several devices and several processes: what lies where, who writes, what all must agree on."""

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from astra_jax.config import Preset
from astra_jax.errors import InputError

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

FINDING_SECONDS = 300.0
"""How long processes wait for each other at first; JAX takes as long."""

Tree = TypeVar("Tree")


def connect(
    coordinator: str,
    num_processes: int,
    process_id: int,
    tell: Callable[[str], object] = lambda _: None,
) -> None:
    """Joins this process with others into one training; call before anything is computed.

    Args:
        coordinator: host and port of process 0, like `10.0.0.1:1234`.
        num_processes: how many there are.
        process_id: which of them this one is, counted from 0.
        tell: is told that this process waits for the others.

    Raises:
        InputError: the numbers cannot be, or process 0 was not found. Where another does not
            come JAX aborts this process, with a message of its own.
    """
    if num_processes < 1:
        raise InputError(f"--num-processes must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process-id must be at least 0 and below --num-processes {num_processes}, "
            f"got {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(f"--coordinator must be HOST:PORT of process 0, got {coordinator!r}")
    minutes = f"{FINDING_SECONDS / 60:.0f} minutes at most"
    tell(f"waiting for all {num_processes} processes at {coordinator}, {minutes}")
    if process_id > 0:
        _find(host.strip("[]"), int(port))
    # It would take SIGTERM for itself; `stopping` makes all processes stop at one step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the {num_processes} processes at {coordinator}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _find(host: str, port: int) -> None:
    """Waits until process 0 listens: to wait for it in vain ends in an abort of JAX's."""
    deadline = time.monotonic() + FINDING_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=10).close()
            return
        except (socket.gaierror, OverflowError) as error:
            raise InputError(f"there is no --coordinator {host}:{port}: {error}") from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"process 0 does not answer at {host}:{port}: {error}; start it, or correct "
                    "--coordinator"
                ) from error
        time.sleep(0.1)


def split_cpu() -> None:
    """Makes every core of a CPU a device; call before anything is computed.

    Who has told JAX how many there are to be has decided.
    """
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and "JAX_NUM_CPU_DEVICES" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores or 1)


def is_primary() -> bool:
    """Whether this process is the one that writes and tells."""
    return jax.process_index() == 0


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Waits, at the block's end, for every process; if one fails inside, all do.

    The others would wait for it until JAX gives up on it.

    Raises:
        InputError: another process has failed, and says why itself.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        alone = jax.process_count() == 1
        others = not alone and multihost_utils.process_allgather(np.array(failed)).any()
    if others:
        raise InputError("another process cannot go on, and has said why")


def require_same(what: str, value: object) -> None:
    """Refuses, in every process, what is not the same in all: they would wait for each other.

    Args:
        what: it is, for the message.
        value: whose `repr` tells all that must be the same.

    Raises:
        InputError: a process has another than the first.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(repr(value).encode()).digest()
    said = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = np.flatnonzero((said != said[0]).any(axis=1))
    if others.size:
        names = ", ".join(map(str, others))
        raise InputError(
            f"{what} of process {names} is not that of process 0: give the same flags to all"
        )


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


def to_device(tree: Any) -> Any:
    """Returns NumPy arrays as JAX arrays that share no memory with them.

    `jnp.asarray` compiles a program for each shape it meets, for some hundred times the cost of
    the copy. `jax.device_put` alone may read on from the memory that it was given.
    """
    return jax.device_put(local(tree))


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

        `replicate` makes them anew then, so that they are placed as a program's results are; to
        one that does not return them it is nothing but a millisecond.
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
