"""Single faults, each of which the comparisons must find.

Most are a change of one expression in the source of one function of the product, so that what
is broken is the product's own code; the product knows nothing of them. A fault says at which
level it must show first.
"""

import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from astra_jax import losses, model, optimizers
from astra_jax.data import datasets
from astra_jax.gru import cell, fused, projection, step
from astra_jax.gru.layerwise import layerwise
from astra_jax.gru.loop import over_time_in_place
from astra_jax.sampling import draws, sampler, strategies
from astra_jax.training import trainer
from astra_torch import onnx_models, weights

Patch = pytest.MonkeyPatch
Inject = Callable[[Patch], None]

Study = Literal["astra", "names"]
FaultLevel = Literal["logits", "gradients", "training", "onnx", "texts"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: what is wrong.
        level: the first at which it must be found, in float64 but for `onnx`.
        study: whose models it concerns.
        inject: puts it in.
        in_data: whether it is in what makes the batches, which must then be made anew.
    """

    name: str
    level: FaultLevel
    study: Study
    inject: Inject
    in_data: bool = False


def change(function: Any, old: str, new: str, **more: Any) -> Inject:
    """Returns what replaces an expression in a function's source.

    Args:
        function: of the product. Its code is exchanged in place, so that all who have imported
            it get the changed one.
        old: what stands there, exactly once.
        new: what is to stand there.
        more: names that the new expression needs.
    """
    plain = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(plain))
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {plain}"

    def inject(patch: Patch) -> None:
        namespace = {**plain.__globals__}
        exec(compile(source.replace(old, new), "<fault>", "exec"), namespace)
        changed: Any = namespace[plain.__name__]
        changed = inspect.unwrap(getattr(changed, "fget", changed))
        patch.setattr(plain, "__code__", changed.__code__)
        for name, value in more.items():
            patch.setitem(plain.__globals__, name, value)

    return inject


def change_table(entry: Callable[[weights.Entry], weights.Entry]) -> Inject:
    """Returns what changes the converter's table, for reading and for writing alike.

    A round trip is still exact to the bit: only what is computed from the weights can tell.
    """
    right = weights.entries

    def inject(patch: Patch) -> None:
        patch.setattr(weights, "entries", lambda layout: map(entry, right(layout)))

    return inject


def change_constant(module: Any, name: str, value: Any) -> Inject:
    """Returns what gives a constant of a module another value."""
    return lambda patch: patch.setattr(module, name, value)


def _transpose_square(entry: weights.Entry) -> weights.Entry:
    return entry._replace(transposed=False) if entry.shape == "HH" else entry


def _swap_gates(entry: weights.Entry) -> weights.Entry:
    return entry if entry.gate in (None, 2) else entry._replace(gate=1 - entry.gate)


def _swap_second_biases(entry: weights.Entry) -> weights.Entry:
    return _swap_gates(entry) if entry.path[-1] == "bias_hh" else entry


def _swap_layers(entry: weights.Entry) -> weights.Entry:
    part, *rest = entry.path
    if part != "layers" or rest[0] == 0:  # The first layer is of another width.
        return entry
    return entry._replace(path=(part, 2 if rest[0] == 1 else 1, *rest[1:]))


def _merge_biases(tree: dict[str, Any]) -> dict[str, Any]:
    for layer in tree["layers"].values():
        layer["bias_ih"][:2] += layer["bias_hh"]  # r and z, which have two.
        layer["bias_hh"][:] = 0
    return tree


_ADAM = "scale_by_adam(), *decay"
_NOT_BIASES = (
    "optax.add_decayed_weights(config.weight_decay, mask=lambda params: "
    "jax.tree_util.tree_map_with_path(lambda path, _: 'bias' not in str(path), params))"
)
_TENSOR_NORM = "max_norm / (jnp.sqrt(jnp.sum(g * g)) + TORCH_CLIP_EPSILON)"
_biases, _step, _backward_pass = projection.summed_biases, fused._step, fused._backward
_states, _logits = model.GRULanguageModel.hidden_states, model.GRULanguageModel.logits
_DROP, _DROP_GRAD = "drop(h, keep_t, dropout)", "drop(grad + grad_t, keep_t, dropout)"

RECURRENCE = {
    "z complemented": change(cell.gru_cell, "(1 - z) * h + z * n", "z * h + (1 - z) * n"),
    "reset after the product": change(cell.gru_cell, "through_n(r * h", "r * through_n(h"),
    "candidate reset by z": change(cell.gru_cell, "through_n(r * h", "through_n(z * h"),
    "second bias of r dropped": change(_biases, "bias_r + weights.bias_hh[0]", "bias_r"),
    "second bias of z dropped": change(_biases, "bias_z + weights.bias_hh[1]", "bias_z"),
    "bias of the candidate dropped": change(
        _biases, "weights.bias_hh[1], bias_n", "weights.bias_hh[1], 0 * bias_n"
    ),
    "dropout missing": change(_step, _DROP, "h"),
    "dropout not scaled": change(_step, _DROP, "drop(h, keep_t, 0.0)"),
    "dropout scaled by its own rate": change(_step, _DROP, "drop(h, keep_t, 1 - dropout)"),
    "dropout inverted": change(cell.drop, "where(keep", "where(~keep"),
    "dropout not carried": change(_step, f"h = {_DROP}", f"return h, gates, {_DROP}"),
    "time reversed": change(fused._recur, "(projected, keep))", "(projected, keep), reverse=True)"),
    "states rounded to float32": change(
        _step,
        "return h, gates, h",
        "return (h := h.astype(jnp.float32).astype(h.dtype)), gates, h",
    ),
    "products of bfloat16": change(
        projection.dot, "values.astype(dtype)", "values.astype(jnp.bfloat16).astype(dtype)"
    ),
    "first state not zero": change(
        model.GRULanguageModel.initial_state, "jnp.zeros(", "1e-9 + jnp.zeros("
    ),
    "every layer drops what the first does": change(layerwise, "keep[index]", "keep[0]"),
    "last state is the first": change(layerwise, "last.append(h_n)", "last.append(inputs[0])"),
    "head without its bias": change(
        _logits, "self.head(outputs)", "(self.head(outputs) - self.head.bias[...][None, None])"
    ),
}
NORM = {
    "LayerNorm missing": change(
        _logits, "hidden if self.norm is None else self.norm(hidden)", "hidden"
    ),
    "epsilon of LayerNorm": change_constant(model, "LAYER_NORM_EPSILON", 1e-6),
    "padding embedded as zero": change(
        _states, "self.embedding.embedding[...]", "self.embedding.embedding[...].at[0].set(0.0)"
    ),
}
CONVERTER = {
    "square kernels transposed": change_table(_transpose_square),
    "r and z swapped": change_table(_swap_gates),
    "second biases swapped": change_table(_swap_second_biases),
    "layers swapped": change_table(_swap_layers),
    "two biases merged into one": change(
        weights.to_params, "return tree", "return merge_biases(tree)", merge_biases=_merge_biases
    ),
    "one weight rounded on the way": change(
        weights.to_params,
        "_put(tree, entry.path, value)",
        "_put(tree, entry.path, value * (1 + 1e-15))",
    ),
}
WINDOWS = {
    "targets not shifted": change(
        datasets.TextWindows.batch, "windows[:, 1:], IGNORE", "windows[:, :-1], IGNORE"
    ),
    "windows one character late": change(
        datasets.TextWindows.batch, "rows[:, None] + jnp", "rows[:, None] + 1 + jnp"
    ),
}
LOSS = {
    "loss in bits": change(
        losses.cross_entropy, "total / count", "total / math.log(2) / count", math=math
    ),
    "loss summed over the batch": change(
        losses.cross_entropy, "count.astype(total.dtype)", "targets.shape[1]"
    ),
}
IGNORED = {
    "ignored targets counted in the mean": change(
        losses.cross_entropy, "count.astype(total.dtype)", "targets.size"
    ),
    "ignored targets trained on": change(
        losses.target_losses, "targets != IGNORE", "targets == targets"
    ),
}
GRADIENTS = {
    "two biases trained as one": change(
        _biases, "weights.bias_hh[0]", "jax.lax.stop_gradient(weights.bias_hh[0])"
    ),
    "no gradient through the reset": change(
        cell.gru_cell_vjp, "grad_r = grad_reset", "grad_r = 0 * grad_reset"
    ),
    "no gradient through time": change(cell.gru_cell_vjp, "grad * (1 - z) + ", ""),
    "no gradient through the candidate": change(cell.gru_cell_vjp, " + grad_reset * r", ""),
    "no gradient through r and z": change(_backward_pass, "grad + through", "grad"),
    "time reversed in training": change(
        fused._forward, "projected, keep)\n", "projected, keep, reverse=True)\n"
    ),
    "a step reads what the one before left": change(over_time_in_place, "t + ahead", "t"),
    "biases' gradients of the first step alone": change(
        _backward_pass, "grad.sum((0, 1))", "grad[0].sum(0)"
    ),
    "slope of the candidate missing": change(cell.gru_cell_vjp, "* (1 - n * n)", ""),
    "dropped states have gradients": change(_backward_pass, _DROP_GRAD, "grad + grad_t"),
    "gradients of survivors not scaled": change(
        _backward_pass, _DROP_GRAD, "drop(grad + grad_t, keep_t, 0.0)"
    ),
    "gradients through kernels not transposed": change(_backward_pass, ".swapaxes(1, 2)", ""),
    "kernels' gradients from states one step late": change(
        _backward_pass, "transpose(before, dtype)", "transpose(hidden, dtype)"
    ),
    "inputs' kernels' gradients all the reset gate's": change(
        projection._products_backward,
        "outer(transposed, grad, dtype)",
        "outer(transposed, grads[0], dtype)",
    ),
    "candidate's kernel's gradient not reset": change(_backward_pass, "gates.r * before", "before"),
    "no gradient into the embedding": change(
        _states,
        "self.embedding.embedding[...]",
        "jax.lax.stop_gradient(self.embedding.embedding[...])",
    ),
    "no epsilon in the clip": change(
        optimizers.clip_by_global_norm, "norm + TORCH_CLIP_EPSILON", "norm"
    ),
    "clip of each tensor alone": change(
        optimizers.clip_by_global_norm,
        "g * factor.astype(g.dtype)",
        f"g * jnp.minimum(1.0, {_TENSOR_NORM})",
    ),
}
UPDATE = {
    "clip missing": change(optimizers.make_optimizer, "if config.clip is None", "if True"),
    "clip lengthens short gradients": change(
        optimizers.clip_by_global_norm, "jnp.minimum(1.0", "jnp.minimum(2.0"
    ),
    "clip after Adam": change(
        optimizers.make_optimizer, f"*clip, {_ADAM}", "scale_by_adam(), *clip, *decay"
    ),
    "cosine one epoch ahead": change(
        optimizers.learning_rate_schedule, "// steps_per_epoch", "// steps_per_epoch + 1"
    ),
    "cosine falls at every step": change(
        optimizers.learning_rate_schedule, "// steps_per_epoch", "/ steps_per_epoch"
    ),
    "cosine one step late": change(
        optimizers.learning_rate_schedule, "jnp.asarray(step) //", "(jnp.asarray(step) - 1) //"
    ),
    "step counted twice": change(
        trainer.Trainer.apply_gradients, "state.step + 1", "state.step + 2"
    ),
    "decay missing": change(optimizers.make_optimizer, "if config.weight_decay", "if False"),
    "decay coupled": change(optimizers.make_optimizer, _ADAM, "*decay, scale_by_adam()"),
    "decay not scaled by the learning rate": change(
        optimizers.make_optimizer,
        "*decay, optax.scale_by_learning_rate(schedule))",
        "optax.scale_by_learning_rate(schedule), optax.add_decayed_weights(-config.weight_decay))",
    ),
    "decay skips the biases": change(
        optimizers.make_optimizer,
        "optax.add_decayed_weights(config.weight_decay, which)",
        _NOT_BIASES,
    ),
}
ADAM = {
    "epsilon inside the root": change(
        optimizers.scale_by_adam,
        "(jnp.sqrt(v / -jnp.expm1(steps * math.log(BETA_2))) + EPSILON)",
        "jnp.sqrt(v / -jnp.expm1(steps * math.log(BETA_2)) + EPSILON)",
    ),
    "epsilon missing": change_constant(optimizers, "EPSILON", 0.0),
    "bias correction one step ahead": change(
        optimizers.scale_by_adam, "jnp.asarray(count, m.dtype)", "jnp.asarray(count + 1, m.dtype)"
    ),
    "bias correction missing": change(
        optimizers.scale_by_adam, "jnp.asarray(count, m.dtype)", "jnp.asarray(10**6, m.dtype)"
    ),
    "second decay rate of 0.99": change_constant(optimizers, "BETA_2", 0.99),
    "second moment of magnitudes": change(optimizers.scale_by_adam, "g**2", "jnp.abs(g)"),
    "momentum missing": change(optimizers.scale_by_adam, "BETA_1 * m + (1 - BETA_1) * g", "g"),
}
WORDS = {
    "last partial batch dropped": change(
        datasets.PaddedWords.max_steps.fget,
        "math.ceil(self.part.shape[0] / self.batch_size)",
        "self.part.shape[0] // self.batch_size",
    ),
    "empty rows counted": change(
        datasets.PaddedWords.batch, "(rows != EMPTY)[:, None]", "(rows == rows)[:, None]"
    ),
}
SAMPLERS = {
    "state carried where it is not to be": change(
        sampler.write_chunk, "last if stateful else cursor.state", "last"
    ),
    "state not carried where it is to be": change(
        sampler.write_chunk, "last if stateful else cursor.state", "cursor.state"
    ),
    "first character of the prompt read alone": change(
        sampler.Sampler.stream_ids, "prompt if stateful", "prompt[:, :1] if stateful"
    ),
    "draws that do not know their place": change(draws.draw_rows, "(place + row) *", "row *"),
    "a layer reads its own state": change(
        step.Stepper.__call__, "cell.project(states[-1])", "cell.project(before)"
    ),
    "temperature multiplied": change(
        strategies.Temperature.pick, "below / temperature", "below * temperature"
    ),
    "top-k without its temperature": change(
        strategies.TopK.pick, "Temperature(self.temperature)", "Temperature()"
    ),
    "one more than k": change(strategies.TopK.pick, "(logits, self.k)", "(logits, self.k + 1)"),
    "second most likely": change(
        strategies.Greedy.pick,
        "jnp.argmax(logits, axis=-1)",
        "jnp.argsort(logits, axis=-1)[..., -2]",
    ),
}
_constants = onnx_models._cell_constants
ONNX = {
    "ONNX: z not complemented": change_constant(
        onnx_models, "_GATES", (("z", 1), ("r", 1), ("", 1))
    ),
    "ONNX: gates in another order": change_constant(
        onnx_models, "_GATES", (("r", 1), ("z", -1), ("", 1))
    ),
    "ONNX: reset after the product": change(
        onnx_models._layer_nodes, "linear_before_reset=0", "linear_before_reset=1"
    ),
    "ONNX: second biases dropped": change(_constants, 'gates("bias_{}")', '0 * gates("bias_{}")'),
    "ONNX: epsilon of LayerNorm": change_constant(onnx_models, "LAYER_NORM_EPSILON", 1e-6),
}


def _faults(
    level: FaultLevel, study: Study, injections: dict[str, Inject], in_data: bool = False
) -> list[Fault]:
    return [Fault(name, level, study, inject, in_data) for name, inject in injections.items()]


FAULTS = [
    *_faults("logits", "astra", RECURRENCE),
    *_faults("logits", "names", NORM),
    *_faults("logits", "names", CONVERTER),
    *_faults("logits", "astra", WINDOWS, in_data=True),
    *_faults("logits", "astra", LOSS),
    *_faults("logits", "names", IGNORED),
    *_faults("gradients", "astra", GRADIENTS),
    *_faults("training", "astra", UPDATE),
    *_faults("training", "names", ADAM),
    *_faults("training", "names", WORDS, in_data=True),
    *_faults("texts", "astra", SAMPLERS),
    *_faults("onnx", "names", ONNX),
]
