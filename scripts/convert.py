#!/usr/bin/env python
"""Convert a trained model between a run folder, .pth and .safetensors, or export it to ONNX.

A run and a .pth made of it hold the optimiser's state too, so that training goes on in the other
framework; --weights-only leaves it out.

Examples:
  python scripts/convert.py runs/shakespeare-gamma-1 gamma.pth
  python scripts/convert.py gamma.pth runs/from-torch
  python scripts/convert.py runs/shakespeare-gamma-1 model.onnx
  python scripts/convert.py runs/shakespeare-gamma-1 --notebook-dir saved_models
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.errors import InputError
from astra_torch import conversion, notebook_files


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Source, destination, and what a file does not say of itself."""

    source: Positional[Path]
    """A run folder, or a file named .pth or .safetensors."""
    destination: Annotated[Positional[Path | None], default("none")] = None
    """A new .pth, .safetensors or .onnx file, or, without such a suffix, a new run folder."""
    notebook_dir: Annotated[Path | None, default("none")] = None
    """Write NAME_v{n}.pth and NAME_latest.pth here, as the notebooks do."""
    best: bool = False
    """Of a run, take the checkpoint of the lowest validation loss, not the newest."""
    trust_shapes: bool = False
    """Go by the arrays' shapes where a label of the file contradicts them."""
    weights_only: bool = False
    """Leave the optimiser's state out: of a .pth, two thirds of the size."""
    corpus: Annotated[str | None, default("the study's")] = None
    """The text whose characters are the model's, where the file holds none."""


def main(arguments: Arguments) -> None:
    """Reads the source once and writes every form that was asked for."""
    if not (arguments.destination or arguments.notebook_dir):
        raise InputError("nothing to write: give a destination or --notebook-dir")
    folder = arguments.notebook_dir
    if folder and folder.exists() and not folder.is_dir():  # Before anything is written.
        raise InputError(f"--notebook-dir {folder} is no folder: choose another name")
    trained = conversion.read(
        arguments.source,
        corpus=arguments.corpus,
        trust_shapes=arguments.trust_shapes,
        weights_only=arguments.weights_only,
        best=arguments.best,
    )
    caveats = []
    if arguments.destination:
        conversion.write(trained, arguments.destination, weights_only=arguments.weights_only)
        cli.say(f"{trained.preset.title}: wrote {arguments.destination}")
        caveats += conversion.caveats(trained, arguments.destination)
    if arguments.notebook_dir:
        for path in notebook_files.write(trained, arguments.notebook_dir):
            cli.say(f"{trained.preset.title}: wrote {path}")
        caveats += notebook_files.caveats(trained)
    for caveat in dict.fromkeys(caveats):
        cli.note(f"note: {caveat}")


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
