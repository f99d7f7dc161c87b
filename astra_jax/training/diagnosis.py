"""What a training that diverged broke on: the first tensor, and on demand the operation."""

import traceback
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from astra_jax.data.datasets import Batch
from astra_jax.errors import first_line
from astra_jax.training.trainer import Trainer

PACKAGE = Path(__file__).parents[1]


def first_offender(
    trainer: Trainer, params: nnx.State, batch: Batch, keep: Bool[Array, "L T B H"] | None
) -> str:
    """Returns which tensor of a step is, in the order of computation, the first to break, and how.

    Args:
        trainer: of the model.
        params: before the step.
        batch: of the step.
        keep: of the step.
    """
    for name, values in _tensors(trainer, params, batch, keep):
        finite = jnp.isfinite(values)
        if not finite.all():
            count = int(values.size - finite.sum())
            kind = "NaN" if jnp.isnan(values).any() else "infinite"
            return f"{count:,} of {values.size:,} values of the {name} are not finite ({kind})"
    return "the norm of the gradient is not finite, though every single gradient is"


def _tensors(
    trainer: Trainer, params: nnx.State, batch: Batch, keep: Bool[Array, "L T B H"] | None
) -> Iterator[tuple[str, Array]]:
    yield from _named("parameter", params)
    model = nnx.merge(trainer.graph, params)
    for index, hidden in enumerate(model.hidden_states(batch.inputs, batch.h_0, keep)[0]):
        yield f"hidden states of layer {index}", hidden
    yield "logits", model(batch.inputs, batch.h_0, keep)[0]
    loss, grads, _ = trainer.loss_and_gradients(params, batch, keep)
    yield "loss", loss
    yield from _named("gradient of", grads)


def _named(what: str, tree: nnx.State) -> Iterator[tuple[str, Array]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(tree))[0]:
        yield f"{what} {jax.tree_util.keystr(path, simple=True, separator='.')}", leaf


def find_operation(
    trainer: Trainer, params: nnx.State, batch: Batch, keep: Bool[Array, "L T B H"] | None
) -> str:
    """Returns which operation first made a value that is not finite, and the line it stands on.

    Runs the step once more, one operation after the other: slow, and only once.
    """
    with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(True):
        try:
            jax.block_until_ready(trainer.loss_and_gradients(params, batch, keep))
        except FloatingPointError as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [
                frame for frame in frames if Path(frame.filename).parent.is_relative_to(PACKAGE)
            ]
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} `{ours[-1].line}`"
            return f"{first_line(error)} at {place}"
    return "no single operation: it comes about in the compiled program only"
