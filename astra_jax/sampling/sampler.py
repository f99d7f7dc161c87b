"""Texts as ids: a loop on the device that feeds the model what was picked of its last logits."""

import functools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key, UInt32

from astra_jax.config import DtypeName, ModelConfig
from astra_jax.errors import InputError
from astra_jax.gru import Stepper
from astra_jax.machine import memory
from astra_jax.machine.placement import Placement
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.sampling.draws import MAX_DRAWS, draw_rows
from astra_jax.sampling.strategies import Strategy
from astra_jax.units import readable

CHUNK = 256
"""Characters that the device writes at once: often enough to be read, seldom enough to be free."""

COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_prefer_vector_width": 512},
}
"""By platform. A single text's products are loops that the CPU's compiler makes itself, with
vectors of 256 bits unless told otherwise. A processor that has none of 512 takes what it has."""

TEXT_ARRAYS, CHUNK_ARRAYS = 8, 6
"""What is held in memory of each text, by the peak of a process: arrays as large as its states and
logits together, and as long as a chunk."""

DRAWN = -1
"""Stands where a character is not given."""


class Cursor(NamedTuple):
    """Where N texts stand.

    Attributes:
        logits: of the next character of each.
        state: of the layers, after the last character.
    """

    logits: Float[Array, "N V"]
    state: Float[Array, "L N H"]


_CURSOR: Any = Cursor._make([P("data"), P(None, "data")])
"""The axes of a cursor's arrays that several devices share: those of the texts."""


@functools.partial(jax.jit, static_argnames=("graph", "num", "mesh"))
def begin(
    graph: nnx.GraphDef[GRULanguageModel], params: nnx.State, num: int, mesh: Mesh | None = None
) -> tuple[Stepper, Cursor]:
    """Returns a model's recurrence, and where N texts stand before their first character.

    One program, as every call to the device costs a short text dear.

    Args:
        graph: the model's structure.
        params: its parameters.
        num: N, how many texts.
        mesh: see `write_chunk`.
    """
    model = nnx.merge(graph, params)
    state = model.initial_state(num)
    cursor = Cursor(jnp.zeros((num, model.config.vocab_size), state.dtype), state)
    if mesh is not None:
        # Where the next ones will lie: one program serves the first chunk and the others.
        shares = Cursor._make(NamedSharding(mesh, spec) for spec in _CURSOR)
        cursor = lax.with_sharding_constraint(cursor, shares)
    return model.stepper(num), cursor


def write_chunk(
    graph: nnx.GraphDef[GRULanguageModel],
    params: nnx.State,
    stepper: Stepper,
    cursor: Cursor,
    given: Int[Array | np.ndarray, "C N"],
    key: Key[Array, ""],
    place: UInt32[Array | np.ndarray, ""],
    count: Int[Array | np.ndarray, ""] | int,
    strategy: Strategy,
    *,
    stateful: bool,
    mesh: Mesh | None = None,
) -> tuple[Cursor, Int[Array, "C N"]]:
    """Takes N texts up to C characters further, on the device.

    Args:
        graph: the model's structure.
        params: its parameters.
        stepper: its recurrence.
        cursor: where the texts stand.
        given: ids that are read, a prompt's; `DRAWN` where the model has the word.
        key: decides the draws.
        place: of the first of the C among the new characters of a text; modulo 2**32 where it
            is a prompt's.
        count: how many of the C are written; what follows them is not.
        strategy: how a character is picked.
        stateful: whether the state is carried on. If not, every character is read from a zero
            state.
        mesh: devices that share the texts, along the axis `data`; None is one device.

    Returns:
        Where the texts stand now, and the ids that were read.
    """

    def write(params, stepper, cursor, given, key, place, count, strategy):
        read = nnx.merge(graph, params).reader(stepper)
        uniforms = draw_rows(key, place, given.shape, mesh).astype(cursor.logits.dtype)

        def step(at, carried):
            cursor, written = carried
            drawn = strategy.pick(cursor.logits, uniforms[at])
            ids = jnp.where(given[at] == DRAWN, drawn, given[at])
            logits, last = read(ids, cursor.state)
            return Cursor(logits, last if stateful else cursor.state), written.at[at].set(ids)

        return lax.fori_loop(0, count, step, (cursor, jnp.zeros_like(given)))

    if mesh is not None:  # No text waits for another.
        texts = P(None, "data")
        write = jax.shard_map(
            write,
            mesh=mesh,
            in_specs=(P(), P(), _CURSOR, texts, P(), P(), P(), P()),
            out_specs=(_CURSOR, texts),
            check_vma=False,
        )
    given, place, count = map(jnp.asarray, (given, place, count))
    return write(params, stepper, cursor, given, key, place, count, strategy)


class _Structure(NamedTuple):
    """How a list of arrays is a model.

    Passed directly, these would be traversed at every call: hashing the structure as a static
    argument takes as long as ten characters of Astra-α, flattening Flax's state as long as six.
    """

    graph: nnx.GraphDef[GRULanguageModel]
    tree: Any

    @classmethod
    def of(cls, model: GRULanguageModel) -> tuple["_Structure", list[Array]]:
        graph, params = nnx.split(model)
        arrays, tree = jax.tree.flatten(params)
        return cls(graph, tree), arrays

    def params(self, arrays: list[Array]) -> nnx.State:
        return jax.tree.unflatten(self.tree, arrays)


@functools.lru_cache(maxsize=64)
def _program(
    structure: _Structure, stateful: bool, mesh: Mesh | None, platform: str
) -> Callable[..., tuple[Cursor, Int[Array, "C N"]]]:
    """Returns `write_chunk` of arrays alone, compiled as is best for a platform."""

    def write(arrays, *texts):
        model = structure.graph, structure.params(arrays)
        return write_chunk(*model, *texts, stateful=stateful, mesh=mesh)

    return jax.jit(write, compiler_options=COMPILER_OPTIONS.get(platform))


