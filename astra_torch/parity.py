"""Both frameworks on the same numbers, and what differs and by how much, as values.

A `Case` holds weights, batches and dropout masks as numpy arrays. `jax_results` and
`torch_results` compute the same named quantities from it, `compare` holds one against the
other in float64. Nothing here asserts; scripts print a report, tests assert on it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from astra_jax.config import Preset
from astra_jax.datasets import Batch
from astra_jax.losses import IGNORE
from astra_jax.model import arithmetic, parameters
from astra_jax.optimizers import learning_rate_schedule
from astra_jax.presets import override
from astra_jax.training import Trainer
from astra_torch import tolerances
from astra_torch.models import GRULanguageModel as TorchModel
from astra_torch.models import build_model
from astra_torch.training import ReferenceTrainer, loss_nats
from astra_torch.weights import Arrays, entries, find_layout, to_arrays, to_model

Results = dict[str, np.ndarray]
"""Quantities by name: `logits`, `gradient of embedding.weight`, ..."""

Level = Literal["model", "training"]
"""`model`: hidden states, logits, loss and gradients of one batch. `training`: losses, gradient
norms, learning rates and the parameters after a number of steps."""

Norm = Literal["largest", "root mean square"]
"""How a difference is measured; when which is right, `tolerances` says."""

ParityDtype = Literal["float64", "float32"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """The same inputs for both frameworks.

    Attributes:
        preset: model and recipe.
        steps_per_epoch: steps between two learning rates of a cosine.
        arrays: weights by torch name, in float32 so that each type begins with the same.
        inputs: ids of every step, `[S, B, T]`.
        targets: ids of every step, `[S, B, T]`, -100 where none counts.
        keep: dropout's survivors of every step, `[S, L, T, B, H]`; None drops nothing.
    """

    preset: Preset
    steps_per_epoch: int
    arrays: Arrays
    inputs: np.ndarray
    targets: np.ndarray
    keep: np.ndarray | None

    def keep_at(self, step: int) -> np.ndarray | None:
        """Returns one step's survivors."""
        return None if self.keep is None else self.keep[step]


