"""Generating text: how a character is picked, and how the model is fed."""

import functools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from astra_jax.cluster import Placement
from astra_jax.errors import InputError
from astra_jax.gru import Stepper
from astra_jax.model import GRULanguageModel, hidden_dim
from astra_jax.vocabulary import Vocabulary

WORD_LENGTH, TEXT_LENGTH = 20, 200
"""New characters by default: the longest word of the names study, the text of the other."""

CHUNK = 256
"""Characters that the device writes at once: often enough to be read, seldom enough to be free."""

COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_prefer_vector_width": 512},
}
"""By platform. A single text's products are loops that the CPU's compiler makes itself, with
vectors of 256 bits unless told otherwise. A processor that has none of 512 takes what it has."""

DRAWN = -1
"""Stands where a character is not given."""

COLDEST = 1e-30
"""Lower temperatures are taken as this: float32 has no reciprocal of them, and none is greedier."""

TRIANGLE, BLOCK = 128, 16
"""Weights that one product cumulates, and how many of more than that go into each."""


@runtime_checkable
class Strategy(Protocol):
    """Picks the next character."""

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns ids; equal uniform numbers in [0, 1) give equal ids in every framework."""
        ...


@dataclass(frozen=True)
class Greedy:
    """The most likely character, the first of them where several are."""

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns ids; the uniform numbers do not matter."""
        del uniforms
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class Temperature:
    """A draw from softmax(logits / temperature)."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"temperature must be above 0 and finite, got {self.temperature:g}; for the most "
                "likely character use --greedy"
            )

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns the ids at which the cumulated probabilities pass the uniform numbers."""
        # The largest goes first: divided by a tiny temperature, the others may become infinite.
        below = logits - logits.max(axis=-1, keepdims=True)
        temperature = max(self.temperature, COLDEST)
        cumulated = cumulate(jnp.exp(below / temperature))
        # Scaled by the last sum, which is not 1, a draw never runs past the end.
        passed = cumulated <= uniforms[:, None] * cumulated[:, -1:]
        return jnp.minimum(passed.sum(-1, dtype=jnp.int32), logits.shape[-1] - 1)


