"""The exported model in ONNX Runtime, which computes and does not train."""

import numpy as np
import torch
from torch.nn import functional

from astra_torch.data import IGNORE
from astra_torch.onnx_runtime import OnnxModel
from astra_torch.parity import onnx_side
from benchmarks.setting import NUM_BATCHES, Setting


def onnx_model(setting: Setting) -> OnnxModel:
    """Loads the setting's weights with as many threads as PyTorch has."""
    return onnx_side.onnx_model(setting.arrays, setting.preset, setting.num_threads)


class OnnxPeer:
    """Evaluates batches in ONNX Runtime, on the CPU, in float32."""

    def __init__(self, setting: Setting):
        """Loads the model."""
        self.model = onnx_model(setting)
        self.batches = [
            (inputs, torch.tensor(targets).long().flatten())
            for inputs, targets in map(setting.batch, range(NUM_BATCHES))
        ]

    def evaluate(self, num_batches: int) -> np.ndarray:
        """Returns the mean loss of each batch; the loss itself is PyTorch's."""
        return np.array([self._loss(index % NUM_BATCHES) for index in range(num_batches)])

    def _loss(self, index: int) -> float:
        inputs, targets = self.batches[index]
        logits = torch.from_numpy(self.model(inputs)[0]).flatten(0, 1)
        return functional.cross_entropy(logits, targets, ignore_index=IGNORE).item()
