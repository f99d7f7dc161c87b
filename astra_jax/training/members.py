"""A run while it is trained: its data, its random streams, and how far it is."""

import jax

from astra_jax.data.splits import Split
from astra_jax.errors import InputError
from astra_jax.machine import processes
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics, History
from astra_jax.training.saving import Saver, Training
from astra_jax.training.trainer import Keys, Trainer, TrainState


class Member:
    """One of the runs that are trained, and how far it is."""

    def __init__(self, run: Run, split: Split, saver: Saver, steps_per_epoch: int):
        """Takes what belongs to it, and the length of an epoch."""
        self.run, self.split, self.saver, self.steps = run, split, saver, steps_per_epoch
        self.keys = Keys.from_seed(run.preset.train.seed)
        self.history = History()

    @property
    def epochs_done(self) -> int:
        """The epochs behind it, those done elsewhere included."""
        return self.run.imported_step // self.steps + len(self.history.epochs)

    @property
    def steps_done(self) -> int:
        """The steps behind it whose metrics have been read."""
        return self.epochs_done * self.steps + self.history.current.steps

    def restore(self, trainer: Trainer) -> TrainState:
        """Returns its state by its newest checkpoint, or that of a new model.

        Raises:
            InputError: the checkpoint is damaged, not of the run as it is now, or does not fit
                its epochs.
        """
        training = self.saver.restore(jax.eval_shape(trainer.init, self.keys.init))
        state, self.history = training or (trainer.init(self.keys.init), History())
        self._require_whole_epochs_elsewhere()
        if int(state.step) != self.steps_done:
            raise InputError(
                f"{self.run.folder} stands at step {int(state.step)}, and its epochs of "
                f"{self.steps} steps say {self.steps_done}: the corpus or the checkpoint is not "
                "its own"
            )
        if processes.is_primary():
            self.run.record_corpus()
        return state

    def _require_whole_epochs_elsewhere(self) -> None:
        run, steps = self.run, self.steps
        if run.imported_step and run.imported_steps_per_epoch not in (None, steps):
            raise InputError(
                f"{run.folder} was trained {run.imported_steps_per_epoch} steps an epoch before it "
                f"was imported, and this corpus has {steps}: give the former one by --corpus, or "
                "import the weights alone (scripts/convert.py --weights-only)"
            )
        if rest := run.imported_step % steps:
            raise InputError(
                f"{run.folder} was imported at step {run.imported_step}, {rest} of {steps} steps "
                f"into epoch {run.imported_step // steps + 1}: import a checkpoint that was "
                "written at the end of an epoch"
            )

    def save(self, state: TrainState) -> None:
        """Saves where it stands inside an epoch."""
        self.saver.save(self.steps_done, Training(state, self.history))

    def finish(self, epoch: EpochMetrics, state: TrainState) -> None:
        """Saves the end of an epoch."""
        self.history = self.history.finish(epoch)
        self.saver.finish(epoch, Training(state, self.history))