@dataclass(frozen=True)
class TopK:
    """A draw, with temperature, from the k most likely characters."""

    k: int = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        Temperature(self.temperature)
        if self.k < 1:
            raise InputError(f"top-k must be at least 1, got {self.k}")

    def pick(self, logits: Float[Array, "N V"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
        """Returns ids, drawn from the k in order of falling probability."""
        best, ids = lax.top_k(logits, self.k)
        places = Temperature(self.temperature).pick(best, uniforms)
        return jnp.take_along_axis(ids, places[:, None], axis=-1)[:, 0].astype(jnp.int32)


def cumulate(weights: Float[Array, "*batch V"]) -> Float[Array, "*batch V"]:
    """Returns the sums of the weights up to each, along the last axis.

    As products with triangles of ones: on a CPU `jnp.cumsum` takes a third of the time in which
    Astra-α writes 256 texts.
    """
    length = weights.shape[-1]
    if length <= TRIANGLE:
        ones = jnp.tri(length, dtype=weights.dtype).T
        return jnp.dot(weights, ones, precision=lax.Precision.HIGHEST)
    batch = [(0, 0)] * (weights.ndim - 1)
    rows = jnp.pad(weights, [*batch, (0, -length % BLOCK)])
    inside = cumulate(rows.reshape(*weights.shape[:-1], -1, BLOCK))
    until = cumulate(inside[..., -1])
    before = jnp.pad(until[..., :-1], [*batch, (1, 0)])
    return (inside + before[..., None]).reshape(rows.shape)[..., :length]


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
    """Returns a model's recurrence, and where texts stand before their first character.

    One program, as every call to the device costs a short text dear. The first character must be
    a given one.

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


@functools.cache
def _compiled_for(platform: str) -> Callable[..., tuple[Cursor, Int[Array, "C N"]]]:
    """Returns `write_chunk` as one program, compiled as is best for a platform."""
    static, options = ("graph", "strategy", "stateful", "mesh"), COMPILER_OPTIONS.get(platform)
    return jax.jit(write_chunk, static_argnames=static, compiler_options=options)


def stream_ids(
    graph: nnx.GraphDef[GRULanguageModel],
    params: nnx.State,
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
        graph: the model's structure.
        params: its parameters.
        prompt: ids to begin with, at least one each.
        uniforms: numbers in [0, 1) that decide the draws, one for each new character.
        strategy: how a character is picked.
        stateful: whether the network reads the whole prompt and carries its state on. If not,
            it sees only the newest character, from a zero state, at every step: the sampler of
            the Shakespeare notebook, which makes a bigram model of the network.
        chunk: most characters, of prompt and text together, that the device is given at once.

    Yields:
        New ids, S in all.
    """
    read = np.asarray(prompt if stateful else prompt[:, -1:], np.int32).T
    drawn = np.asarray(uniforms)
    given = np.concatenate([read, np.full(drawn.shape, DRAWN, np.int32)])
    drawn = np.concatenate([np.zeros(read.shape, drawn.dtype), drawn])
    place = Placement.of_texts(hidden_dim(params), len(prompt))
    params, mesh = place.bring(params), place.mesh_of_several
    write = _compiled_for(jax.default_backend())
    stepper, cursor = begin(graph, params, len(prompt), mesh)
    ahead = None
    try:
        for first in range(0, len(given), chunk):
            parts = [_fill_up(array[first : first + chunk], chunk) for array in (given, drawn)]
            count = np.int32(min(chunk, len(given) - first))
            now = cursor, *parts, count
            cursor, ids = write(graph, params, stepper, *now, strategy, stateful, mesh)
            if ahead is not None:
                yield ahead.read()
            ahead = _Ahead(ids, max(len(read) - first, 0), int(count))
        if ahead is not None:
            yield ahead.read()
    finally:
        jax.block_until_ready(cursor)  # Python must not end while the device computes.


class _Ahead(NamedTuple):
    """A chunk that the device may still be at, and which of its characters are a text's."""

    ids: Int[Array, "C N"]
    begin: int
    end: int

    def read(self) -> Int[np.ndarray, "N C"]:
        return np.asarray(self.ids)[self.begin : self.end].T


def _fill_up(rows: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((length - len(rows), *rows.shape[1:]), rows.dtype)])


def continue_ids(
    graph: nnx.GraphDef[GRULanguageModel],
    params: nnx.State,
    prompt: Int[Array | np.ndarray, "N P"],
    uniforms: Float[Array | np.ndarray, "S N"],
    strategy: Strategy,
    stateful: bool,
) -> Int[np.ndarray, "N S"]:
    """Returns what `stream_ids` yields, in one piece."""
    chunks = stream_ids(graph, params, prompt, uniforms, strategy, stateful)
    return np.concatenate(list(chunks), axis=1)


def sample_key(seed: int) -> Key[Array, ""]:
    """Returns the key that decides the draws of a seed.

    Raises:
        InputError: the seed is not in [0, 2**32).
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be at least 0 and below 2**32, got {seed}")
    return jax.random.key(seed)


def draw_uniforms(key: Key[Array, ""], length: int, num: int) -> Float[np.ndarray, "S N"]:
    """Returns the numbers in [0, 1) that decide the draws of N texts of `length` characters.

    The length is rounded up to a power of two, so that most texts find a program that is compiled:
    to compile one takes longer than to write a text with Astra-α. A longer text's draws begin
    with a shorter one's.
    """
    rounded = 1 << (length - 1).bit_length()
    return np.asarray(_draw(key, rounded, num))[:length]


@functools.partial(jax.jit, static_argnames=("length", "num"))
def _draw(key: Key[Array, ""], length: int, num: int) -> Float[Array, "S N"]:
    return jax.random.uniform(key, (length, num), jnp.float32)


def generate(
    model: GRULanguageModel,
    vocabulary: Vocabulary,
    prompt: str,
    strategy: Strategy,
    key: Key[Array, ""],
    *,
    num: int = 1,
    length: int | None = None,
    stateful: bool = True,
) -> list[str]:
    """Returns texts that begin with the prompt: what `stream` yields, in one piece each."""
    pieces = stream(
        model, vocabulary, prompt, strategy, key, num=num, length=length, stateful=stateful
    )
    return ["".join(text) for text in zip(*pieces, strict=True)]


def stream(
    model: GRULanguageModel,
    vocabulary: Vocabulary,
    prompt: str,
    strategy: Strategy,
    key: Key[Array, ""],
    *,
    num: int = 1,
    length: int | None = None,
    stateful: bool = True,
    chunk: int = CHUNK,
) -> Generator[list[str], None, None]:
    """Writes texts that begin with the prompt, piece by piece.

    A start token is left out wherever a model draws one. It has no letter, and who has been
    trained for more than some steps does not draw it. It is not kept from being drawn, which
    would give the other characters more than their share: the notebook does not do so either.

    Args:
        model: what predicts.
        vocabulary: its characters. One with a start token begins every text with it, unseen;
            one with an end token ends a text there.
        prompt: what to begin with; may be empty only if there is a start token.
        strategy: how a character is picked.
        key: decides the draws. A longer text begins with the shorter one.
        num: number of texts.
        length: most new characters of each; None is 20 for words and 200 for running text.
        stateful: see `stream_ids`.
        chunk: see `stream_ids`.

    Yields:
        The next piece of each text, the prompt at first.

    Raises:
        InputError: the prompt is empty or has a character that is not in the vocabulary, a
            number is not positive, or top-k is larger than the vocabulary.
    """
    ids = _prompt_ids(vocabulary, prompt)
    if length is None:
        length = TEXT_LENGTH if vocabulary.end_id is None else WORD_LENGTH
    for name, value in {"num": num, "length": length}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if isinstance(strategy, TopK) and strategy.k > len(vocabulary):
        raise InputError(
            f"top-k must be at most {len(vocabulary)}, the size of the vocabulary, got {strategy.k}"
        )
    prompts = np.tile(np.asarray(ids, np.int32), (num, 1))
    uniforms = draw_uniforms(key, length, num)
    chunks = stream_ids(*nnx.split(model), prompts, uniforms, strategy, stateful, chunk)
    yield [prompt] * num
    yield from _until_all_end(chunks, vocabulary, num)


def _until_all_end(
    chunks: Iterator[Int[np.ndarray, "N C"]], vocabulary: Vocabulary, num: int
) -> Iterator[list[str]]:
    """Turns ids into pieces of texts, until the last of the texts has met its end token."""
    ended = np.zeros(num, bool)
    decoders = [vocabulary.decoder() for _ in range(num)]
    for chunk in chunks:
        ends = np.cumsum(chunk == vocabulary.end_id, axis=1) > 0
        shown = ~(ended[:, None] | ends) & (chunk != vocabulary.start_id)
        new = zip(decoders, chunk, shown, strict=True)
        yield [decode(row[seen]) for decode, row, seen in new]
        ended |= ends[:, -1:].any(axis=1)
        if ended.all():
            break
    rest = [decode(np.zeros(0, np.int32), final=True) for decode in decoders]
    if any(rest):  # Bytes of a character that was not finished.
        yield rest


def _prompt_ids(vocabulary: Vocabulary, prompt: str) -> list[int]:
    ids = [int(i) for i in vocabulary.encode(prompt)]
    if vocabulary.end_id in ids:
        raise InputError(f"the prompt {prompt!r} contains the end token: remove it")
    if vocabulary.start_id is not None:
        ids.insert(0, vocabulary.start_id)
    if not ids:
        raise InputError("the prompt is empty: give at least one character")
    return ids