def random_case(
    preset: Preset,
    *,
    num_steps: int = 1,
    steps_per_epoch: int = 10,
    batch_size: int = 5,
    seq_len: int = 7,
    dropout: bool = True,
    seed: int = 0,
) -> Case:
    """Returns random weights, batches and masks for a preset.

    No bias is zero and no norm is one, so that none can be missing unnoticed. A third of the
    targets at the end of each row is ignored, as the padding of names is.
    """
    rng = np.random.default_rng(seed)
    model = preset.model
    shape = (num_steps, batch_size, seq_len)
    targets = rng.integers(model.vocab_size, size=shape, dtype=np.int32)
    if preset.data.dataset == "names":
        lengths = rng.integers(seq_len // 3, seq_len + 1, size=(num_steps, batch_size, 1))
        targets = np.where(np.arange(seq_len) < lengths, targets, IGNORE).astype(np.int32)
    keep = None
    if dropout and model.dropout:
        masks = (num_steps, model.num_layers, seq_len, batch_size, model.hidden_dim)
        keep = rng.random(masks) >= model.dropout
    return Case(
        preset=preset,
        steps_per_epoch=steps_per_epoch,
        arrays=_random_arrays(preset, rng),
        inputs=rng.integers(model.vocab_size, size=shape, dtype=np.int32),
        targets=targets,
        keep=keep,
    )


def _random_arrays(preset: Preset, rng: np.random.Generator) -> Arrays:
    model = preset.model
    sizes = dict(V=model.vocab_size, E=model.embedding_dim, H=model.hidden_dim)
    arrays = {}
    for entry in entries(find_layout(model, preset.data.dataset)):
        shape = tuple(sizes[letter] for letter in entry.shape)
        scale = 1.0 if entry.name == "embedding.weight" else 1.5 / math.sqrt(model.hidden_dim)
        offset = 1.0 if entry.name == "norm.weight" else 0.0
        arrays[entry.name] = (offset + scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays


def jax_results(case: Case, level: Level, dtype: ParityDtype) -> Results:
    """Computes a level's quantities in JAX."""
    preset = override(case.preset, dtype=dtype)
    layout = find_layout(preset.model, preset.data.dataset)
    with arithmetic(dtype), jax.default_matmul_precision("highest"):
        arrays = {name: array.astype(dtype) for name, array in case.arrays.items()}
        model = to_model(arrays, preset.model, layout, dtype)
        trainer = Trainer(preset, case.steps_per_epoch)
        if level == "model":
            return _jax_model_results(case, trainer, parameters(model))
        return _jax_training_results(case, trainer, parameters(model))


def _jax_batch(case: Case, step: int) -> Batch:
    return Batch(jnp.asarray(case.inputs[step]), jnp.asarray(case.targets[step]))


def _jax_model_results(case: Case, trainer: Trainer, params: nnx.State) -> Results:
    layout = find_layout(case.preset.model, case.preset.data.dataset)

    @jax.jit
    def compute(params, batch, keep):
        model = nnx.merge(trainer.graph, params)
        hiddens, _ = model.hidden_states(batch.inputs, keep=keep)
        logits, h_n = model(batch.inputs, keep=keep)
        loss, grads = jax.value_and_grad(trainer.loss)(params, batch, keep)
        return hiddens, {"logits": logits, "h_n": h_n, "loss": loss}, grads

    hiddens, plain, grads = compute(params, _jax_batch(case, 0), case.keep_at(0))
    results = {name: np.asarray(value) for name, value in plain.items()}
    for index, hidden in enumerate(hiddens):
        results[f"hidden states of layer {index}"] = np.asarray(hidden).swapaxes(0, 1)
    for name, value in to_arrays(grads, layout).items():
        results[f"gradient of {name}"] = value
    return results | {"gradient norm": np.asarray(optax.tree.norm(grads))}


def _jax_training_results(case: Case, trainer: Trainer, params: nnx.State) -> Results:
    layout = find_layout(case.preset.model, case.preset.data.dataset)
    state, update = trainer.state_of(params), jax.jit(trainer.update)
    history = []
    for step in range(len(case.inputs)):
        state, metrics = update(state, _jax_batch(case, step), case.keep_at(step))
        history.append(metrics)
    rate = learning_rate_schedule(trainer.preset.train, case.steps_per_epoch)
    results = {
        "losses": np.array([step.loss_nats for step in history]),
        "gradient norms": np.array([step.grad_norm for step in history]),
        "learning rates": np.array([rate(step) for step in range(len(history))]),
    }
    for name, value in to_arrays(state.params, layout).items():
        results[f"parameter {name}"] = value
    return results


def torch_results(case: Case, level: Level, dtype: ParityDtype) -> Results:
    """Computes a level's quantities in PyTorch, in an order of operations of its own."""
    model = build_model(case.preset.model, case.preset.data.dataset).to(getattr(torch, dtype))
    tensors = {name: torch.from_numpy(array.astype(dtype)) for name, array in case.arrays.items()}
    model.load_state_dict(tensors, strict=True)
    # Masks are given; without them nothing is to be dropped.
    model.eval()
    return (_torch_model_results if level == "model" else _torch_training_results)(case, model)


def _torch_batch(case: Case, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    keep = case.keep_at(step)
    return (
        torch.from_numpy(case.inputs[step]).long(),
        torch.from_numpy(case.targets[step]).long(),
        None if keep is None else torch.from_numpy(keep),
    )


def _torch_model_results(case: Case, model: TorchModel) -> Results:
    inputs, targets, keep = _torch_batch(case, 0)
    hiddens, h_n = model.hidden_states(inputs, keep=keep)
    logits, _ = model(inputs, keep=keep)
    loss = loss_nats(model, inputs, targets, keep)
    loss.backward()
    values = {"logits": logits, "h_n": h_n, "loss": loss}
    values |= {f"hidden states of layer {index}": hidden for index, hidden in enumerate(hiddens)}
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    values |= {f"gradient of {name}": grad for name, grad in grads.items()}
    values["gradient norm"] = torch.nn.utils.get_total_norm(grads.values())
    return {name: value.detach().numpy() for name, value in values.items()}


def _torch_training_results(case: Case, model: TorchModel) -> Results:
    trainer = ReferenceTrainer(model, case.preset.train, case.steps_per_epoch)
    history = [trainer.step(*_torch_batch(case, step)) for step in range(len(case.inputs))]
    results = {
        "losses": np.array([step.loss_nats for step in history]),
        "gradient norms": np.array([step.grad_norm for step in history]),
        "learning rates": np.array([step.learning_rate for step in history]),
    }
    for name, value in model.state_dict().items():
        results[f"parameter {name}"] = value.numpy()
    return results


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity of two computations.

    Attributes:
        quantity: its name.
        max_abs: largest absolute difference; infinite where a value is not finite.
        relative: norm of the difference over norm of the reference; infinite where a value is
            not finite, or the reference is all zero, as the gradients of a dead network are.
        bound: on `relative`.
    """

    quantity: str
    max_abs: float
    relative: float
    bound: float

    @property
    def ok(self) -> bool:
        """Whether the two agree."""
        return self.relative <= self.bound


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of a case."""

    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether there is something to compare and all of it agrees."""
        return bool(self.comparisons) and all(one.ok for one in self.comparisons)

    @property
    def worst(self) -> Comparison:
        """The comparison that uses up most of its bound."""
        return max(self.comparisons, key=lambda one: one.relative / one.bound)

    def describe(self) -> str:
        """Returns a line per quantity that disagrees, or else the worst that agrees."""
        shown = [one for one in self.comparisons if not one.ok] or [self.worst]
        return "\n".join(
            f"{one.quantity}: off by {one.max_abs:.3g}, relative {one.relative:.3g}, "
            f"bound {one.bound:.3g}"
            for one in shown
        )


def compare(
    ours: Results, reference: Results, bound: Callable[[str], float], norm: Norm = "largest"
) -> ParityReport:
    """Holds one computation against another.

    Args:
        ours: quantities by name.
        reference: the same by the other computation.
        bound: the largest relative difference that a quantity may have.
        norm: how a tensor's difference is measured.

    Raises:
        ValueError: the two do not have the same quantities.
    """
    if set(ours) != set(reference):
        raise ValueError(f"only one side has {sorted(set(ours) ^ set(reference))}")
    return ParityReport(
        tuple(_compare(name, ours[name], reference[name], bound(name), norm) for name in reference)
    )


def _compare(
    name: str, ours: np.ndarray, reference: np.ndarray, bound: float, norm: Norm
) -> Comparison:
    max_abs = relative = math.inf
    if ours.shape == reference.shape and ours.size:
        one, other = ours.astype(np.float64), reference.astype(np.float64)
        if np.isfinite(one).all() and np.isfinite(other).all():
            max_abs = float(np.abs(one - other).max())
            scale = _norm(other, norm)
            relative = _norm(one - other, norm) / scale if scale else math.inf
    return Comparison(quantity=name, max_abs=max_abs, relative=relative, bound=bound)


def _norm(values: np.ndarray, norm: Norm) -> float:
    if norm == "largest":
        return float(np.abs(values).max())
    return float(np.sqrt(np.mean(values**2)))


def check_float64(case: Case, level: Level) -> ParityReport:
    """Holds JAX against PyTorch, both in float64."""
    ours, reference = (f(case, level, "float64") for f in (jax_results, torch_results))
    return compare(ours, reference, lambda _: tolerances.FLOAT64)


def check_float32(case: Case, level: Level) -> ParityReport:
    """Holds JAX in float32 against PyTorch in float64, as closely as PyTorch in float32 comes.

    The bound of every tensor is measured: see `tolerances`.
    """
    norm: Norm = "largest" if level == "model" else "root mean square"
    oracle = torch_results(case, level, "float64")
    reference = compare(torch_results(case, level, "float32"), oracle, lambda _: math.inf, norm)
    bounds = tolerances.float32_bounds(
        {one.quantity: one.relative for one in reference.comparisons}
    )
    return compare(jax_results(case, level, "float32"), oracle, bounds.__getitem__, norm)
