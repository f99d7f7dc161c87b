"""Contenders that are computed by JAX: ours, its other backends, and Flax's own cell."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from astra_jax.config import ModelConfig
from astra_jax.data.datasets import Dataset
from astra_jax.losses import cross_entropy_sum
from astra_jax.training.options import FitOptions
from astra_jax.training.trainer import MAX_STEPS_PER_CALL, Keys, Trainer, TrainState
from astra_torch.weights import Arrays, to_arrays, to_model
from benchmarks.setting import NUM_BATCHES, Setting

STEPS_PER_EPOCH = 10**6
"""Longer than any measurement: the learning rate stays what it is."""


def our_trainer(setting: Setting, backend: str | None = None, *, remat: bool = False) -> Trainer:
    """Returns the trainer that `fit` makes.

    Args:
        setting: what all are given.
        backend: of the recurrence; None is what training chooses.
        remat: whether it computes states anew to save memory.
    """
    options = FitOptions(devices=setting.devices, backend=backend, remat=remat)
    return options.trainer(setting.preset, STEPS_PER_EPOCH)[0]


class FlaxModel(nnx.Module):
    """Flax's `GRUCell` in its `RNN`: other equations, whose reset gate acts after the product.

    Dropout falls on the layers' outputs; the states that they carry cannot be reached.
    """

    def __init__(self, config: ModelConfig, dtype: Any, rngs: nnx.Rngs):
        """Draws a new model."""
        hidden = config.hidden_dim
        widths = [config.embedding_dim] + [hidden] * (config.num_layers - 1)
        self.dropout = config.dropout
        self.embedding = nnx.Embed(config.vocab_size, config.embedding_dim, rngs=rngs)
        self.layers = nnx.List(
            nnx.RNN(nnx.GRUCell(width, hidden, dtype=dtype, rngs=rngs), time_major=True, rngs=False)
            for width in widths
        )
        self.norm = nnx.LayerNorm(hidden, rngs=rngs) if config.layer_norm else None
        self.head = nnx.Linear(hidden, config.vocab_size, dtype=dtype, rngs=rngs)
        self.hidden_dim = hidden

    def __call__(
        self, tokens: jax.Array, h_0: None = None, keep: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the logits `[B, T, V]`, and the layers' last states."""
        del h_0  # Every sequence begins from zeros.
        hidden, last = self.embedding(tokens.T), []
        for index, layer in enumerate(self.layers):
            start = jnp.zeros((tokens.shape[0], self.hidden_dim))
            hidden = cast(jax.Array, layer(hidden, initial_carry=start))
            last.append(hidden[-1])
            if keep is not None:
                scaled = hidden / (1 - self.dropout)
                hidden = jnp.where(keep[index], scaled, jnp.zeros_like(scaled))
        hidden = hidden if self.norm is None else self.norm(hidden)
        return self.head(hidden).astype(jnp.float32).swapaxes(0, 1), jnp.stack(last)


class FlaxTrainer(Trainer):
    """Trains Flax's cell as ours is trained: the same data, loss, update and compiled loop."""

    def _new_model(self, key: jax.Array) -> Any:
        dtype = jnp.dtype(self.preset.train.dtype)
        return FlaxModel(self.preset.model, dtype, nnx.Rngs(params=key))


