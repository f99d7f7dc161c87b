"""The notebooks' batches, made from text by plain PyTorch: the reference for `data.datasets`.

Which examples a batch has is given, so that both frameworks can be made to take the same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from astra_jax.config import DataConfig

IGNORE = -100
"""torch's default `ignore_index`."""


class TextBatches:
    """Windows of running text, and the same windows one character later."""

    def __init__(self, text: Sequence[str], tokens: Sequence[str], config: DataConfig):
        """Encodes the text, a sequence of tokens."""
        ids = {token: index for index, token in enumerate(tokens)}
        self.data = torch.tensor([ids[token] for token in text])
        self.config = config

    def batch(self, offsets: np.ndarray, index: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets `[B, T]` of one batch of an epoch's offsets `[S * B]`."""
        size, seq_len = self.config.batch_size, self.config.seq_len
        starts = offsets[index * size : (index + 1) * size].tolist()
        inputs = [self.data[start : start + seq_len] for start in starts]
        targets = [self.data[start + 1 : start + seq_len + 1] for start in starts]
        return torch.stack(inputs), torch.stack(targets)


class WordBatches:
    """Words with their special tokens, padded; the last batch of an epoch may be smaller."""

    def __init__(self, words: Sequence[str], tokens: Sequence[str], config: DataConfig):
        """Encodes the words; the token after padding ends each, padding itself may begin it."""
        ids = {token: index for index, token in enumerate(tokens)}
        start = [0] if config.start_token else []
        self.sequences = [start + [ids[letter] for letter in word] + [1] for word in words]
        self.config = config
        self.num_batches = len(range(0, len(words), config.batch_size))

    def batch(self, order: np.ndarray, index: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets `[B, T]` of one batch of an epoch's order `[N]`."""
        size = self.config.batch_size
        pairs = [self._pair(number) for number in order[index * size : (index + 1) * size]]
        inputs, targets = zip(*pairs, strict=True)
        return torch.stack(inputs), torch.stack(targets)

    def _pair(self, number: int) -> tuple[Tensor, Tensor]:
        sequence = self.sequences[number]
        inputs = torch.zeros(self.config.seq_len, dtype=torch.long)
        targets = torch.full((self.config.seq_len,), IGNORE)
        inputs[: len(sequence) - 1] = torch.tensor(sequence[:-1])
        targets[: len(sequence) - 1] = torch.tensor(sequence[1:])
        return inputs, targets
