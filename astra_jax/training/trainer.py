"""The training step and evaluation as pure compiled programs."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from astra_jax.config import Preset
from astra_jax.data.datasets import Batch, Dataset, stages
from astra_jax.dropout import draw_keep
from astra_jax.errors import InputError
from astra_jax.losses import cross_entropy, cross_entropy_sum
from astra_jax.machine.placement import Placement
from astra_jax.model import GRULanguageModel
from astra_jax.optimizers import make_optimizer

_STATES = P(None, "data")
"""How devices share the layers' states of a batch."""

MAX_STEPS_PER_CALL = 1024
"""Steps that one call of `Trainer.run_steps` can do: the length of its metrics."""


class Keys(NamedTuple):
    """The independent random streams of a run, all from its one seed."""

    init: Key[Array, ""]
    split: Key[Array, ""]
    batches: Key[Array, ""]
    dropout: Key[Array, ""]
    validation: Key[Array, ""]
    samples: Key[Array, ""]

    @classmethod
    def from_seed(cls, seed: int) -> "Keys":
        """Returns the streams of a seed."""
        return cls(*_split_in(jax.random.key(seed), len(cls._fields)))


@functools.partial(jax.jit, static_argnames="count")
def _split_in(key: Key[Array, ""], count: int) -> tuple[Key[Array, ""], ...]:
    # One program: taken apart outside, each key would be another.
    return tuple(jax.random.split(key, count))


class TrainState(NamedTuple):
    """All that changes while a model is trained.

    Attributes:
        step: optimiser steps done.
        params: the model's parameters.
        opt_state: moments and counters of the update rule.
        hidden: the layers' states after the last batch, where the next one goes on from them.
    """

    step: Int[Array, ""]
    params: nnx.State
    opt_state: optax.OptState
    hidden: Float[Array, "L B H"] | None = None


class Gradients(NamedTuple):
    """What a batch's forward and backward pass come to.

    Attributes:
        loss_nats: mean loss of the batch.
        grads: its gradient by every parameter, not clipped.
        h_n: the layers' states after the batch.
    """

    loss_nats: Float[Array, ""]
    grads: nnx.State
    h_n: Float[Array, "L B H"]


class StepMetrics(NamedTuple):
    """What training steps tell.

    Attributes:
        loss_nats: mean loss of each batch, before its update.
        grad_norm: global norm of each gradient, before clipping.
    """

    loss_nats: Float[Array | np.ndarray, "*steps"]
    grad_norm: Float[Array | np.ndarray, "*steps"]


class Losses(NamedTuple):
    """Summed losses of several batches, in nats, and how many targets each sum has."""

    sums: Float[np.ndarray, " S"]
    counts: Int[np.ndarray, " S"]

    @property
    def mean_of_targets(self) -> float:
        """Returns the mean loss of a character."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def mean_of_batches(self) -> float:
        """Returns the mean of the batches' own means, a partial batch weighing as a full one."""
        return float((self.sums / self.counts).mean())


