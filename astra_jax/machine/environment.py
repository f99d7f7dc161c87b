"""What a result was made with: versions and machine."""

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import jax

from astra_jax import __version__
from astra_jax.machine.processor import cpuinfo, num_cores

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe_environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Returns versions, processor and devices; nothing that names the machine or its user.

    Args:
        packages: whose versions to tell beside those of the training itself; None is told of one
            that is not installed.
    """
    return {
        "astra": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in (*_PACKAGES, *packages)},
        "system": platform.system(),
        "processor": _processor(),
        "cores": num_cores(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def vector_instructions() -> str | None:
    """Returns the widest vector instructions of the processor, where Linux tells them.

    Processors of one model name differ in them, and with them in the speed of products.
    """
    flags = (_cpuinfo("flags") or "").split()
    known = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
    return next((name for name in known if name in flags), None)


def _processor() -> str:
    """Returns the processor's model, which Linux tells in /proc only."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str | None:
    found = (line.partition(":")[2].strip() for line in cpuinfo() if line.startswith(field))
    return next(found, None)
