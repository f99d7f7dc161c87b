"""What a stack of layers reads: arrays, or rows of a table that are yet to be looked up."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Embedded(NamedTuple):
    """Inputs that are rows of a table.

    A backend may do its arithmetic on the rows of the table, of which there are few, before it
    looks them up for every place of the text, of which there are many.

    Attributes:
        table: the embeddings.
        ids: which row stands where, time first.
    """

    table: Float[Array, "V E"]
    ids: Int[Array, "T B"]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the inputs have as one array, [T, B, E]."""
        return (*self.ids.shape, self.table.shape[1])

    @property
    def dtype(self) -> jnp.dtype:
        """The type that the inputs have as one array."""
        return self.table.dtype


def project_first(vocab_size: int, embedding_dim: int) -> bool:
    """Returns whether projecting a table and looking up its rows costs less than the reverse.

    Each of the 3 H numbers that an input becomes costs V multiplications if looked up (the
    gradient's one-hot product), and 3 E if projected in place: E forward, 2 E backward.
    """
    return vocab_size < 3 * embedding_dim


Inputs = Float[Array, "T B E"] | Embedded


def dense(inputs: Inputs) -> Float[Array, "T B E"]:
    """Returns inputs of either kind as one array."""
    return inputs.table[inputs.ids] if isinstance(inputs, Embedded) else inputs