class JaxPeer:
    """A model that JAX trains or evaluates in compiled loops, several steps a call.

    Attributes:
        trainer: whose programs are run.
    """

    def __init__(self, setting: Setting, trainer: Trainer):
        """Puts weights and data where they are computed with."""
        self.setting, self.trainer = setting, trainer
        place, self.keys = setting.place, Keys.from_seed(0)
        self.params = place.replicate(self._weights())
        self.data = place.replicate(setting.data)
        self.dropout_key = place.replicate(self.keys.dropout)
        self._run_steps: Any = trainer.run_steps

    def _weights(self) -> nnx.State:
        """Returns the setting's weights."""
        preset, layout = self.setting.preset, self.setting.layout
        model = to_model(self.setting.arrays, preset.model, layout, preset.train.dtype)
        return nnx.state(model)

    @functools.cached_property
    def _state(self) -> TrainState:
        # Copied: the compiled loop donates its state.
        params = jax.tree.map(jnp.copy, self.params)
        return self.setting.place.replicate(self.trainer.state_of(params))

    @functools.cached_property
    def _rows(self) -> jax.Array:
        order = np.arange(MAX_STEPS_PER_CALL) % NUM_BATCHES
        return self.setting.place.share(self.setting.rows[order])

    def _arguments(self, num_steps: int) -> tuple[Any, ...]:
        begin = self._state.step
        # A new array: the state, whose step this is, is donated.
        return self._state, self.data, self._rows, begin + 0, begin + num_steps, self.dropout_key

    def prepare_training(self) -> jax.stages.Compiled:
        """Compiles the loop over steps, which `train` runs from now on, and returns it."""
        lowered = Trainer.run_steps.lower(self.trainer, *self._arguments(1))
        self._run_steps = lowered.compile()
        return self._run_steps

    def train(self, num_steps: int) -> np.ndarray:
        """Does steps in one call to the device, and returns each one's loss."""
        self._state, history = self._run_steps(*self._arguments(num_steps))
        losses = np.asarray(history.loss_nats)[:num_steps]
        if not (np.isfinite(losses).all() and losses.all()):
            raise ArithmeticError("the training that is timed diverged: it does no further steps")
        return losses

    @functools.cached_property
    def _gradients(self) -> Any:
        def gradients(params: nnx.State, rows: jax.Array) -> Any:
            return self.trainer.loss_and_gradients(params, self.data.batch(rows), None)

        return jax.jit(gradients)

    def loss_and_gradients(self) -> tuple[float, Arrays]:
        """Returns the first batch's loss and gradients without dropout, by PyTorch's names."""
        loss, grads, _ = self._gradients(self.params, self._rows[0])
        return float(loss), to_arrays(grads, self.setting.layout)

    def prepare_gradients(self) -> None:
        """Compiles what `gradient_step` runs, and runs nothing."""

        def gradients(params: nnx.State, data: Any, rows: jax.Array, key: jax.Array) -> Any:
            before = self.trainer.state_of(params)
            batch, keep = self.trainer.step_inputs(before, data, rows, key)
            return self.trainer.loss_and_gradients(params, batch, keep)

        self._gradient_step = jax.jit(gradients).lower(*self._of_gradients()).compile()

    def _of_gradients(self) -> tuple[Any, ...]:
        return self.params, self.data, self._rows[0], self.dropout_key

    def gradient_step(self, num_steps: int) -> None:
        """Computes gradients of one batch, with dropout, and throws them away."""
        for _ in range(num_steps):
            jax.block_until_ready(self._gradient_step(*self._of_gradients()))

    def evaluate(self, num_batches: int) -> np.ndarray:
        """Returns the mean loss of each batch, all of them `num_batches / NUM_BATCHES` times."""
        passes = [
            self.trainer.evaluate(self.params, self.data, self.setting.rows, self.setting.place)
            for _ in range(num_batches // NUM_BATCHES)
        ]
        return np.concatenate([losses.sums / losses.counts for losses in passes])


class FlaxPeer(JaxPeer):
    """Flax's own cell, with weights of its own."""

    def __init__(self, setting: Setting):
        """Makes its trainer."""
        mesh = setting.place.mesh_of_several
        super().__init__(setting, FlaxTrainer(setting.preset, STEPS_PER_EPOCH, mesh))

    def _weights(self) -> nnx.State:
        """Returns the weights that it is born with."""
        return self.trainer.init(self.keys.init).params

    @functools.cached_property
    def _losses(self) -> Any:
        """Each device's summed loss of its share of a batch, and the targets of it.

        Added up here rather than there: devices of a CPU that meet in many calls at once may wait
        for each other forever.
        """

        def of_a_share(params: nnx.State, data: Dataset, rows: jax.Array) -> Any:
            batch = data.batch(rows)
            logits, _ = nnx.merge(self.trainer.graph, params)(batch.inputs)
            return jax.tree.map(jnp.atleast_1d, cross_entropy_sum(logits, batch.targets))

        specs = {"in_specs": (P(), P(), P("data")), "out_specs": P("data")}
        mesh = self.setting.place.mesh
        return jax.jit(jax.shard_map(of_a_share, mesh=mesh, check_vma=False, **specs))

    @functools.cached_property
    def _batches(self) -> list[jax.Array]:
        return [self._rows[index] for index in range(NUM_BATCHES)]

    def evaluate(self, num_batches: int) -> np.ndarray:
        """Returns the mean loss of each batch, a call a batch: `nnx.RNN` runs in no outer loop."""
        order = np.arange(num_batches) % NUM_BATCHES
        parts = [self._losses(self.params, self.data, self._batches[index]) for index in order]
        return np.array([sums.sum() / counts.sum() for sums, counts in jax.device_get(parts)])
