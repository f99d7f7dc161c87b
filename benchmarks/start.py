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
TRAIN = ROOT / "scripts" / "train.py"

SIZES = {"shakespeare": 1_115_394, "names": 32_033}
"""Characters and words of the published corpora: random text of that size takes as long."""

_SHAPE = ("dataset", "embedding_dim", "hidden_dim", "num_layers", "dropout", "layer_norm")
_SHAPE += ("batch_size", "seq_len")

WARM, COLD = "first step, programs kept", "first step, all compiled"


class Process:
    """A command that is run to its end, each time anew."""

    def __init__(self, name: str, command: Sequence[str], cache: Path | None, *, keep: bool = True):
        """Takes what it is.

        Args:
            name: see `Contender`.
            command: what is run, after Python's own path.
            cache: the user's cache folder as the process sees it; None is the real one.
            keep: whether what is in that folder is still there the next time.
        """
        self.name, self.command, self.cache, self.keep = name, command, cache, keep

    def warm_up(self, seconds: float) -> None:
        """Runs once: files are read from the disk only the first time."""
        del seconds
        self.turn()

    def turn(self) -> float:
        """Runs; returns the seconds until its end."""
        if self.cache is not None and not self.keep:
            shutil.rmtree(self.cache, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            out = ["--out", f"{folder}/run"] if "train.py" in " ".join(self.command) else []
            return clocked(lambda: _run([sys.executable, *self.command, *out], self._environment()))

    def _environment(self) -> Mapping[str, str]:
        extra = {} if self.cache is None else {"XDG_CACHE_HOME": str(self.cache)}
        return os.environ | extra


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def start_times(setting: Setting, rules: Rules) -> dict[str, Any]:
    """Times imports, and `scripts/train.py` until its first step is done, in turn.

    Returns:
        The record, ready for JSON; its unit is a process.
    """
    preset = setting.preset
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text(_random_text(preset.data.dataset), encoding="utf-8")
        step = ["-m", "benchmarks.first_step", str(TRAIN), "--quiet", "--corpus", str(corpus)]
        step += _shape_flags(preset)
        lineup = Lineup(rules)
        processes = [
            Process("import jax", ["-c", "import jax"], None),
            Process("and its devices", ["-c", "import jax; jax.devices()"], None),
            Process("python alone", ["-c", "pass"], None),
            Process("import torch", ["-c", "import torch"], None),
            Process(WARM, step, Path(folder) / "kept"),
            Process(COLD, step, Path(folder) / "new", keep=False),
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
