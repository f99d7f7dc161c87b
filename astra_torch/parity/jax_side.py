"""What JAX computes from a case."""

import contextlib
import functools
from collections.abc import Iterator

import jax
import numpy as np
import optax
from flax import nnx

from astra_jax import optimizers
from astra_jax.data.datasets import Batch
from astra_jax.machine.placement import to_device
from astra_jax.model import arithmetic, parameters
from astra_jax.presets import override
from astra_jax.training.trainer import Trainer, TrainState
from astra_torch.parity.cases import Case, StepInputs
from astra_torch.parity.quantities import Name, ParityDtype, Results
from astra_torch.weights import find_layout, to_arrays, to_model


class JaxSide:
    """A model of a case and its training state, in one type."""

    def __init__(self, case: Case, dtype: ParityDtype, precision: str = "highest"):
        """Takes the case's weights through the converter.

        Args:
            case: the inputs.
            dtype: type of the arithmetic.
            precision: of matrix products, on devices that have several.
        """
        self.dtype: ParityDtype = dtype
        self.precision = precision
        preset = override(case.preset, dtype=dtype)
        self.layout = find_layout(preset.model, preset.data.dataset)
        self.trainer = Trainer(preset, case.steps_per_epoch)
        with self._arithmetic():
            arrays = {name: array.astype(dtype) for name, array in case.arrays.items()}
            self.params = parameters(to_model(arrays, preset.model, self.layout, dtype))
        self._programs = {
            level: jax.jit(program)
            for level, program in {
                "logits": self._logits,
                "gradients": self._gradients,
                "training": self._step,
            }.items()
        }

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with arithmetic(self.dtype), jax.default_matmul_precision(self.precision):
            yield

    @functools.cached_property
    def state(self) -> TrainState:
        """Where a training stands; at first, before its first step."""
        return self.trainer.state_of(self.params)

    def logits(self, inputs: StepInputs) -> Results:
        """Returns the forward pass of a batch."""
        with self._arithmetic():
            results = self._programs["logits"](self.params, *_on_device(inputs))
            return self._tensors("weights", self.params) | _as_arrays(results)

    def gradients(self, inputs: StepInputs) -> Results:
        """Returns the backward pass of a batch."""
        with self._arithmetic():
            grads, norms = self._programs["gradients"](self.params, *_on_device(inputs))
            return self._tensors("gradient", grads) | _as_arrays(norms)

    def training(self, inputs: StepInputs) -> Results:
        """Does a training step, and returns what it computed and what it left behind."""
        with self._arithmetic():
            self.state, results = self._programs["training"](self.state, *_on_device(inputs))
            opt_state = self.state.opt_state
            return (
                _as_arrays(results)
                | self._tensors("first moment", optax.tree.get(opt_state, "mu"))
                | self._tensors("second moment", optax.tree.get(opt_state, "nu"))
                | self._tensors("parameter", self.state.params)
            )

    def _logits(self, params: nnx.State, batch: Batch, keep: jax.Array | None):
        model = nnx.merge(self.trainer.graph, params)
        hiddens, last = model.hidden_states(batch.inputs, keep=keep)
        logits, _ = model(batch.inputs, keep=keep)
        loss = self.trainer.loss(params, batch, keep)
        results = {Name("last states"): last, Name("logits"): logits, Name("loss"): loss}
        for index, hidden in enumerate(hiddens):
            results[Name("hidden states", f"layer {index}")] = hidden.swapaxes(0, 1)
        return results

    def _gradients(self, params: nnx.State, batch: Batch, keep: jax.Array | None):
        _, grads, _ = self.trainer.loss_and_gradients(params, batch, keep)
        return grads, self._norms(grads)

    def _norms(self, grads: nnx.State) -> dict[Name, jax.Array]:
        clip = self.trainer.preset.train.clip
        clipped = grads
        if clip is not None:
            rule = optimizers.clip_by_global_norm(clip)
            clipped, _ = rule.update(grads, rule.init(grads))
        return {
            Name("gradient norm"): optax.tree.norm(grads),
            Name("clipped gradient norm"): optax.tree.norm(clipped),
        }

    def _step(self, state: TrainState, batch: Batch, keep: jax.Array | None):
        loss, grads, _ = self.trainer.loss_and_gradients(state.params, batch, keep)
        config = self.trainer.preset.train
        schedule = optimizers.learning_rate_schedule(config, self.trainer.steps_per_epoch)
        results = {
            Name("loss"): loss,
            Name("learning rate"): schedule(state.step),
            **self._norms(grads),
        }
        return self.trainer.apply_gradients(state, grads), results

    def _tensors(self, quantity: str, tree: nnx.State) -> Results:
        return {Name(quantity, name): array for name, array in to_arrays(tree, self.layout).items()}


def _on_device(inputs: StepInputs) -> tuple[Batch, jax.Array | None]:
    read, targets, keep = to_device((inputs.inputs, inputs.targets, inputs.keep))
    return Batch(read, targets), keep


def _as_arrays(values: dict[Name, jax.Array]) -> Results:
    return {name: np.asarray(value) for name, value in values.items()}
