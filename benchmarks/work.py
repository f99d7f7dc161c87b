"""What a model has to compute, counted from its shape: products, operations, bytes."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from astra_jax.config import ModelConfig


class Matmul(NamedTuple):
    """One shape of matrix product, `[rows, inner] @ [inner, columns]`."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * self.rows * self.inner * self.columns


@dataclass(frozen=True, kw_only=True)
class Work:
    """A pass over one batch.

    Attributes:
        model: its shape.
        batch_size: B.
        seq_len: T.
        training: forward and backward pass, or the forward one alone.
    """

    model: ModelConfig
    batch_size: int
    seq_len: int
    training: bool

    @property
    def characters(self) -> int:
        """Characters that are read."""
        return self.batch_size * self.seq_len

    @property
    def flops(self) -> int:
        """Operations of all matrix products, as the equations have them.

        Forward, a character takes `2 * 3 * H * (I + H)` in each layer, whose inputs are I = E
        wide in the first and I = H in the others, and `2 * H * V` in the head. Backward, each
        product becomes two of its size: one for the gradient of its left side, one for that of
        its right. Element-wise arithmetic, the loss and the update are not counted: they are
        less than one in a hundred for H = 128, and fewer for wider states.
        """
        return sum(product.flops * count for product, count in self.equations().items())

    def equations(self) -> Counter[Matmul]:
        """Returns the products of the equations, each with how often it is taken."""
        return self._products(self.characters)

    def least(self) -> Counter[Matmul]:
        """Returns the fewest products that are known to do, each with how often it is taken.

        The first layer's inputs are rows of a table: where the table has fewer rows than the
        batch has characters, it is the table that is projected. What has no recurrence in it is
        one product for all characters of the batch.
        """
        return self._products(min(self.model.vocab_size, self.characters))

    def _products(self, embedded_rows: int) -> Counter[Matmul]:
        model, products = self.model, Counter[Matmul]()
        rows, width = embedded_rows, model.embedding_dim
        for _ in range(model.num_layers):
            self._add(products, Matmul(rows, width, model.hidden_dim), 3)
            self._add_recurrent(products)
            rows, width = self.characters, model.hidden_dim
        self._add(products, Matmul(rows, width, model.vocab_size), 1)
        return products

    def _add(self, products: Counter[Matmul], product: Matmul, count: int) -> None:
        """Adds products that take all rows at once, forward and, in training, backward."""
        rows, inner, columns = product
        products[product] += count
        if self.training:
            products[Matmul(rows, columns, inner)] += count
            products[Matmul(inner, rows, columns)] += count

    def _add_recurrent(self, products: Counter[Matmul]) -> None:
        """Adds three products a character, and their weights' gradients all at once."""
        hidden = self.model.hidden_dim
        directions = 2 if self.training else 1
        products[Matmul(self.batch_size, hidden, hidden)] += 3 * self.seq_len * directions
        if self.training:
            products[Matmul(hidden, self.characters, hidden)] += 3


def bytes_read_per_character(model: ModelConfig, bytes_a_weight: int = 4) -> int:
    """Returns the bytes of weights that one more character of one text needs.

    The first layer's input projections are a precomputed table, of which one row is read, as long
    as that layer's three input biases. Two of a layer's five biases are added to others beforehand.
    """
    width, hidden = model.embedding_dim, model.hidden_dim
    embedded = model.vocab_size * width + 3 * width * hidden
    summed = 2 * hidden * model.num_layers
    return bytes_a_weight * (model.num_parameters - embedded - summed)


def products_of_a_character(model: ModelConfig, num_texts: int) -> Counter[Matmul]:
    """Returns the fewest products that one more character of so many texts needs.

    What characters contribute to the first layer is looked up. What reads the same numbers is one
    product: of two gates in the recurrence, of three in what comes from the layer below.
    """
    hidden, layers = model.hidden_dim, model.num_layers
    times = [(2 * hidden, layers), (hidden, layers), (3 * hidden, layers - 1)]
    products = Counter({Matmul(num_texts, hidden, model.vocab_size): 1})
    for columns, count in times:
        products += Counter({Matmul(num_texts, hidden, columns): count})
    return products
