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

    @property
    def project_first(self) -> bool:
        """Whether projecting the table and looking up its rows costs less than the reverse.

        Looked up, an input costs V multiplications for each of the 3 H numbers that it becomes, in
        the gradient; projected where it stands it costs E, three times.
        """
        return project_first(*self.table.shape)

    def dense(self) -> Float[Array, "T B E"]:
        """Returns the inputs as one array."""
        return self.table[self.ids]


def project_first(vocab_size: int, embedding_dim: int) -> bool:
    """See `Embedded.project_first`."""
    return vocab_size < 3 * embedding_dim


Inputs = Float[Array, "T B E"] | Embedded


def dense(inputs: Inputs) -> Float[Array, "T B E"]:
    """Returns inputs of either kind as one array."""
    return inputs.dense() if isinstance(inputs, Embedded) else inputs
