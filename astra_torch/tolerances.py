"""Every bound that parity is held to, and where it comes from.

A difference of two tensors is measured relative to the reference in one of two norms: the largest
absolute value, or the root mean square. The largest is the stricter and serves wherever it is
well conditioned. It is not for parameters that Adam has updated: Adam's first step turns a
gradient g into g / (|g| + eps), so where |g| is below its epsilon of 1e-8 the step multiplies the
rounding of that gradient, and in float32 decides by it the sign of a step of full length. The
largest error is that of a few unlucky elements and scatters by orders of magnitude between two
correct computations, while the root mean square over the tensor does not. Certificates give the
largest as well.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from astra_jax.optimizers import BETA_1, EPSILON

Norm = Literal["largest", "root mean square"]
"""How a tensor's difference is measured."""

ROOT_MEAN_SQUARE: Mapping[str, tuple[str, ...]] = {
    "float64": ("parameter",),
    "float32": ("first moment", "second moment", "parameter"),
}
"""What of a training is measured by the root mean square, in each type. In float64 that is only
what has gone through Adam's division; the moments that it divides are held by the largest value.
In float32 the moments of the next step already come from parameters that have scattered."""


def norms(dtype: str, level: str) -> Mapping[str, Norm]:
    """Returns the norm of each quantity that is not measured by its largest value."""
    quantities = ROOT_MEAN_SQUARE[dtype] if level == "training" else ()
    return dict.fromkeys(quantities, "root mean square")


FLOAT64 = 1e-12
"""Both frameworks in float64: rounding of 1.1e-16 an operation, through sums of some 10^3 terms
and as many steps in a row, stays below it; float32 anywhere on the way (6e-8) does not."""

EXACT = ("weights",)
"""Quantities that are moved and not computed: they must be equal to the bit."""


def bound_float64(quantity: str) -> float:
    """Returns how far the two frameworks may be apart in float64."""
    return 0.0 if quantity in EXACT else FLOAT64


FLOAT32_EPSILON = 2.0**-23
"""One unit in the last place of a float32, relative: no float32 result is better than that."""

FLOAT32_FACTOR = 4.0
"""How much farther from the float64 oracle than PyTorch's float32 results JAX's may be.

Two float32 computations of one quantity in different orders of summation err independently by
about the same amount; that amount is measured, not guessed. The largest of many errors scatters,
and 4 leaves room for that scatter alone: a term dropped or doubled errs by orders of magnitude
more, a constant rounded too early by about ten times as much (Adam's bias correction as optax has
it)."""


def float32_bound(worst: float, errors: Iterable[float]) -> float:
    """Returns how far float32 results of one quantity may be from the float64 oracle.

    The error of one tensor at one step is one draw: compared with one other draw it would be out
    of any small factor every so often. So the tensors of a quantity (all gradients, say), and the
    steps of a training up to the one that is looked at, are held to the worst error that PyTorch
    makes among them. A single number, like a norm, can be near the oracle by luck. All
    quantities of a step come out of one chain of roundings, so none is expected to be nearer to
    the oracle than half of them are.

    Args:
        worst: how far PyTorch's float32 results of the quantity are from the oracle, at most.
        errors: how far its results of all quantities of the step are.
    """
    typical = max(statistics.median(errors), FLOAT32_EPSILON)
    return FLOAT32_FACTOR * max(worst, typical)


def adam_scatter(
    first_moment: np.ndarray, error: float, parameter: np.ndarray, learning_rate: float
) -> float:
    """Returns how far Adam's first step scatters a parameter, from how far its gradient scatters.

    The step is `learning_rate * g / (|g| + eps)`, whose slope is `eps / (|g| + eps)**2`: the same
    rounding of a gradient moves the parameter the more, the nearer the gradient is to eps. Where
    PyTorch's one draw of that rounding happens to be small, its parameter says too little of what
    a correct computation may do; so the typical rounding, that of the whole tensor, is taken
    through the slope of every element. A bias that begins at zero is nothing but this step.

    Args:
        first_moment: after one step, by the oracle: a tenth of the gradient.
        error: of PyTorch's float32 first moment, relative, in the root mean square.
        parameter: after the step, by the oracle.
        learning_rate: of the step.

    Returns:
        The root mean square of the scatter, relative to that of the parameter.
    """
    gradient = first_moment / (1 - BETA_1)
    rounding = error * math.sqrt(np.mean(gradient**2))
    # What is zero in every order of summation, as in rows that no text uses, does not scatter.
    slope = np.where(gradient == 0, 0.0, EPSILON / (np.abs(gradient) + EPSILON) ** 2)
    scatter = learning_rate * rounding * math.sqrt(np.mean(slope**2))
    return scatter / math.sqrt(np.mean(parameter**2))


def float32_rate_bound(rate: float, first_rate: float) -> float:
    """Returns how far, relative to itself, a learning rate in float32 may be from the oracle's.

    PyTorch computes rates as Python numbers, so its error is none and cannot serve as a measure.
    The cosine's `1 + cos` cancels towards the end: rounding is relative to the first rate.
    """
    return FLOAT32_FACTOR * FLOAT32_EPSILON * first_rate / rate
