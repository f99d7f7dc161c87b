"""What the precision of matrix products does on a device that has several."""

import math
from collections.abc import Sequence

import jax

from astra_torch.parity.cases import Case
from astra_torch.parity.comparison import compare
from astra_torch.parity.jax_side import JaxSide
from astra_torch.parity.quantities import Name
from astra_torch.parity.torch_side import TorchSide

PRECISIONS = ("highest", "default", "tensorfloat32")


def describe_precision(case: Case) -> str:
    """Says at which precision JAX was held to PyTorch, and what others would have cost."""
    platform = jax.default_backend()
    if platform == "cpu":
        return "JAX computed on the CPU, whose float32 products are float32: TF32 plays no part"
    errors = logits_errors(case, PRECISIONS)
    costs = ", ".join(
        f"{name} {error:.1e} ({error / errors['highest']:.3g} times)"
        for name, error in errors.items()
    )
    return (
        f"JAX computed on {platform} with products of the highest precision; float32 logits' "
        f"distance to float64 by precision: {costs}"
    )


def logits_errors(case: Case, precisions: Sequence[str]) -> dict[str, float]:
    """Returns the relative distance of JAX's float32 logits to the float64 oracle."""
    logits = Name("logits")
    inputs = case.draw(0)._replace(keep=None)
    oracle = {logits: TorchSide(case, "float64").logits(inputs)[logits]}
    errors = {}
    for precision in precisions:
        ours = {logits: JaxSide(case, "float32", precision).logits(inputs)[logits]}
        errors[precision] = compare(ours, oracle, {logits: math.inf})[0].relative
    return errors
