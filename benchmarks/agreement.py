"""Whoever claims to compute what we compute is held to it before it is timed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from astra_torch.weights import Arrays
from benchmarks.setting import Precision

BOUNDS: Mapping[Precision, tuple[float, float]] = {
    "highest": (1e-5, 1e-3),
    "tf32": (4e-5, 8e-3),
    "bf16": (3e-4, 6e-2),
}
"""How far a loss, and a gradient, may be from ours, by the precision of the products.

Relative to the loss, and to the largest value of a tensor. They are to tell one function from
another, not to certify (`scripts/validate.py` does that). In float32 two computations of these
gradients were measured to differ by some 1e-6; in bfloat16, over all records, losses by up to 2e-5
and gradients by up to 3e-2; TF32 has three bits more, so an eighth of it is allowed.
`test_benchmarks.py` puts faults into a contender that the bounds must find in float32 and bfloat16.
"""


class DisagreementError(AssertionError):
    """A contender does not compute what it says that it computes."""


@dataclass(frozen=True)
class Agreement:
    """How far a contender is from ours.

    Attributes:
        loss: relative difference, the largest of all batches that were looked at.
        gradient: that of the worst tensor; None where the contender has no gradients.
    """

    loss: float
    gradient: float | None = None


def hold_losses(name: str, ours: np.ndarray, theirs: np.ndarray, precision: Precision) -> Agreement:
    """Holds the mean losses of batches to ours.

    Raises:
        DisagreementError: one is out of bound.
    """
    loss = _relative(theirs, ours)
    _require(name, "loss", loss, BOUNDS[precision][0])
    return Agreement(loss)


def hold_gradients(
    name: str,
    ours: tuple[float, Arrays],
    theirs: tuple[float, Arrays],
    precision: Precision,
) -> Agreement:
    """Holds a batch's loss and gradients, tensor by tensor, to ours.

    Raises:
        DisagreementError: one is out of bound, or missing.
    """
    agreement = hold_losses(name, np.array([ours[0]]), np.array([theirs[0]]), precision)
    if ours[1].keys() != theirs[1].keys():
        missing = sorted(ours[1].keys() ^ theirs[1].keys())
        raise DisagreementError(f"{name} and ours do not have the same gradients: {missing}")
    worst, tensor = max((_relative(theirs[1][key], ours[1][key]), key) for key in ours[1])
    _require(name, f"gradient of {tensor}", worst, BOUNDS[precision][1])
    return Agreement(agreement.loss, worst)


SAME_SHARE = 0.7
"""How many of the most likely ids that continue prompts must be ours' own.

Where two are equally likely but for rounding, texts part for good. In float32 all ids of 256 texts
were measured to agree, in bfloat16 0.86 to 0.96 of them; of texts with their prompts mixed up 0.17.
"""


def require_same_texts(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Holds the most likely ids that continue prompts, `[N, S]`, to ours.

    Raises:
        DisagreementError: too many are others, see `SAME_SHARE`.
    """
    share = float((ours == theirs).mean())
    if share < SAME_SHARE:
        raise DisagreementError(
            f"{name} does not write what ours does: {share:.0%} of its most likely characters are "
            f"the same, at least {SAME_SHARE:.0%} should be"
        )


def _relative(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Returns max|theirs - ours| / max|ours|, 0 where they are equal; infinite if not finite."""
    difference, scale = np.abs(theirs - ours).max(), np.abs(ours).max()
    if difference == 0:  # As all gradients of the reset gate are, of a single step from zeros.
        return 0.0
    relative = difference / scale if scale else np.inf
    return float(relative) if np.isfinite(relative) else float("inf")


def _require(name: str, what: str, difference: float, bound: float) -> None:
    if difference > bound:
        raise DisagreementError(
            f"{name} does not compute what ours does: its {what} is {difference:.1e} away, "
            f"at most {bound:.0e} can be rounding"
        )
