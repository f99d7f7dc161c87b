#!/usr/bin/env python
"""Certify that JAX and PyTorch compute the same.

Examples:
  python scripts/validate.py --model gamma
  python scripts/validate.py --model alpha --level training --steps 2000 --json alpha.json
  python scripts/validate.py --weights runs/shakespeare-gamma-1 gamma.pth
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.console import Console
from astra_jax.errors import InputError
from astra_jax.experiments.lifecycle import builtin_warning
from astra_jax.presets import find_preset, override
from astra_jax.storage.atomic import require_new_file, write_text
from astra_torch.parity.checks import DTYPES
from astra_torch.parity.progress import StageProgress
from astra_torch.parity.table import WIDTH, certificate_tables
from astra_torch.parity.validation import (
    Stage,
    Subject,
    choose_stages,
    subject_of_files,
    subject_of_preset,
    validate,
)

EXIT_DISAGREES = 1


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is validated, how deeply, and where the certificate goes."""

    model: Annotated[str | None, default("alpha")] = None
    """alpha, beta or gamma; small, medium and large name the three names models."""
    dataset: Annotated[str | None, default("shakespeare")] = None
    """shakespeare (running text) or names (one word a line)."""
    weights: Annotated[tuple[Path, ...] | None, default("random ones")] = None
    """A run folder or a weight file; or two forms of one model, for JAX and for PyTorch."""
    level: Stage | Literal["all"] = "all"
    """Forward pass, backward pass, every step of a training, ONNX Runtime, samplers, or all."""
    steps: int = 10
    """Training steps, at full batch and length."""
    characters: int = 100_000
    """Characters that each sampler writes, at least."""
    dtype: Literal["both", "float64", "float32"] = "both"
    """float64 (JAX equals PyTorch to 1e-12) or float32 (JAX is as near to that as PyTorch is)."""
    seed: Annotated[int | None, default("the preset's")] = None
    """Decides weights, batches and dropout."""
    corpus: Annotated[str | None, default("the published one")] = None
    """A UTF-8 text file, or `builtin` for the text that the project makes itself."""
    json: Annotated[Path | None, default("none")] = None
    """Write the certificate into this new file."""
    trust_shapes: bool = False
    """Go by the arrays' shapes where a label of a file contradicts them."""


def main(arguments: Arguments) -> int:
    """Validates, prints the tables, writes the certificate; returns 1 if anything disagrees."""
    _check(arguments)
    dtypes = DTYPES if arguments.dtype == "both" else (arguments.dtype,)
    stages = choose_stages(arguments.level, dtypes)
    subject = _subject(arguments)
    if subject.corpus.origin == "built-in":
        cli.note(builtin_warning())
    progress = StageProgress()
    try:
        certificate = validate(
            subject,
            stages,
            dtypes=dtypes,
            num_steps=arguments.steps,
            num_characters=arguments.characters,
            progress=progress,
        )
    finally:
        progress.end()
    console = Console(highlight=False, width=WIDTH)
    for part in certificate_tables(certificate):
        console.print(part)
    if arguments.json:
        write_text(arguments.json, certificate.to_json(), overwrite=False)
        console.print(f"written to {arguments.json}", soft_wrap=True, markup=False)
    return 0 if certificate.ok else EXIT_DISAGREES


def _check(arguments: Arguments) -> None:
    """Refuses what could only fail after the work is done."""
    # One step does not tell whether anything moves.
    least = {"steps": 2 if arguments.level in ("training", "all") else 1, "characters": 1}
    for name, number in least.items():
        if getattr(arguments, name) < number:
            raise InputError(f"--{name} must be at least {number}, got {getattr(arguments, name)}")
    if arguments.json:
        require_new_file(arguments.json)
    if arguments.weights is not None and (arguments.model or arguments.dataset):
        raise InputError("--weights says which model it is: leave out --model and --dataset")


def _subject(arguments: Arguments) -> Subject:
    if arguments.weights is not None:
        return subject_of_files(
            arguments.weights,
            arguments.corpus,
            seed=arguments.seed,
            trust_shapes=arguments.trust_shapes,
        )
    preset = find_preset(arguments.model or "alpha", arguments.dataset)
    if arguments.seed is not None:
        preset = override(preset, seed=arguments.seed)
    return subject_of_preset(preset, arguments.corpus)


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
