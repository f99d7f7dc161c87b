"""What every contender is given: the same shapes, weights, batches and arithmetic."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Int

from astra_jax.config import Preset
from astra_jax.data.datasets import Dataset, PaddedWords, TextWindows
from astra_jax.errors import InputError
from astra_jax.losses import IGNORE
from astra_jax.machine.placement import Devices, Placement
from astra_jax.machine.processor import num_cores
from astra_jax.presets import override
from astra_torch.parity.cases import random_arrays
from astra_torch.weights import Arrays, Layout, find_layout

Precision = Literal["highest", "tf32", "bf16"]

NUM_BATCHES = 8
"""Different batches, taken in turn."""

_JAX_PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bf16": None}
_TORCH_PRECISIONS = {"highest": "highest", "tf32": "high", "bf16": "highest"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured, and on what.

    Attributes:
        preset: model, batch and recipe.
        precision: of the matrix products: float32 as exact as there is, TF32, or bfloat16
            operands with everything else in float32.
        devices: of JAX, as `--devices` of training has it; None is what training takes.
        threads: of PyTorch on the CPU; None is one for each core.
    """

    preset: Preset
    precision: Precision = "highest"
    devices: Devices = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuses what the machine has not.

        Raises:
            InputError: TF32 is asked of a CPU, only one of the frameworks has a GPU, or there are
                to be no threads.
        """
        kinds = {"JAX": jax.default_backend() != "cpu", "PyTorch": self.torch_device.type != "cpu"}
        if len(set(kinds.values())) > 1:
            (has,), (lacks,) = ([n for n in kinds if kinds[n] is one] for one in (True, False))
            raise InputError(
                f"{has} has an accelerator and {lacks} has none, so neither could be held against "
                f"the other: install {lacks} for it, or hide it from {has}"
            )
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be at least 1, got {self.threads}")
        if self.precision == "tf32" and jax.default_backend() == "cpu":
            raise InputError("--precision tf32 needs a GPU: take highest or bf16 on this CPU")
        if self.precision == "bf16":
            object.__setattr__(self, "preset", override(self.preset, dtype="bfloat16"))

    def in_float32(self) -> "Setting":
        """Returns the setting with products of float32."""
        preset = override(self.preset, dtype="float32")
        return dataclasses.replace(self, preset=preset, precision="highest")

    @functools.cached_property
    def place(self) -> Placement:
        """Where JAX's arrays lie."""
        return Placement.of(self.devices, self.preset)

    @functools.cached_property
    def torch_device(self) -> torch.device:
        """Where PyTorch's tensors lie."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @functools.cached_property
    def layout(self) -> Layout:
        """The names of the weights."""
        return find_layout(self.preset.model, self.preset.data.dataset)

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Random weights, none of them zero, by their names in PyTorch."""
        return random_arrays(self.preset)

    @functools.cached_property
    def data(self) -> Dataset:
        """Random text: how fast it is read does not depend on what it says."""
        config, vocab_size = self.preset.data, self.preset.model.vocab_size
        rng = np.random.default_rng(0)
        rows, seq_len = NUM_BATCHES * config.batch_size, config.seq_len
        if config.dataset == "shakespeare":
            text = rng.integers(vocab_size, size=rows * seq_len + 1, dtype=np.int32)
            return TextWindows(jnp.asarray(text), seq_len, config.batch_size)
        inputs, targets = rng.integers(vocab_size, size=(2, rows, seq_len), dtype=np.int32)
        lengths = rng.integers(1, seq_len + 1, size=(rows, 1))
        targets = np.where(np.arange(seq_len) < lengths, targets, IGNORE).astype(np.int32)
        arrays = jnp.asarray(inputs), jnp.asarray(targets), np.arange(rows, dtype=np.int32)
        return PaddedWords(*arrays, config.batch_size)

    @functools.cached_property
    def rows(self) -> Int[jax.Array, "S B"]:
        """The rows of the batches, `NUM_BATCHES` of them."""
        return self.data.cover_rows()

    def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and targets `[B, T]` of one of the batches."""
        batch = self.data.batch(self.rows[index % NUM_BATCHES])
        return np.asarray(batch.inputs), np.asarray(batch.targets)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Lets both frameworks compute at this precision, with these threads, in the block."""
        before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        torch.set_num_threads(self.num_threads)
        torch.set_float32_matmul_precision(_TORCH_PRECISIONS[self.precision])
        try:
            with jax.default_matmul_precision(_JAX_PRECISIONS[self.precision]):
                yield
        finally:
            torch.set_num_threads(before[0])
            torch.set_float32_matmul_precision(before[1])

    @property
    def num_threads(self) -> int:
        """PyTorch's threads: its default would follow an environment variable meant for others."""
        return self.threads or num_cores()
