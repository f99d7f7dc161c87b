"""Kills trainings at random moments, resumes them, and looks whether anything is lost.

python -m tests.kill_runs FILE [--kills N] [--seed S]

Every kill is a SIGKILL to a process of `scripts/train.py`, half of them while a checkpoint is
being written. Each run is then resumed to its end and held against one that nobody touched: the
newest and the best checkpoint to the bit, every line of metrics but for its times, the samples.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from astra_jax.data import builtin_corpus
from astra_jax.experiments import restoring
from astra_jax.machine.environment import describe_environment
from astra_jax.runs.folder import Run
from astra_jax.storage.atomic import write_text
from tests.trainings import without_times

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
RECIPES: dict[str, list[str]] = {
    "adamw, cosine, clip": ["--model", "beta"],
    "adam": ["--model", "medium"],
    "adamw": ["--model", "large"],
}
TINY = (
    "--embedding-dim 4 --hidden-dim 8 --seq-len 16 --batch-size 4 --steps-per-epoch 40 --epochs 4"
)
STEPS = 160
KINDS = ("in a checkpoint", "between checkpoints", "in a checkpoint", "any time")
OPTIONS = [*TINY.split(), "--checkpoint-every", "7"]


def main() -> None:
    """Kills, resumes, compares, and writes what came of it; ends with 1 if a run was not equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes = kill_runs(arguments.kills, arguments.seed)
    values = {
        "kills": len(outcomes),
        "moments": Counter(outcome["moment"] for outcome in outcomes),
        "not_equal": sum(bool(outcome["differences"]) for outcome in outcomes),
        "environment": describe_environment(),
        "outcomes": outcomes,
    }
    write_text(arguments.file, json.dumps(values, indent=1) + "\n")
    print(f"{values['kills']} kills, {dict(values['moments'])}, not equal: {values['not_equal']}")
    sys.exit(bool(values["not_equal"]) or not outcomes)


Ended = subprocess.CompletedProcess[str]


def run_apart(command: Sequence[str]) -> Ended:
    """Runs a command to its end in a process of its own."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_runs(
    kills: int,
    seed: int,
    recipes: Sequence[str] = tuple(RECIPES),
    run_whole: Callable[[Sequence[str]], Ended] = run_apart,
) -> list[dict[str, Any]]:
    """Returns, for each kill, when it came and what was different in the end.

    Args:
        kills: how many.
        seed: decides their moments.
        recipes: of the trainings.
        run_whole: runs the commands that nobody kills.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wholes, seconds = {}, (0.0, 0.0)
        for recipe in recipes:
            wholes[recipe], seconds = _train(recipe, folder, run_whole)
        outcomes = []
        for number in range(kills):
            recipe = rng.choice(recipes)
            run = folder / f"killed {number}"
            kind = KINDS[number % len(KINDS)]
            moment = _kill(recipe, folder, run, rng, seconds, kind)
            outcomes.append(
                {"recipe": recipe, **moment, **_outcome(run, recipe, folder, wholes, run_whole)}
            )
            print(json.dumps(outcomes[-1]), flush=True)
        return outcomes


def _command(recipe: str, folder: Path, *more: str) -> list[str]:
    words = recipe != "adamw, cosine, clip"
    corpus = folder / ("words.txt" if words else "text.txt")
    text = (
        "\n".join(builtin_corpus.names().split()[:301]) if words else builtin_corpus.play()[:6000]
    )
    corpus.write_text(text, encoding="utf-8")
    flags = RECIPES[recipe] + OPTIONS
    return [sys.executable, str(TRAIN), *flags, "--corpus", str(corpus), *more]


def _train(
    recipe: str, folder: Path, run_whole: Callable[[Sequence[str]], Ended]
) -> tuple[Run, tuple[float, float]]:
    """Trains undisturbed; returns the run, when its first file came to be, and when it ended."""
    run, started = folder / recipe, time.time()
    done = run_whole(_command(recipe, folder, "--out", str(run)))
    done.check_returncode()
    begun = (run / "config.json").stat().st_mtime - started
    return Run.open(run), (begun, time.time() - started)


def _kill(
    recipe: str,
    folder: Path,
    run: Path,
    rng: random.Random,
    seconds: tuple[float, float],
    kind: str,
) -> dict[str, Any]:
    """Trains until a random moment of a kind, and kills; returns what the moment was."""
    after_step = rng.randrange(STEPS - 20) if kind != "any time" else 0
    after_seconds = rng.uniform(*seconds) if kind == "any time" else 0.0
    command, started = _command(recipe, folder, "--out", str(run)), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            late = time.perf_counter() - started > after_seconds
            there = kind != "in a checkpoint" or _half_written(run)
            if late and there and _newest_step(run) >= after_step:
                break
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))  # A step takes less.
        process.send_signal(signal.SIGKILL)
        ended = process.wait() != -signal.SIGKILL
    half = _half_written(run)
    moment = "after its end" if ended else "in a checkpoint" if half else "elsewhere"
    return {"moment": moment, "seconds": round(time.perf_counter() - started, 3)}


def _half_written(run: Path) -> list[Path]:
    return list(run.glob("*/*orbax-checkpoint-tmp*"))


def _outcome(
    run: Path,
    recipe: str,
    folder: Path,
    wholes: dict[str, Run],
    run_whole: Callable[[Sequence[str]], Ended],
) -> dict[str, Any]:
    """Resumes a killed run, or begins it again where it had not come to be, and compares."""
    begun = (run / "vocabulary.json").exists()
    if begun:
        flags = [sys.executable, str(TRAIN), "--resume", str(run), "--checkpoint-every", "7"]
        standing = _newest_step(run)
    else:
        run, standing = run.with_name(f"{run.name} again"), 0
        flags = _command(recipe, folder, "--out", str(run))
    done = run_whole(flags)
    if done.returncode:
        return {"resumed_at": standing, "differences": [done.stderr.strip()]}
    return {"resumed_at": standing, "differences": compare(Run.open(run), wholes[recipe])}


def _newest_step(run: Path) -> int:
    steps = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()]
    return max(steps, default=0)


def compare(run: Run, whole: Run) -> list[str]:
    """Returns what two finished runs differ in; their times and paths may."""
    found = []
    for best in (False, True):
        one, other = (restoring.restore_state(each, best=best) for each in (run, whole))
        leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        if not all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves):
            found.append(f"{'best' if best else 'newest'} checkpoint")
    if without_times(run.metrics()) != without_times(whole.metrics()):
        found.append(f"metrics of {[line.epoch for line in run.metrics()]}")
    if (run.folder / "samples.txt").read_bytes() != (whole.folder / "samples.txt").read_bytes():
        found.append("samples")
    if dataclasses.replace(run.corpus, path=None) != dataclasses.replace(whole.corpus, path=None):
        found.append("corpus")
    return found


if __name__ == "__main__":
    main()
