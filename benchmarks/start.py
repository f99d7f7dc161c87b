"""How long it takes to begin: whole processes, from the command to what they were called for."""

import os
import random
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_jax.config import Preset
from benchmarks.lineup import Lineup, Rules
from benchmarks.rounds import clocked
from benchmarks.setting import Setting

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "train.py"

SIZES = {"shakespeare": 1_115_394, "names": 32_033}
"""Characters and words of the published corpora: random text of that size takes as long."""

_SHAPE = ("dataset", "embedding_dim", "hidden_dim", "num_layers", "dropout", "layer_norm")
_SHAPE += ("batch_size", "seq_len")

WARM, COLD = "first step, programs kept", "first step, all compiled"


class Process:
    """A command that is run to its end, each time anew."""

    def __init__(self, name: str, command: Sequence[str]):
        """Takes what it is called, see `Contender`, and what is run, after Python's own path."""
        self.name, self.command = name, command

    def warm_up(self, seconds: float) -> None:
        """Runs once: files are read from the disk only the first time."""
        del seconds
        self.turn()

    def turn(self) -> float:
        """Runs; returns the seconds until its end."""
        return clocked(lambda: _run(self.command, os.environ))


class FirstStep(Process):
    """A training that ends after its first step."""

    def __init__(self, name: str, command: Sequence[str], cache: Path, *, keep: bool):
        """Takes what it is.

        Args:
            name: see `Contender`.
            command: see `Process`.
            cache: the user's cache folder as the process sees it.
            keep: whether what is in that folder is still there the next time.
        """
        super().__init__(name, command)
        self.cache, self.keep = cache, keep

    def turn(self) -> float:
        """Trains into a folder of its own; returns the seconds until its end."""
        if not self.keep:
            shutil.rmtree(self.cache, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [*self.command, "--out", f"{folder}/run"]
            environment = os.environ | {"XDG_CACHE_HOME": str(self.cache)}
            return clocked(lambda: _run(command, environment))


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
    )


def start_times(setting: Setting, rules: Rules) -> dict[str, Any]:
    """Times imports, and `scripts/train.py` until its first step is done, in turn.

    Returns:
        The record, ready for JSON; its unit is a process.
    """
    preset = setting.preset
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text(_random_text(preset.data.dataset), encoding="utf-8")
        step = ["-m", "benchmarks.first_step", str(SCRIPT), "--quiet", "--corpus", str(corpus)]
        step += [*_shape_flags(preset), f"--dtype={preset.train.dtype}"]
        step += [] if setting.devices is None else [f"--devices={setting.devices}"]
        lineup = Lineup(rules)
        processes = [
            Process("import jax", ["-c", "import jax"]),
            Process("and its devices", ["-c", "import jax; jax.devices()"]),
            Process("python alone", ["-c", "pass"]),
            Process("import torch", ["-c", "import torch"]),
            FirstStep(WARM, step, Path(folder) / "kept", keep=True),
            FirstStep(COLD, step, Path(folder) / "new", keep=False),
        ]
        lineup.enter([(process, None) for process in processes])
        return lineup.run()


def _shape_flags(preset: Preset) -> list[str]:
    fields = preset.model.to_dict() | preset.data.to_dict()
    return [f"--{name.replace('_', '-')}={fields[name]}" for name in _SHAPE]


def _random_text(dataset: str) -> str:
    rng = random.Random(0)
    if dataset == "names":
        lengths = (rng.randint(3, 9) for _ in range(SIZES[dataset]))
        return "\n".join("".join(rng.choices(string.ascii_lowercase, k=n)) for n in lengths)
    letters = string.ascii_letters + string.digits[:3] + "\n ,.;:!?'-"
    return "".join(rng.choices(letters[:65], k=SIZES[dataset]))
