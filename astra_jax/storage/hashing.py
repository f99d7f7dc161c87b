"""What tells whether numbers are the ones that were written."""

import hashlib
from collections.abc import Mapping

import numpy as np


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
