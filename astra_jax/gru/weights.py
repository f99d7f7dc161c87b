"""The trained arrays of one GRU layer."""

from typing import NamedTuple

from jaxtyping import Array, Float


class GRUWeights(NamedTuple):
    """One layer's parameters, stacked by gate in the order r, z, n.

    The gate axis comes first, so that taking a gate apart is free and the element-wise
    arithmetic of a step runs over contiguous arrays.

    Attributes:
        kernel_ih: input projections Wrx, Wzx, Wx, each `[E, H]` (the transpose of torch's).
        kernel_hh: recurrent projections Wrh, Wzh, Wh.
        bias_ih: biases of the input projections.
        bias_hh: the second additive bias that r and z have; n has none.
    """

    kernel_ih: Float[Array, "3 E H"]
    kernel_hh: Float[Array, "3 H H"]
    bias_ih: Float[Array, "3 H"]
    bias_hh: Float[Array, "2 H"]
