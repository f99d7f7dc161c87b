"""Parity runs under the same switches as the other tests."""

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
)

import jax
import torch

# Strict type promotion stays off here: Flax's own LayerNorm promotes implicitly in float64.
jax.config.update("jax_numpy_rank_promotion", "raise")
torch.set_num_threads(1)  # Tiny tensors: a second thread costs more than it brings.
