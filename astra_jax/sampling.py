"""Generating text: how a character is picked, and how the model is fed."""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Key

from astra_jax.errors import InputError
from astra_jax.model import GRULanguageModel
from astra_jax.vocabulary import Vocabulary

WORD_LENGTH, TEXT_LENGTH = 20, 200
"""New characters by default: the longest word of the names study, the text of the other."""

COLDEST = 1e-30
"""Lower temperatures are taken as this: float32 has no reciprocal of them, and none is greedier."""


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
        cumulated = jnp.cumsum(jax.nn.softmax(below / temperature), axis=-1)
        # Rounding can leave the last sum below 1; scaled by it, a draw never runs past the end.
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


@functools.partial(jax.jit, static_argnames=("graph", "strategy", "stateful"))
def continue_ids(
    graph: nnx.GraphDef[GRULanguageModel],
    params: nnx.State,
    prompt: Int[Array, "N P"],
    uniforms: Float[Array, "S N"],
    strategy: Strategy,
    stateful: bool,
) -> Int[Array, "N S"]:
    """Continues N prompts by as many characters as there are uniform numbers for each.

    Args:
        graph: the model's structure.
        params: its parameters.
        prompt: ids to begin with, at least one each.
        uniforms: numbers in [0, 1) that decide the draws.
        strategy: how a character is picked.
        stateful: whether the network reads the whole prompt and carries its state on. If not,
            it sees only the newest character, from a zero state, at every step: the sampler of
            the Shakespeare notebook, which makes a bigram model of the network.
    """
    model = nnx.merge(graph, params)

    def step(carry, uniforms):
        logits, state = carry
        ids = strategy.pick(logits, uniforms)
        return read(ids[:, None], state), ids

    def read(ids, state):
        logits, last = model(ids, state)
        return logits[:, -1], last if stateful else state

    start = model.initial_state(prompt.shape[0])
    _, ids = lax.scan(step, read(prompt if stateful else prompt[:, -1:], start), uniforms)
    return ids.T


def sample_key(seed: int) -> Key[Array, ""]:
    """Returns the key that decides the draws of a seed.

    Raises:
        InputError: the seed is not in [0, 2**32).
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be at least 0 and below 2**32, got {seed}")
    return jax.random.key(seed)


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
    """Returns texts that begin with the prompt.

    Args:
        model: what predicts.
        vocabulary: its characters. One with a start token begins every text with it, unseen;
            one with an end token ends a text there.
        prompt: what to begin with; may be empty only if there is a start token.
        strategy: how a character is picked.
        key: decides the draws.
        num: number of texts.
        length: most new characters of each; None is 20 for words and 200 for running text.
        stateful: see `continue_ids`.

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
    graph, params = nnx.split(model)
    prompts = jnp.tile(jnp.asarray(ids, jnp.int32)[None], (num, 1))
    uniforms = jax.random.uniform(key, (length, num), jnp.float32)
    new = np.asarray(continue_ids(graph, params, prompts, uniforms, strategy, stateful))
    return [prompt + vocabulary.decode(_until_end(row, vocabulary.end_id)) for row in new]


def _prompt_ids(vocabulary: Vocabulary, prompt: str) -> list[int]:
    ids = [int(i) for i in vocabulary.encode(prompt)]
    if vocabulary.end_id in ids:
        raise InputError(f"the prompt {prompt!r} contains the end token: remove it")
    if vocabulary.start_id is not None:
        ids.insert(0, vocabulary.start_id)
    if not ids:
        raise InputError("the prompt is empty: give at least one character")
    return ids


def _until_end(ids: Int[np.ndarray, " S"], end_id: int | None) -> Int[np.ndarray, " E"]:
    ends = np.flatnonzero(ids == -1 if end_id is None else ids == end_id)
    return ids[: ends[0]] if ends.size else ids
