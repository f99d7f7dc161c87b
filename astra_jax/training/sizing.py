"""Whether a training fits into the machine, and whether its size makes sense."""

import math
from dataclasses import dataclass

import jax

from astra_jax.config import Preset
from astra_jax.gru import BACKENDS, DEFAULT_BACKENDS
from astra_jax.gru.inputs import project_first
from astra_jax.machine import memory
from astra_jax.training.replicas import at_once
from astra_jax.units import readable

DROPOUT_BYTES_KEPT = 2
"""Bytes a state element of dropout's words and masks."""

OUTPUTS_KEPT, EMBEDDINGS_KEPT, LOGITS_KEPT = 1, 2, 3
"""Arrays [T, B, H] that remain of the last layer where states are computed anew: outputs, and in
their place their gradient; [T, B, E], where the vocabulary is too large to be projected:
embeddings and their gradient; [T, B, V]: logits, probabilities and the logits' gradient."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a training needs, by what they hold.

    The last state is kept while a step is done, to be gone back to if the step diverges.
    """

    parameters: int
    moments: int
    last_state: int
    gradients: int
    activations: int
    batches: int

    @classmethod
    def of(cls, preset: Preset, *, remat: bool = False, backend: str | None = None) -> "Memory":
        """Estimates what a training needs, from shapes alone.

        Args:
            preset: the training.
            remat: whether the backward pass computes states anew, a segment at a time.
            backend: of the recurrence, one of `gru.BACKENDS`; None is what the platform takes.
        """
        kept = BACKENDS[backend or DEFAULT_BACKENDS[jax.default_backend()]].states_kept
        model, data, train = preset.model, preset.data, preset.train
        size = 8 if train.dtype == "float64" else 4
        parameters = size * model.num_parameters
        return cls(
            parameters=parameters,
            moments=2 * parameters,
            last_state=3 * parameters,
            gradients=parameters,
            activations=size * _activations(preset, kept, remat=remat) + _masks(preset),
            batches=4 * data.batch_size * (train.steps_per_epoch or 0),
        )

    def of_runs(self, num_runs: int, at_once: int) -> "Memory":
        """Returns what several runs need together, of which so many compute at once."""
        several = {name: num_runs * size for name, size in vars(self).items()}
        one_by_one = ("gradients", "activations")
        return Memory(**several | {name: at_once * getattr(self, name) for name in one_by_one})

    def of_one_device(self, num_devices: int) -> "Memory":
        """Returns what each device needs, of its own memory, if so many share the batches."""
        shared = ("activations", "batches")
        return Memory(
            **vars(self) | {name: -(-getattr(self, name) // num_devices) for name in shared}
        )

    @property
    def total(self) -> int:
        """All of them."""
        return sum(vars(self).values())

    @property
    def largest(self) -> str:
        """The name of the largest of them."""
        return max(vars(self), key=lambda part: getattr(self, part))

    def describe(self) -> str:
        """Returns the total and its parts in one line."""
        parts = ", ".join(
            f"{n.replace('_', ' ')} {readable(s)}" for n, s in vars(self).items() if s
        )
        return f"about {readable(self.total)} ({parts})"


def _activations(preset: Preset, kept: int, *, remat: bool) -> int:
    """Returns how many numbers a step keeps for its backward pass, or makes in it.

    Args:
        preset: the training.
        kept: see `gru.Backend.states_kept`.
        remat: see `Memory.of`.
    """
    model, data = preset.model, preset.data
    places, segment = data.batch_size * data.seq_len, data.batch_size * math.isqrt(data.seq_len)
    states = model.num_layers * model.hidden_dim
    ends = LOGITS_KEPT * model.vocab_size
    if not project_first(model.vocab_size, model.embedding_dim):
        ends += EMBEDDINGS_KEPT * model.embedding_dim
    if not remat:
        return places * (kept * states + ends)
    return places * (OUTPUTS_KEPT * model.hidden_dim + ends) + segment * kept * states


def _masks(preset: Preset) -> int:
    """Returns the bytes that dropout takes."""
    model, data = preset.model, preset.data
    elements = data.batch_size * data.seq_len * model.num_layers * model.hidden_dim
    return DROPOUT_BYTES_KEPT * elements if model.dropout else 0


def memory_needed(
    preset: Preset,
    *,
    remat: bool = False,
    backend: str | None = None,
    num_runs: int = 1,
    num_devices: int = 1,
) -> Memory:
    """Estimates what a training needs of one memory: an accelerator's own, or a process's.

    Args:
        preset: the training.
        remat: see `Memory.of`.
        backend: see there.
        num_runs: how many are trained together.
        num_devices: how many share the batches, or several runs.
    """
    alone = Memory.of(preset, remat=remat, backend=backend)
    if jax.default_backend() == "cpu":  # All cores of a process have the same memory.
        together = alone.of_runs(num_runs, at_once(num_runs))
        return together.of_one_device(jax.process_count())
    if num_runs == 1:
        return alone.of_one_device(num_devices)
    most = -(-num_runs // num_devices)
    return alone.of_runs(most, most)


def require_memory(needed: Memory, *, begun: bool = False, remat: bool = False) -> None:
    """Finds out, before anything is allocated, whether a training can fit.

    Args:
        needed: what `memory_needed` returned.
        begun: whether the training has, so that its sizes are what they are.
        remat: see `Memory.of`.

    Raises:
        InputError: it needs more than the machine has.
    """
    remedy = _remedy_once_begun(needed, remat=remat) if begun else _remedy(needed, remat=remat)
    memory.require(needed.total, f"the training needs {needed.describe()}", remedy)


def _remedy(needed: Memory, *, remat: bool) -> str:
    """Returns the flags that make the largest part of a training's memory smaller."""
    largest = needed.largest
    if largest == "batches":
        return "take a smaller --batch-size or --steps-per-epoch"
    if largest != "activations":
        return "take a smaller --hidden-dim, --num-layers or --embedding-dim"
    smaller = "take a smaller --batch-size, --seq-len, --hidden-dim or --num-layers"
    return smaller if remat else f"{smaller}, or --remat"


def _remedy_once_begun(needed: Memory, *, remat: bool) -> str:
    if needed.largest == "activations" and not remat:
        return "go on with --remat, or where there is more"
    return "go on where there is more"


MANY_PARAMETERS = 10
"""Parameters per training character above which advice is given.

Karpathy's advice for such models (char-rnn, its README) is as many of the one as of the other, by
order of magnitude; with ten times as many, what is seen in every epoch is soon known by heart.
"""

MANY_CHARACTERS = 20
"""Training characters per parameter above which advice is given.

Hoffmann et al., "Training Compute-Optimal Large Language Models" (2022), find about twenty tokens
a parameter best for what the training costs; beyond, a larger model learns more from them.
"""


def advice(num_parameters: int, num_characters: int) -> str:
    """Returns one line where parameters and training characters are far apart, else nothing."""
    sizes = f"note: {num_parameters:,} parameters for {num_characters:,} training characters"
    if num_parameters > MANY_PARAMETERS * num_characters:
        return (
            f"{sizes}, {num_parameters / num_characters:,.0f} for each: the model can learn them "
            "by heart; more text, a smaller --hidden-dim or more --dropout helps"
        )
    if num_characters > MANY_CHARACTERS * num_parameters:
        return (
            f"{sizes}, {num_characters / num_parameters:,.0f} characters for each: a larger "
            "--hidden-dim would learn more from them"
        )
    return ""
