"""How much memory training takes on corpora of different sizes.

python -m tests.large_corpora results/large-corpus.json

Makes the corpora, trains on each by the command that a person would use, with validation over a
tenth of it and the samples, and asks the system for the largest memory that the process had. Exits
with 1 if that grows by more than `MOST_GROWTH_MB` from the first size to any other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from astra_jax.data import builtin_corpus
from astra_jax.machine.environment import describe_environment
from astra_jax.storage.atomic import require_new_file, write_text

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
SIZES_MB = (100, 300, 1000)
MOST_GROWTH_MB = 40
"""The starts of validation windows are in memory: 4 bytes for every 128 characters."""

FLAGS = dict(
    embedding_dim=16, hidden_dim=32, batch_size=512, seq_len=128, epochs=1, steps_per_epoch=400
)


def write_corpus(path: Path, size: int) -> None:
    """Writes text of at least a size in bytes; it has letters of one, two, three and four bytes."""
    play = builtin_corpus.play()
    with path.open("w", encoding="utf-8", newline="") as file:
        number = 0
        while file.tell() < size:
            file.write(f"{play}\n§ {number}, “漢字” 😀\n")
            number += 1


def measure(size_mb: int, folder: Path) -> dict[str, Any]:
    """Trains on a corpus of a size, and returns what that took."""
    corpus = folder / "corpus.txt"
    write_corpus(corpus, size_mb * 1_000_000)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FLAGS.items()]
    command = [
        sys.executable,
        TRAIN,
        "--corpus",
        corpus,
        "--out",
        folder / "run",
        "--quiet",
        *flags,
    ]
    started = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"training on {size_mb} MB ended with {process.returncode}")
    (line,) = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(line)
    config = json.loads((folder / "run" / "config.json").read_text())
    return {
        "corpus_bytes": corpus.stat().st_size,
        "characters": config["corpus"]["characters"],
        "classes": config["preset"]["model"]["vocab_size"],
        "peak_rss_mb": round(usage.ru_maxrss / 1024, 1),
        "seconds": round(time.monotonic() - started, 1),
        **{name: metrics[name] for name in ("chars_per_s", "train_seconds", "eval_seconds")},
        **{name: metrics[name] for name in ("train_loss_nats", "val_loss_nats")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the memory of training on large corpora.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes-mb", type=int, nargs="+", default=SIZES_MB)
    arguments = parser.parse_args()
    require_new_file(arguments.out)
    results = []
    for size_mb in arguments.sizes_mb:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(size_mb, Path(folder)))
        print(json.dumps(results[-1]), flush=True)
    peaks = [result["peak_rss_mb"] for result in results]
    growth = round(max(peaks) - peaks[0], 1)
    record = {
        "flags": FLAGS,
        "results": results,
        "growth_mb": growth,
        "most_growth_mb": MOST_GROWTH_MB,
        "environment": describe_environment(),
    }
    write_text(arguments.out, json.dumps(record, indent=2) + "\n")
    return int(growth > MOST_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
