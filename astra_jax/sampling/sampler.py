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
from jaxtyping import Array, Float, Int, Key

from astra_jax.config import ModelConfig
from astra_jax.errors import InputError
from astra_jax.gru import Stepper
from astra_jax.machine.cluster import Placement
from astra_jax.model import GRULanguageModel, hidden_dim
from astra_jax.sampling.strategies import Strategy

CHUNK = 256
"""Characters that the device writes at once: often enough to be read, seldom enough to be free."""

COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_prefer_vector_width": 512},
}
"""By platform. A single text's products are loops that the CPU's compiler makes itself, with
vectors of 256 bits unless told otherwise. A processor that has none of 512 takes what it has."""

DRAW_BYTES, CHARACTER_BYTES, TEXT_ARRAYS = 16, 8, 8
"""What is held in memory: a number while it is drawn, by the peak of a process; what a character
is written from; and, of each text, arrays as large as its states and logits together."""

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
    uniforms: Float[Array | np.ndarray, "C N"],
    count: Int[Array | np.ndarray, ""] | int,
    strategy: Strategy,
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
        uniforms: numbers in [0, 1) that decide the draws.
        count: how many of the C are written; what follows them is not.
        strategy: how a character is picked.
        stateful: whether the state is carried on. If not, every character is read from a zero
            state.
        mesh: devices that share the texts, along the axis `data`; None is one device.

    Returns:
        Where the texts stand now, and the ids that were read.
    """

    def write(params, stepper, cursor, given, uniforms, count):
        read = nnx.merge(graph, params).reader(stepper)

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
            in_specs=(P(), P(), _CURSOR, texts, texts, P()),
            out_specs=(_CURSOR, texts),
            check_vma=False,
        )
    rows = jnp.asarray(given), jnp.asarray(uniforms), jnp.asarray(count)
    return write(params, stepper, cursor, *rows)


@functools.lru_cache(maxsize=64)  # Of every temperature that somebody tries there is one.
def _program(
    graph: nnx.GraphDef[GRULanguageModel],
    strategy: Strategy,
    stateful: bool,
    mesh: Mesh | None,
    platform: str,
) -> Callable[..., tuple[Cursor, Int[Array, "C N"]]]:
    """Returns `write_chunk` of arrays alone, compiled as is best for a platform.

    A static argument is looked up at every call, and to look a model's structure up takes as
    long as ten characters of Astra-α.
    """
    write = functools.partial(write_chunk, graph, strategy=strategy, stateful=stateful, mesh=mesh)
    return jax.jit(write, compiler_options=COMPILER_OPTIONS.get(platform))


class Sampler:
    """A model that writes, of the parameters that it has now.

    What no text changes is computed at the first one: where the weights lie and how. It is kept
    for others of as many texts at once.
    """

    def __init__(self, model: GRULanguageModel):
        """Takes a model's parameters; a later change of it changes nothing here."""
        graph, shared = nnx.split(model)
        params = jax.tree.map(lambda array: array, shared)  # In variables of its own.
        self._ready = functools.lru_cache(maxsize=1)(functools.partial(_Ready.of, graph, params))
        self._program = functools.lru_cache(maxsize=8)(functools.partial(_program, graph))

    def stream_ids(
        self,
        prompt: Int[Array | np.ndarray, "N P"],
        uniforms: Float[Array | np.ndarray, "S N"],
        strategy: Strategy,
        stateful: bool,
        chunk: int = CHUNK,
    ) -> Generator[Int[np.ndarray, "N C"], None, None]:
        """Continues N prompts, and hands the new characters over as they come.

        The device works a chunk ahead of whoever reads. One program of fixed shape serves prompts
        and texts of every length, and the chunk's length changes nothing but when they come.

        Args:
            prompt: ids to begin with, at least one each.
            uniforms: numbers in [0, 1) that decide the draws, one for each new character.
            strategy: how a character is picked.
            stateful: whether the network reads the whole prompt and carries its state on. If not,
                it sees only the newest character, from a zero state, at every step: the sampler
                of the Shakespeare notebook, which makes a bigram model of the network.
            chunk: most characters, of prompt and text together, that the device is given at once.

        Yields:
            New ids, S in all.
        """
        read = np.asarray(prompt if stateful else prompt[:, -1:]).T
        (begun, num), length = read.shape, len(read) + len(uniforms)
        rows = -(-length // chunk) * chunk  # Of the last chunk all that follows is not written.
        given, drawn = np.full((rows, num), DRAWN, np.int32), np.zeros((rows, num), uniforms.dtype)
        given[:begun], drawn[begun:length] = read, uniforms
        params, stepper, cursor, mesh = self._ready(num)
        write = self._program(strategy, stateful, mesh, jax.default_backend())
        ahead = None
        try:
            for first in range(0, rows, chunk):
                part = slice(first, first + chunk)
                count = np.int32(min(chunk, length - first))
                cursor, ids = write(params, stepper, cursor, given[part], drawn[part], count)
                if ahead is not None:
                    yield ahead.read()
                ahead = _Ahead(ids, max(begun - first, 0), int(count))
            if ahead is not None:
                yield ahead.read()
        finally:
            jax.block_until_ready(cursor)  # Python must not end while the device computes.

    def continue_ids(
        self,
        prompt: Int[Array | np.ndarray, "N P"],
        uniforms: Float[Array | np.ndarray, "S N"],
        strategy: Strategy,
        stateful: bool,
    ) -> Int[np.ndarray, "N S"]:
        """Returns what `stream_ids` yields, in one piece."""
        return np.concatenate([*self.stream_ids(prompt, uniforms, strategy, stateful)], axis=1)


class _Ready(NamedTuple):
    """What N texts need, whatever they say."""

    params: nnx.State
    stepper: Stepper
    cursor: Cursor
    mesh: Mesh | None

    @classmethod
    def of(cls, graph: nnx.GraphDef[GRULanguageModel], params: nnx.State, num: int) -> "_Ready":
        place = Placement.of_texts(hidden_dim(params), num)
        params, mesh = place.bring(params), place.mesh_of_several
        stepper, cursor = begin(graph, params, num, mesh)
        return cls(params, stepper, cursor, mesh)


class _Ahead(NamedTuple):
    """A chunk that the device may still be at, and which of its characters are a text's."""

    ids: Int[Array, "C N"]
    begin: int
    end: int

    def read(self) -> Int[np.ndarray, "N C"]:
        return np.asarray(self.ids)[self.begin : self.end].T


def sample_key(seed: int) -> Key[Array, ""]:
    """Returns the key that decides the draws of a seed.

    Raises:
        InputError: the seed is not in [0, 2**32).
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be at least 0 and below 2**32, got {seed}")
    return _key(np.uint32(seed))


_key = jax.jit(jax.random.key)
"""In one program: op by op it takes as long as 20 characters of Astra-α."""


def bytes_of_texts(config: ModelConfig, length: int, num: int) -> int:
    """Returns about how many bytes N texts of so many new characters take to be written."""
    numbers = config.vocab_size + config.num_layers * config.hidden_dim
    characters = DRAW_BYTES * _rounded(length) + CHARACTER_BYTES * length
    return num * (characters + 4 * TEXT_ARRAYS * numbers)


def draw_uniforms(key: Key[Array, ""], length: int, num: int) -> Float[np.ndarray, "S N"]:
    """Returns the numbers in [0, 1) that decide the draws of N texts of `length` characters.

    The length is rounded up to a power of two, so that most texts find a program that is compiled:
    to compile one takes longer than to write a text with Astra-α. A longer text's draws begin
    with a shorter one's.
    """
    return np.asarray(_draw(key, _rounded(length), num))[:length]


def _rounded(length: int) -> int:
    return 1 << (length - 1).bit_length()


@functools.partial(jax.jit, static_argnames=("length", "num"))
def _draw(key: Key[Array, ""], length: int, num: int) -> Float[Array, "S N"]:
    return jax.random.uniform(key, (length, num), jnp.float32)
