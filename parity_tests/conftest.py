"""Parity runs under the same switches as the other tests."""

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
)

from collections.abc import Iterator

import jax
import pytest
import torch

# Strict type promotion stays off here: Flax's own LayerNorm promotes implicitly in float64.
jax.config.update("jax_numpy_rank_promotion", "raise")
torch.set_num_threads(1)  # Tiny tensors: a second thread costs more than it brings.


@pytest.fixture(scope="module")
def compiled_in_haste() -> Iterator[None]:
    """Leaves XLA's optimizations out, where both sides of a comparison run under it.

    Compiling is most of the work of programs as tiny as these, of which a fault needs its own.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
