"""Memory that a training step, or a gradient alone, takes at its peak: each in a fresh process."""

import ctypes
import dataclasses
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import torch

from astra_jax.config import Preset
from astra_jax.machine import placement
from benchmarks.contest import make_peer
from benchmarks.lineup import Rules
from benchmarks.peers import PEERS
from benchmarks.setting import Setting

Pass = Literal["training", "gradient"]
PASSES: tuple[Pass, ...] = ("training", "gradient")

ROOT = Path(__file__).parents[1]


def memory_of_all(setting: Setting, rules: Rules) -> dict[str, Any]:
    """Returns the peak of each contender in bytes, by name and pass, and what is missing.

    Nothing is raised for a process that fails: what was measured before it would be lost.
    """
    peaks: dict[str, dict[str, int]] = {name: {} for name in rules.peers}
    missing: dict[str, str] = {}
    for name, one in itertools.product(rules.peers, PASSES):
        rules.tell(f"{name}: memory, {one}")
        try:
            peaks[name][one] = _in_fresh_process(name, setting, one, rules.limit)
        except RuntimeError as error:
            missing[f"{name}'s memory, {one},"] = str(error)
    return {"memory": peaks, "memory_missing": missing}


def _in_fresh_process(name: str, setting: Setting, one: Pass, limit: float) -> int:
    """Returns the peak of a pass; raises `RuntimeError` with the last that the process said."""
    wanted = dataclasses.asdict(setting) | {"preset": setting.preset.to_dict()}
    command = [sys.executable, "-m", "benchmarks.memory", name, one, json.dumps(wanted)]
    # Only an optional contender may hang and have to be killed.
    timeout = limit if PEERS[name].optional else None
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            # On a GPU this process may hold most of the memory: take what is needed, no more.
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not ready after {limit:g} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return int(done.stdout)


def peak_of(name: str, setting: Setting, one: Pass) -> int:
    """Returns the bytes that two steps need at their peak, beyond what is there before them.

    There before are the libraries, the compiled program, the weights, the optimiser's moments and
    the batches.
    """
    with setting.arithmetic():
        peer = make_peer(name, setting)
        if one == "training":
            peer.prepare_training()
            run = peer.train
        else:
            peer.prepare_gradients()
            run = peer.gradient_step
        if name == "notebook-compiled":
            run(1)
        meter = _meter(setting, name)
        before = meter.reset()
        run(2)
        return meter.peak() - before


class _HostMeter:
    """Resident memory of this process."""

    def reset(self) -> int:
        """Forgets the peak, where the system can, and returns what it is now.

        What was freed goes back to the system first: used once more, it would not be seen.
        """
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # GNU's C library has it.
        if trim is not None:
            trim(0)
        forget = Path("/proc/self/clear_refs")
        if forget.exists():
            forget.write_text("5")
        return self.peak()

    def peak(self) -> int:
        """Returns the peak in bytes."""
        status = Path("/proc/self/status")
        # What getrusage tells on Linux is also that of the process which started this one.
        for line in status.read_text().splitlines() if status.exists() else ():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _CudaMeter:
    """Memory that PyTorch has allocated on a GPU."""

    def reset(self) -> int:
        """Forgets the peak, and returns what is allocated."""
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """Returns the peak in bytes."""
        return torch.cuda.max_memory_allocated()


class _JaxMeter:
    """Memory that JAX has allocated on an accelerator."""

    def reset(self) -> int:
        """Returns what is allocated; the peak cannot be forgotten, and nothing has run yet."""
        return self._statistics()["bytes_in_use"]

    def peak(self) -> int:
        """Returns the peak in bytes."""
        return self._statistics()["peak_bytes_in_use"]

    def _statistics(self) -> dict[str, int]:
        return jax.local_devices()[0].memory_stats() or {}


def _meter(setting: Setting, name: str) -> _HostMeter | _CudaMeter | _JaxMeter:
    of_torch = PEERS[name].framework == "torch"
    if of_torch and setting.torch_device.type == "cuda":
        return _CudaMeter()
    if not of_torch and jax.default_backend() != "cpu":
        return _JaxMeter()
    return _HostMeter()


def main(name: str, one: Pass, wanted: str) -> None:
    """Measures one contender, and prints its peak."""
    placement.split_cpu()
    values = json.loads(wanted)
    setting = Setting(**values | {"preset": Preset.from_dict(values["preset"])})
    print(peak_of(name, setting, one))


if __name__ == "__main__":
    main(*sys.argv[1:])  # pyright: ignore[reportArgumentType]
