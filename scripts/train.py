#!/usr/bin/env python
"""Train a character-level GRU language model in JAX.

Examples:
  python scripts/train.py --model gamma
  python scripts/train.py --model alpha --dataset names
  python scripts/train.py --corpus my.txt --hidden-dim 384 --num-layers 4
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from astra_jax import cli, experiments
from astra_jax.cli import PresetBool, PresetFloat, PresetInt, PresetStr, default
from astra_jax.errors import InputError
from astra_jax.figures import draw_losses
from astra_jax.fitting import fit
from astra_jax.presets import find_preset, override
from astra_jax.progress import ConsoleProgress
from astra_jax.samples import write_samples
from astra_jax.summary import summarize


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags; what one leaves open, the preset decides."""

    model: str = "alpha"
    """alpha, beta or gamma; small, medium and large name the three names models."""
    dataset: Annotated[str | None, default("shakespeare")] = None
    """shakespeare (running text) or names (one word a line)."""
    corpus: Annotated[str | None, default("the published one")] = None
    """A UTF-8 text file, or `builtin` for the text that the project makes itself."""
    out: Annotated[Path | None, default("runs/…")] = None
    """Folder for config, vocabulary, metrics, checkpoints and samples; must be new or empty."""
    resume: Annotated[Path | None, default("a new run")] = None
    """Go on with the run in this folder, with its own configuration."""
    summary: bool = False
    """Print the model's modules, shapes and parameters, and train nothing."""

    embedding_dim: PresetInt = None
    """E, width of a character's embedding."""
    hidden_dim: PresetInt = None
    """H, width of every layer's state."""
    num_layers: PresetInt = None
    """L, number of stacked GRU layers."""
    dropout: PresetFloat = None
    """Share of the carried state zeroed at every training step, from 0 to below 1."""
    layer_norm: PresetBool = None
    """LayerNorm before the head, True or False."""

    batch_size: PresetInt = None
    """B, windows or words in a batch."""
    seq_len: PresetInt = None
    """T, characters in a window, or the length that words are padded to."""
    train_fraction: PresetFloat = None
    """Share of the corpus that is trained on, between 0 and 1; the rest validates."""

    epochs: PresetInt = None
    """Number of epochs."""
    steps_per_epoch: PresetInt = None
    """Optimiser steps in an epoch."""
    optimizer: PresetStr = None
    """adamw (decoupled decay) or adam (no decay)."""
    learning_rate: PresetFloat = None
    """Learning rate of the first epoch."""
    schedule: PresetStr = None
    """cosine (falls once an epoch, to 0) or constant."""
    weight_decay: PresetFloat = None
    """Decoupled decay of every parameter, per unit of learning rate."""
    clip: PresetFloat = None
    """Largest global norm of the gradient; 0 does not clip."""
    seed: PresetInt = None
    """Fixes weights, split, batches, dropout and samples."""
    dtype: PresetStr = None
    """float32, float64, or bfloat16 (products only; parameters stay float32)."""

    def overrides(self) -> dict[str, object]:
        """Returns the fields of the preset that were given."""
        own = ("model", "dataset", "corpus", "out", "resume", "summary")
        fields = {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name not in own and (value := getattr(self, field.name)) is not None
        }
        if fields.get("clip") == 0:
            fields["clip"] = None
        return fields


def main(arguments: Arguments) -> None:
    """Begins or resumes a run and trains it to its end."""
    if arguments.resume:
        _require_nothing_else(arguments)
        run, split = experiments.resume(arguments.resume, arguments.corpus)
    else:
        preset = override(find_preset(arguments.model, arguments.dataset), **arguments.overrides())
        if arguments.summary:
            Console(highlight=False).print(summarize(preset))
            return
        run, split = experiments.begin(preset, arguments.corpus, arguments.out)
    print(f"{run.describe()}, into {run.folder}")
    if run.uses_builtin_text:
        cli.note(experiments.BUILTIN_WARNING)
    try:
        with ConsoleProgress() as progress:
            fit(run, split, progress)
    except KeyboardInterrupt:
        cli.note(f"go on with: python scripts/train.py --resume {run.folder}")
        raise
    write_samples(run)
    draw_losses(run)
    last = run.metrics()[-1]
    print(f"done: validation loss {last.val_loss_nats:.4f} nats per character, all in {run.folder}")
    if run.uses_builtin_text:
        cli.note(experiments.BUILTIN_WARNING)


def _require_nothing_else(arguments: Arguments) -> None:
    changed = [name for name in ("out", "summary") if getattr(arguments, name)]
    changed += list(arguments.overrides())
    if changed:
        flags = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise InputError(
            f"--resume takes everything from the run's own config.json: leave out {flags}"
        )


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