@dataclass(frozen=True)
class Trainer:
    """The programs that train and evaluate one preset. Equal trainers share what is compiled.

    Attributes:
        preset: the model and the recipe.
        steps_per_epoch: the length of an epoch, which decides the learning rates.
        mesh: devices that share each batch, along the one axis `data`, of type Auto; None is one
            device.
        backend: of the recurrence, one of `gru.BACKENDS`; None chooses.
        remat: whether the backward pass computes states anew, to save memory.
    """

    preset: Preset
    steps_per_epoch: int
    mesh: Mesh | None = None
    backend: str | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        """Refuses a mesh of other axes, as an `InputError`."""
        if self.mesh is None:
            return
        axes = dict(zip(self.mesh.axis_names, self.mesh.axis_types, strict=True))
        if axes != {"data": AxisType.Auto}:
            raise InputError(
                f"the mesh has the axes {axes}, expected one, data, of type Auto: make it by "
                'jax.make_mesh((n,), ("data",), axis_types=(AxisType.Auto,))'
            )

    @functools.cached_property
    def graph(self) -> nnx.GraphDef[GRULanguageModel]:
        """The model's structure; merged with parameters it is a module again."""
        return nnx.split(nnx.eval_shape(lambda: self._new_model(jax.random.key(0))))[0]

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The update rule."""
        return make_optimizer(self.preset.train, self.steps_per_epoch)

    @functools.partial(jax.jit, static_argnames="self")
    def init(self, key: Key[Array, ""]) -> TrainState:
        """Returns the state of a new model before its first step."""
        return self.state_of(nnx.state(self._new_model(key)))

    @functools.partial(jax.jit, static_argnames="self")
    def state_of(self, params: nnx.State) -> TrainState:
        """Returns the state before the first step, from given parameters.

        One program: its zeros alone would be one for every shape.
        """
        hidden = None
        if self.preset.data.carry_state:
            model = nnx.merge(self.graph, params)
            hidden = model.initial_state(self.preset.data.batch_size)
        return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params), hidden)

    def _new_model(self, key: Key[Array, ""]) -> GRULanguageModel:
        return GRULanguageModel(
            self.preset.model,
            dtype=self.preset.train.dtype,
            dropout_on=self.preset.train.dropout_on,
            backend=self.backend,
            remat=self.remat,
            rngs=nnx.Rngs(params=key),
        )

    def loss(
        self,
        params: nnx.State,
        batch: Batch,
        keep: Bool[Array, "L T B H"] | None = None,
    ) -> Float[Array, ""]:
        """Returns the mean loss of a batch in nats; without `keep`, that of evaluation."""
        return self._loss_and_states(params, batch, keep)[0]

    def _loss_and_states(
        self, params: nnx.State, batch: Batch, keep: Bool[Array, "L T B H"] | None
    ) -> tuple[Float[Array, ""], Float[Array, "L B H"]]:
        logits, h_n = nnx.merge(self.graph, params)(batch.inputs, batch.h_0, keep)
        return cross_entropy(logits, batch.targets), h_n

    def loss_and_gradients(
        self, params: nnx.State, batch: Batch, keep: Bool[Array, "L T B H"] | None
    ) -> Gradients:
        """Returns the loss of a batch and the gradient of every parameter."""
        if self.mesh is None:
            forward = jax.value_and_grad(self._loss_and_states, has_aux=True)
            (loss, h_n), grads = forward(params, batch, keep)
            return Gradients(loss, grads, h_n)
        # Left to itself, the compiler sums over the devices at every character of the backward
        # pass. So each device goes through its share alone, and there is one sum at the end.
        return jax.shard_map(
            self._summed_shares,
            mesh=self.mesh,
            in_specs=(P(), Batch._make([P("data"), P("data"), _STATES]), P(None, None, "data")),
            out_specs=Gradients._make([P(), P(), _STATES]),
            check_vma=False,
        )(params, batch, keep)

    def _summed_shares(
        self, params: nnx.State, batch: Batch, keep: Bool[Array, "L T B H"] | None
    ) -> Gradients:
        def share(params: nnx.State) -> tuple[Float[Array, ""], Float[Array, "L B H"]]:
            logits, h_n = nnx.merge(self.graph, params)(batch.inputs, batch.h_0, keep)
            total, count = cross_entropy_sum(logits, batch.targets)
            return total / lax.psum(count, "data").astype(total.dtype), h_n

        (loss, h_n), grads = jax.value_and_grad(share, has_aux=True)(params)
        loss, grads = lax.psum((loss, grads), "data")
        return Gradients(loss, grads, h_n)

    def apply_gradients(self, state: TrainState, grads: nnx.State) -> TrainState:
        """Clips, and takes the update rule's step; carried states stay what they are."""
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = cast(nnx.State, optax.apply_updates(state.params, updates))
        return TrainState(state.step + 1, params, opt_state, state.hidden)

    def update(
        self, state: TrainState, batch: Batch, keep: Bool[Array, "L T B H"] | None
    ) -> tuple[TrainState, StepMetrics]:
        """Does one step with the given dropout survivors."""
        loss, grads, h_n = self.loss_and_gradients(state.params, batch, keep)
        after = self.apply_gradients(state, grads)
        if self.preset.data.carry_state:
            after = after._replace(hidden=h_n)
        return after, StepMetrics(loss, optax.tree.norm(grads))

    def step_inputs(
        self, state: TrainState, data: Dataset, row: Int[Array, " B"], key: Key[Array, ""]
    ) -> tuple[Batch, Bool[Array, "L T B H"] | None]:
        """Returns the batch of a state's next step, and what survives dropout in it.

        Carried states end with an epoch: the next one's windows begin elsewhere.
        """
        batch = data.batch(row)
        if state.hidden is not None:
            goes_on = state.step % self.steps_per_epoch != 0
            batch = batch._replace(h_0=jnp.where(goes_on, state.hidden, 0))
        key = jax.random.fold_in(key, state.step)
        return batch, draw_keep(key, self.preset.model, *batch.inputs.shape)

    @functools.partial(jax.jit, static_argnames="self", donate_argnames="state")
    def run_steps(
        self,
        state: TrainState,
        data: Dataset,
        rows: Int[Array, "S B"],
        offset: Int[Array, ""] | int,
        end: Int[Array, ""] | int,
        key: Key[Array, ""],
    ) -> tuple[TrainState, StepMetrics]:
        """Does steps on the device until `end` of them have been done since the beginning.

        One compiled program serves every number of steps, so the host can look in as often as
        it likes. A step whose loss or gradient is not finite is not applied, nor is any later one:
        the state stays as before it, its metrics are returned. A call already dispatched starts at
        that step and fails again, or holds only later batches and does nothing.

        Args:
            state: donated.
            data: what the rows are of.
            rows: of the batches of steps from `offset` on.
            offset: the step that the first batch is for.
            end: the step to stop at. It stops before where the rows end, and after
                `MAX_STEPS_PER_CALL` steps.
            key: of dropout.

        Returns:
            The state, and the metrics of each step at the front of arrays of length
            `MAX_STEPS_PER_CALL`.
        """
        begin = state.step

        def unfinished(carry):
            state, _, finite = carry
            known = (offset <= state.step) & (state.step < offset + len(rows))
            told = state.step - begin < MAX_STEPS_PER_CALL
            return finite & known & told & (state.step < end)

        def body(carry):
            before, metrics, _ = carry
            inputs = self.step_inputs(before, data, rows[before.step - offset], key)
            after, newest = self.update(before, *inputs)
            finite = jnp.isfinite(newest.loss_nats) & jnp.isfinite(newest.grad_norm)
            index = before.step - begin
            metrics = jax.tree.map(lambda m, n: m.at[index].set(n), metrics, newest)
            return (
                jax.tree.map(functools.partial(jnp.where, finite), after, before),
                metrics,
                finite,
            )

        dtype = jax.tree.leaves(state.params)[0].dtype
        metrics = StepMetrics(*jnp.zeros((2, MAX_STEPS_PER_CALL), dtype))
        carry = state, metrics, jnp.array(True)
        state, metrics, _ = lax.while_loop(unfinished, body, carry)
        return self._replicated(state), metrics

    def _replicated(self, state: TrainState) -> TrainState:
        """Gives every device the states that each has reached in its share of the batch."""
        if self.mesh is None or state.hidden is None:
            return state
        everywhere = NamedSharding(self.mesh, P())
        return state._replace(hidden=lax.with_sharding_constraint(state.hidden, everywhere))

    def evaluate(
        self,
        params: nnx.State,
        data: Dataset,
        rows: Int[Array | np.ndarray, "S B"],
        place: Placement | None = None,
    ) -> Losses:
        """Returns the losses of batches, without dropout, each sequence from zero states.

        Args:
            params: of the model.
            data: what the rows are of.
            rows: of the batches.
            place: devices to share them; None takes them as they lie.
        """
        parts = []
        for stage in stages(data, rows):
            arrays: tuple[Any, Any] = stage.data, stage.rows
            if place is not None:
                arrays = place.replicate(stage.data), place.share(stage.rows)
            losses = jax.device_get(self.losses(params, *arrays))
            parts.append([values[: stage.num_batches] for values in losses])
        sums, counts = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Losses(sums.astype(np.float64), counts)

    @functools.partial(jax.jit, static_argnames="self")
    def losses(
        self, params: nnx.State, data: Dataset, rows: Int[Array, "S B"]
    ) -> tuple[Float[Array, " S"], Int[Array, " S"]]:
        """Returns what `evaluate` does, of data that lies on the device."""
        model = nnx.merge(self.graph, params)

        def one(rows):
            batch = data.batch(rows)
            logits, _ = model(batch.inputs)
            return cross_entropy_sum(logits, batch.targets)

        return lax.map(one, rows)
