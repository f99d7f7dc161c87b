"""What may be chosen about a training without a change in its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Array, Key

from astra_jax.config import Preset
from astra_jax.data.splits import Split
from astra_jax.errors import InputError
from astra_jax.gru import BACKENDS
from astra_jax.machine.placement import Devices, Placement
from astra_jax.presets import override
from astra_jax.training.engines import Engine, OneRun
from astra_jax.training.replicas import Replicas
from astra_jax.training.saving import SavePolicy
from astra_jax.training.sizing import Memory, memory_needed
from astra_jax.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What a person may choose about a training that changes none of its results.

    Attributes:
        saving: how often it is saved.
        debug_nans: whether a training that diverges is to say which operation did it.
        devices: that share the batches; several add in another order than one, no more.
        backend: of the recurrence, one of `gru.BACKENDS`; None chooses.
        remat: whether gradients are to cost time rather than memory.
        deadline: on the clock `time.monotonic`, when it is to stop as if a signal came.
    """

    saving: SavePolicy = field(default_factory=SavePolicy)
    debug_nans: bool = False
    devices: Devices = None
    backend: str | None = None
    remat: bool = False
    deadline: float | None = None

    def __post_init__(self) -> None:
        """Refuses a backend that is none, as an `InputError`."""
        if self.backend is not None and self.backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise InputError(f"unknown --backend {self.backend!r}: choose one of {known}")

    def placement(self, preset: Preset, num_runs: int) -> Placement:
        """Returns the devices of one run, or of several; to call it early refuses early.

        Raises:
            InputError: there are no such devices, or the batch cannot be shared.
        """
        if num_runs == 1:
            return Placement.of(self.devices, preset)
        return Placement.of_runs(self.devices, num_runs)

    def memory(self, preset: Preset, num_runs: int) -> Memory:
        """Estimates what one run needs, or several; raises as `placement` does."""
        return memory_needed(
            preset,
            remat=self.remat,
            backend=self.backend,
            num_runs=num_runs,
            num_devices=self.placement(preset, num_runs).mesh.size,
        )

    def trainer(self, preset: Preset, steps_per_epoch: int) -> tuple[Trainer, Placement]:
        """Returns a training's programs, and the devices that they are for.

        Raises:
            InputError: as `placement` does.
        """
        place = self.placement(preset, 1)
        # No program depends on the seed, so runs of several seeds share what is compiled.
        preset = override(preset, seed=0)
        mesh = place.mesh_of_several
        return Trainer(preset, steps_per_epoch, mesh, self.backend, self.remat), place

    def engine(
        self,
        preset: Preset,
        steps_per_epoch: int,
        splits: Sequence[Split],
        keys: Sequence[Key[Array, ""]],
    ) -> Engine:
        """Returns who does the steps of one run, or of several.

        Args:
            preset: of the runs, but for their seeds.
            steps_per_epoch: of each.
            splits: of each run.
            keys: of each run's dropout.

        Raises:
            InputError: as `placement` does.
        """
        if len(splits) == 1:
            return OneRun(*self.trainer(preset, steps_per_epoch), splits[0], keys[0])
        place = self.placement(preset, len(splits))
        alone = replace(self, devices=1).trainer(preset, steps_per_epoch)[0]
        return Replicas(alone, place, splits, keys)
