"""Both frameworks on the same numbers, and what differs and by how much, as values.

A `Case` gives both sides the same weights, batches and dropout masks. `JaxSide` and `TorchSide`
compute the same named quantities from it, `check` holds one against the other in float64, and
both against PyTorch's float64 in float32, step by step, and returns a `ParityReport` of each type.
Nothing here asserts: scripts print a report, tests assert
on it, `Certificate` carries it to a file.
"""

from astra_torch.parity.cases import Case, StepInputs, random_case, training_case
from astra_torch.parity.checks import check
from astra_torch.parity.comparison import Comparison, ParityReport, compare
from astra_torch.parity.jax_side import JaxSide
from astra_torch.parity.quantities import LEVELS, Level, Name, ParityDtype, Results
from astra_torch.parity.torch_side import TorchSide

__all__ = [
    "LEVELS",
    "Case",
    "Comparison",
    "JaxSide",
    "Level",
    "Name",
    "ParityDtype",
    "ParityReport",
    "Results",
    "StepInputs",
    "TorchSide",
    "check",
    "compare",
    "random_case",
    "training_case",
]
