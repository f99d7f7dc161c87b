"""What this machine can do, measured in the same rounds: its products, and its memory."""

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from jax.sharding import PartitionSpec as P

from astra_jax.sampling.sampler import COMPILER_OPTIONS
from benchmarks.rounds import clocked, clocked_apart
from benchmarks.setting import Setting
from benchmarks.work import Matmul

PRODUCTS_FLOOR, MEMORY_FLOOR = "the machine's products", "the machine's memory"
"""What the floors are called among the contenders."""

SECONDS_A_SHAPE = 0.05
"""About how long, in seconds a turn, each way of computing a shape of product is timed."""

MOST_PRODUCTS = 64
"""Products of one shape that are taken in a call."""


class MatmulFloor:
    """Takes the products that a pass needs at least, and nothing else.

    Each shape is taken by JAX, by JAX on all of its devices and by PyTorch, on as many threads as
    the contenders have; in each turn the fastest counts. A contender near the floor has nothing
    left to save but products; one below it computes them faster inside its program than any of
    these ways does alone.
    """

    def __init__(self, counts: Counter[Matmul], setting: Setting, name: str = PRODUCTS_FLOOR):
        """Makes the operands of each shape.

        Args:
            counts: the products, each with how often it is taken.
            setting: what all are given.
            name: see `Contender`.
        """
        self.counts, self.name = counts, name
        self.runners = {shape: _runners(shape, setting) for shape in self.counts}
        self.seconds_by_shape: dict[Matmul, list[float]] = {shape: [] for shape in self.counts}
        self._repeats: dict[Matmul, int] = {}

    def warm_up(self, seconds: float) -> None:
        """Compiles, and finds out how often a turn takes each shape."""
        del seconds
        for shape, runners in self.runners.items():
            for run in runners:
                run()
            fastest = min(map(_seconds_of, runners))
            self._repeats[shape] = max(1, round(SECONDS_A_SHAPE / fastest))

    def turn(self) -> float:
        """Takes some of each shape; returns the seconds that all of a pass would take."""
        total = 0.0
        for shape, count in self.counts.items():
            repeats = self._repeats[shape]
            # Who is the fastest once may not be so now: devices that share small products do so
            # at twice the time whenever their threads share a core.
            took = min(
                clocked_apart(lambda run=run, repeats=repeats: [run() for _ in range(repeats)])
                for run in self.runners[shape]
            )
            seconds = took / (repeats * products_a_call(shape))
            self.seconds_by_shape[shape].append(seconds)
            total += seconds * count
        return total

    def describe(self) -> list[dict[str, Any]]:
        """Returns what was taken how often, and the seconds of one in each turn, for a record."""
        return [
            {"shape": shape, "count": count, "seconds": self.seconds_by_shape[shape]}
            for shape, count in self.counts.items()
        ]


def _seconds_of(run: Callable[[], object]) -> float:
    return min(clocked(run) for _ in range(3))


def products_a_call(shape: Matmul) -> int:
    """Returns how many products of a shape are taken at once: fewer of large ones."""
    return max(1, min(MOST_PRODUCTS, int(2e8 / shape.flops)))


def _runners(shape: Matmul, setting: Setting) -> list[Callable[[], object]]:
    rng = np.random.default_rng(0)
    left = (products_a_call(shape), shape.rows, shape.inner)
    operands = (
        rng.standard_normal(left, np.float32),
        rng.standard_normal((shape.inner, shape.columns), np.float32),
    )
    runners = [_jax_runner(operands, setting, sharded=False), _torch_runner(operands, setting)]
    mesh = setting.place.mesh_of_several
    if mesh is not None and shape.rows % mesh.size == 0:
        runners.append(_jax_runner(operands, setting, sharded=True))
    return runners


