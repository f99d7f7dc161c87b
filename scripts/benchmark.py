#!/usr/bin/env python
"""Measure how fast Astra is, beside others that do the same work, in turn on one machine.

Examples:
  python scripts/benchmark.py --what train --model gamma
  python scripts/benchmark.py --what sample --peers notebook,torch-stateful --repeats 5
  python scripts/benchmark.py --what all --model alpha --json results/benchmarks/alpha.json
  python scripts/benchmark.py --tables results/benchmarks
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

# The benchmarks stand beside the packages that are installed, and are none of them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.config import Preset
from astra_jax.console import Console
from astra_jax.errors import InputError
from astra_jax.machine import placement
from astra_jax.presets import find_preset, override
from benchmarks import peers, records
from benchmarks.lineup import LIMIT_SECONDS, Rules
from benchmarks.page import write_tables
from benchmarks.setting import Precision, Setting
from benchmarks.tables import WIDTH, tables_of

SIZES = ("embedding_dim", "hidden_dim", "num_layers", "batch_size", "seq_len")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured, and on what; --tables writes what was measured before."""

    what: Literal[
        "train", "eval", "sample", "length", "memory", "start", "growth", "seeds", "all"
    ] = "train"
    """A step, a batch's evaluation, texts, their lengths, memory, a start, growth, seeds, all."""
    model: str = "alpha"
    """alpha, beta or gamma; small, medium and large name the three names models."""
    dataset: Annotated[str | None, default("shakespeare")] = None
    """shakespeare or names."""
    peers: Annotated[str | None, default("all")] = None
    """Who takes part beside ours, parted by commas."""
    repeats: int = 7
    """Rounds in which everyone takes a turn."""
    seconds: float = Rules.seconds
    """How long a turn takes, about."""
    limit: float = LIMIT_SECONDS
    """Seconds that torch.compile, or another that may fail, has to get ready."""
    precision: Precision = "highest"
    """Of the products: highest is float32, tf32 needs a GPU, bf16 keeps the rest in float32."""
    devices: Annotated[int | Literal["all"] | None, default("what training takes")] = None
    """JAX's devices that share each batch."""
    threads: Annotated[int | None, default("one for each core")] = None
    """Threads of PyTorch and ONNX Runtime on the CPU."""
    json: Annotated[Path | None, default("none")] = None
    """The file to write into, with versions and machine; what else was measured there stays."""
    tables: Annotated[Path | None, default("none")] = None
    """Measure nothing: write the tables and figures of this folder's files into its README.md."""

    embedding_dim: Annotated[int | None, default("the model's")] = None
    """E, width of a character's embedding."""
    hidden_dim: Annotated[int | None, default("the model's")] = None
    """H, width of every layer's state."""
    num_layers: Annotated[int | None, default("the model's")] = None
    """L, number of stacked GRU layers."""
    batch_size: Annotated[int | None, default("the model's")] = None
    """B, windows or words in a batch."""
    seq_len: Annotated[int | None, default("the model's")] = None
    """T, characters in a window."""

    def preset(self) -> Preset:
        """Returns the model and its batches, with the sizes that were given."""
        return override(find_preset(self.model, self.dataset), **self._sizes())

    def _sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in SIZES if getattr(self, name) is not None}

    def require_use(self) -> None:
        """Refuses flags that would change nothing, as an `InputError`."""
        if self.devices is not None and self.what not in (*records.OF_BATCHES, "all"):
            raise InputError(f"--what {self.what} takes its own devices: leave out --devices")
        if self.what == "growth" and self._sizes():
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in self._sizes())
            raise InputError(f"--what growth takes its own sizes: leave out {flags}")

    def rules(self) -> dict[str, Rules]:
        """Returns how each measurement is made."""
        whats = records.ALL if self.what == "all" else (self.what,)
        return {
            what: Rules(
                peers=taking_part,
                repeats=self.repeats,
                seconds=self.seconds,
                limit=self.limit,
                tell=cli.note,
            )
            for what, taking_part in peers.choose(self.peers, whats, self.precision).items()
        }


def main(arguments: Arguments) -> None:
    """Measures, prints the tables and writes the record; or writes the tables of all records."""
    if arguments.tables is not None:
        for path in write_tables(arguments.tables):
            print(f"wrote {path}")
        return
    arguments.require_use()
    placement.split_cpu()
    setting = Setting(arguments.preset(), arguments.precision, arguments.devices, arguments.threads)
    console = Console(width=max(WIDTH, Console().width))
    for record in records.measure_all(arguments.rules(), setting, arguments.json):
        for table in tables_of(record):
            console.print(table.rich())


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
