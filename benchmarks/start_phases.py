"""Where the time of a start goes: what `scripts/train.py` does until its first step, in phases.

python -m benchmarks.start_phases alpha     # a second time, with the programs kept by the first
"""

import argparse
import importlib
import runpy
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"

_CLOCK = [time.perf_counter()]


def _phase(name: str) -> None:
    """Prints what has passed since the phase before."""
    now = time.perf_counter()
    print(f"{name:28}{now - _CLOCK[-1]:7.3f} s{now - _CLOCK[0]:9.3f} s")
    _CLOCK.append(now)


def main(model: str) -> None:
    """Does, in the order of the script, what precedes the first step, and that step."""
    jax = importlib.import_module("jax")
    _phase("import jax")
    runpy.run_path(str(SCRIPT), run_name="imported")
    _phase("the script's other imports")

    from astra_jax.experiments import lifecycle
    from astra_jax.machine import compile_cache, placement
    from astra_jax.presets import find_preset
    from astra_jax.training.fitting import FitOptions, steps_in_epoch
    from astra_jax.training.trainer import Keys

    placement.split_cpu()
    jax.devices()
    print(compile_cache.enable(), end="")
    _phase("devices, cache")
    (preset,), _, (split,) = lifecycle.prepare(find_preset(model, None), None)
    _phase("corpus")
    trainer, place = FitOptions().trainer(preset, steps_in_epoch(preset, split.train))
    keys = Keys.from_seed(preset.train.seed)
    state = jax.block_until_ready(trainer.init(keys.init))
    _phase("weights")
    rows = split.train.epoch_rows(jax.random.fold_in(keys.batches, 0), trainer.steps_per_epoch)
    data, dropout_key = place.replicate(split.train), place.replicate(keys.dropout)
    arguments = place.replicate(state), data, place.share(rows), 0, 1, dropout_key
    _phase("batches, placement")
    traced = type(trainer).run_steps.trace(trainer, *arguments)
    _phase("trace the step")
    lowered = traced.lower()
    _phase("lower it")
    step = lowered.compile()
    _phase("compile it, or read it")
    jax.block_until_ready(step(*arguments))
    _phase("first step")


if __name__ == "__main__":
    # Not `cli`, whose imports would be counted.
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("model", choices=["alpha", "beta", "gamma"])
    main(parser.parse_args().model)
