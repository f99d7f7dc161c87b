"""How many bytes this machine can hold."""

import os
from pathlib import Path

import jax

from astra_jax.errors import InputError
from astra_jax.units import readable

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """Returns the bytes that this machine's device may hold: an accelerator's own, or main memory.

    A container's limit counts where it is the lower one.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUP_LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def require(needed: int, said: str, remedy: str) -> None:
    """Finds out, before anything is allocated, whether it can be.

    Args:
        needed: bytes.
        said: what needs them, and how many these are.
        remedy: what to do where there are not so many.

    Raises:
        InputError: this machine has fewer.
    """
    available = machine_memory()
    if needed > available:
        raise InputError(f"{said}, this machine has {readable(available)}: {remedy}")
