"""The processor of this machine, without JAX: how many cores, and what Linux tells of them."""

import os
from pathlib import Path


def num_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpuinfo() -> list[str]:
    """Returns the lines that Linux tells of every core, `field : value`; none elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []
