"""Every bound that parity is held to, and where it comes from.

A difference of two tensors is measured relative to the reference in one of two norms: the largest
absolute value, or the root mean square. The largest is the stricter and serves wherever it is
well conditioned. It is not for float32 parameters that Adam has updated: where a gradient's true
value is near zero, its rounding decides the sign of a step of full length, so the largest error
is that of a few unlucky elements and scatters by orders of magnitude between two correct
computations, while the root mean square over the tensor does not.
"""

import statistics

FLOAT64 = 1e-12
"""Both frameworks in float64: rounding of 1.1e-16 an operation, through sums of some 10^3 terms
and as many steps in a row, stays below it; float32 anywhere on the way (6e-8) does not."""

FLOAT32_EPSILON = 2.0**-23
"""One unit in the last place of a float32, relative: no float32 result is better than that."""

FLOAT32_FACTOR = 4.0
"""How much farther from the float64 oracle than PyTorch's float32 result JAX's may be.

Two float32 computations of one quantity in different orders of summation err independently by
about the same amount; each tensor's own amount is measured, not guessed. The largest of many
errors scatters, and 4 leaves room for that scatter alone: a term dropped, doubled or computed in
a lower precision errs by orders of magnitude more."""


def float32_bounds(reference_errors: dict[str, float]) -> dict[str, float]:
    """Returns how far each float32 result may be from the float64 oracle.

    A tensor of few elements can be near the oracle by luck. All quantities of a case come out of
    one chain of roundings, so none is expected to be nearer to it than their median is.

    Args:
        reference_errors: how far PyTorch's float32 results of the same quantities are from it.
    """
    typical = max(statistics.median(reference_errors.values()), FLOAT32_EPSILON)
    return {name: FLOAT32_FACTOR * max(error, typical) for name, error in reference_errors.items()}