def _jax_runner(
    operands: tuple[np.ndarray, np.ndarray], setting: Setting, *, sharded: bool
) -> Callable[[], object]:
    half = setting.precision == "bf16"
    left, right = (jnp.asarray(array, jnp.bfloat16 if half else None) for array in operands)

    def products(left: jax.Array, right: jax.Array) -> jax.Array:
        # One after the other, as in a recurrence. Each takes the place of the last: to lay them
        # all into memory that is new at every call would cost more than small products do.
        def once(at: jax.Array, last: jax.Array) -> jax.Array:
            new = jnp.dot(left[at], right, preferred_element_type=jnp.float32)
            return lax.optimization_barrier((new, last))[0]  # So that none is left out.

        first = jnp.zeros((left.shape[1], right.shape[1]), jnp.float32)
        return lax.fori_loop(0, len(left), once, first)

    mesh = setting.place.mesh_of_several
    if sharded:
        assert mesh is not None
        specs = {"in_specs": (P(None, "data"), P()), "out_specs": P("data")}
        products = jax.shard_map(products, mesh=mesh, check_vma=False, **specs)
        left, right = (setting.place.share(np.asarray(left)), setting.place.replicate(right))
    compiled = jax.jit(products)
    return lambda: jax.block_until_ready(compiled(left, right))


def _torch_runner(
    operands: tuple[np.ndarray, np.ndarray], setting: Setting
) -> Callable[[], object]:
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    lefts, right = (torch.tensor(a).to(setting.torch_device, dtype) for a in operands)
    out = torch.empty(lefts.shape[1], right.shape[1]).to(lefts)

    def run() -> None:
        for left in lefts:
            torch.mm(left, right, out=out)
        if setting.torch_device.type == "cuda":
            torch.cuda.synchronize()

    return run


class MemoryFloor:
    """Reads as many bytes as the weights have, again and again, and does next to nothing else.

    It multiplies a vector by a square matrix of that size, over and over inside of one call, as
    small weights take less time than a call does; the fastest of JAX, JAX with the matrix on its
    side, and PyTorch counts.
    """

    name = MEMORY_FLOOR

    def __init__(self, num_bytes: int, setting: Setting):
        """Makes the bytes."""
        width = max(1, round(math.sqrt(num_bytes / 4)))
        values = np.full((width, width), 1 / width, np.float32)
        self._readers = [
            _torch_reader(values, setting),
            _jax_reader(values, transposed=False),
            _jax_reader(values, transposed=True),
        ]
        self._times = 1

    def warm_up(self, seconds: float) -> None:
        """Finds out how often a turn reads, so that all ways together take as long as others."""
        while self._fastest() < seconds / len(self._readers):
            self._times *= 2

    def turn(self) -> float:
        """Reads in every way; returns the seconds that all of the bytes take once, in the fastest.

        The fastest may change from turn to turn, as with the products.
        """
        return self._fastest() / self._times

    def _fastest(self) -> float:
        return min(clocked_apart(lambda read=read: read(self._times)) for read in self._readers)


def _torch_reader(values: np.ndarray, setting: Setting) -> Callable[[int], Any]:
    matrix = torch.tensor(values).to(setting.torch_device)
    start = torch.ones(len(values)).to(matrix)

    def read(times: int) -> float:
        vector = start
        for _ in range(times):
            vector = torch.mv(matrix, vector)
        return vector[0].item()

    return read


def _jax_reader(values: np.ndarray, *, transposed: bool) -> Callable[[int], Any]:
    matrix, start = jnp.asarray(values), jnp.ones((1, len(values)))
    options = COMPILER_OPTIONS.get(jax.default_backend())

    @functools.partial(jax.jit, compiler_options=options)
    def read(matrix: jax.Array, times: jax.Array) -> jax.Array:
        # Each product needs the one before, so that none of them is left out.
        def once(_: jax.Array, vector: jax.Array) -> jax.Array:
            return lax.optimization_barrier(vector) @ (matrix.T if transposed else matrix)

        return lax.fori_loop(0, times, once, start)[0, 0]

    return lambda times: float(read(matrix, times))