class Sampler:
    """A model that writes, of the parameters that it has now.

    What no text changes is computed at the first one: where the weights lie and how. It is kept
    for others of as many texts at once.
    """

    def __init__(self, model: GRULanguageModel):
        """Takes a model's parameters; a later change of it changes nothing here.

        Their arrays are not copied: a training step that takes them over, as `Trainer.run_steps`
        does with its state, leaves none to write with.
        """
        self._vocab_size = model.config.vocab_size
        structure, arrays = _Structure.of(model)
        self._dtype: DtypeName = "float64" if arrays[0].dtype == "float64" else "float32"
        ready = functools.partial(_Ready.of, model.config, structure, arrays)
        self._ready = functools.lru_cache(maxsize=1)(ready)
        self._program = functools.lru_cache(maxsize=8)(functools.partial(_program, structure))

    def prepare(self, num: int) -> None:
        """Computes what N texts need whatever they say, unless it is there.

        Raises:
            InputError: so many are more than the machine can hold.
        """
        with arithmetic(self._dtype):
            self._ready(num)

    def stream_ids(
        self,
        prompt: Int[Array | np.ndarray, "N P"],
        length: int,
        strategy: Strategy,
        key: Key[Array, ""],
        stateful: bool,
        chunk: int = CHUNK,
    ) -> Generator[Int[np.ndarray, "N C"], None, None]:
        """Continues N prompts, and hands the new characters over as they come.

        The device works a chunk ahead of whoever reads. One program of fixed shape serves prompts
        and texts of every length, and the chunk's length changes nothing but when they come.

        Args:
            prompt: ids to begin with, at least one each.
            length: S, how many new characters of each.
            strategy: how a character is picked.
            key: decides the draws, which are those of `draw_uniforms`. A longer text begins with
                the shorter one.
            stateful: whether the network reads the whole prompt and carries its state on. If not,
                it sees only the newest character, from a zero state, at every step: the sampler
                of the Shakespeare notebook, which makes a bigram model of the network.
            chunk: most characters, of prompt and text together, that the device is given at once.

        Yields:
            New ids, S in all.

        Raises:
            InputError: a prompt is empty or has an id that is none, or as `prepare` does.
        """
        self._require_ids(prompt)
        read = np.asarray(prompt if stateful else prompt[:, -1:]).T
        begun, num = read.shape
        self.prepare(num)
        arrays, stepper, cursor, mesh = self._ready(num)
        write = self._program(stateful, mesh, jax.default_backend())
        ahead = None
        try:
            for first in range(0, begun + length, chunk):
                given = np.full((chunk, num), DRAWN, np.int32)
                given[: max(begun - first, 0)] = read[first : first + chunk]
                place = np.uint32((first - begun) % MAX_DRAWS)
                count = np.int32(min(chunk, begun + length - first))
                with arithmetic(self._dtype):
                    texts = cursor, given, key, place, count, strategy
                    cursor, ids = write(arrays, stepper, *texts)
                if ahead is not None:
                    yield ahead.read()
                ahead = _Ahead(ids, max(begun - first, 0), int(count))
            if ahead is not None:
                yield ahead.read()
        finally:
            jax.block_until_ready(cursor)  # Python must not end while the device computes.

    def _require_ids(self, prompt: Int[Array | np.ndarray, "N P"]) -> None:
        ids = np.asarray(prompt)
        if not (ids.size and ids.min() >= 0 and ids.max() < self._vocab_size):
            raise InputError(
                f"a prompt must have at least one id, each in [0, {self._vocab_size}), got "
                f"{ids.shape[1]} from {ids.min(initial=0)} to {ids.max(initial=0)}"
            )

    def continue_ids(
        self,
        prompt: Int[Array | np.ndarray, "N P"],
        length: int,
        strategy: Strategy,
        key: Key[Array, ""],
        stateful: bool,
    ) -> Int[np.ndarray, "N S"]:
        """Returns what `stream_ids` yields, in one piece."""
        return np.concatenate([*self.stream_ids(prompt, length, strategy, key, stateful)], axis=1)


class _Ready(NamedTuple):
    """What N texts need, whatever they say."""

    arrays: list[Array]
    stepper: Stepper
    cursor: Cursor
    mesh: Mesh | None

    @classmethod
    def of(
        cls, config: ModelConfig, structure: _Structure, arrays: list[Array], num: int
    ) -> "_Ready":
        needed = arrays[0].dtype.itemsize * _numbers_of_texts(config, num)
        said = f"num = {num:,} texts at once need about {readable(needed)}"
        memory.require(needed, said, "ask for fewer")
        place = Placement.of_texts(config.hidden_dim, num)
        arrays, mesh = place.bring(arrays), place.mesh_of_several
        stepper, cursor = begin(structure.graph, structure.params(arrays), num, mesh)
        return cls(arrays, stepper, cursor, mesh)


def _numbers_of_texts(config: ModelConfig, num: int) -> int:
    of_a_place = config.vocab_size + config.num_layers * config.hidden_dim
    return num * (TEXT_ARRAYS * of_a_place + CHUNK_ARRAYS * CHUNK)


class _Ahead(NamedTuple):
    """A chunk that the device may still be at, and which of its characters are a text's."""

    ids: Int[Array, "C N"]
    begin: int
    end: int

    def read(self) -> Int[np.ndarray, "N C"]:
        return np.asarray(self.ids)[self.begin : self.end].T
