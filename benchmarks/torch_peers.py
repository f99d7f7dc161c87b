"""Contenders that PyTorch computes: the notebooks' loop, and other ways to the same or nearly."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astra_jax.config import ModelConfig
from astra_torch.data import IGNORE
from astra_torch.models import GRULanguageModel, build_model
from astra_torch.weights import Arrays
from benchmarks.setting import NUM_BATCHES, Setting


def notebook_model(setting: Setting) -> GRULanguageModel:
    """Returns the notebooks' own class."""
    return build_model(setting.preset.model, setting.preset.data.dataset)


def compiled_model(setting: Setting) -> GRULanguageModel:
    """Returns the notebooks' class with its cells compiled by `torch.compile`.

    The cell, not the whole model: of that, the compiler unrolls every step of every layer, and
    takes longer than a training of Astra-α does.
    """
    model = notebook_model(setting)
    for layer in model.stack:
        layer.grucell.compile(dynamic=False)
    return model


class CudnnModel(nn.Module):
    """`torch.nn.GRU`: other equations, whose reset gate acts after the product.

    Dropout falls on the outputs of all layers but the last; the states cannot be reached.
    """

    def __init__(self, config: ModelConfig):
        """Draws a new model."""
        super().__init__()
        hidden, layers = config.hidden_dim, config.num_layers
        dropout = config.dropout if layers > 1 else 0.0
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.gru = nn.GRU(config.embedding_dim, hidden, layers, dropout=dropout)
        self.norm = nn.LayerNorm(hidden) if config.layer_norm else nn.Identity()
        self.head = nn.Linear(hidden, config.vocab_size)

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Returns the logits `[B, T, V]`, and nothing of the states."""
        hidden, _ = self.gru(self.embedding(tokens.t()))
        return self.head(self.norm(hidden)).transpose(0, 1), None


class TorchPeer:
    """A model that PyTorch trains or evaluates, a step at a time.

    Its batches lie ready on the device: unlike ours, it does not have to make them.
    """

    def __init__(self, setting: Setting, model: nn.Module, named: nn.Module | None = None):
        """Takes a model.

        Args:
            setting: what all are given.
            model: returns logits `[B, T, V]`, and something else, of tokens `[B, T]`.
            named: the module in it that has the setting's weights; None is one that has other
                weights of its own.
        """
        self.setting, self.device = setting, setting.torch_device
        self.named, self.model = named, model.to(self.device)
        if named is not None:
            state = {name: torch.tensor(array) for name, array in setting.arrays.items()}
            named.load_state_dict(state, strict=True)
        self.batches = [self._tensors(index) for index in range(NUM_BATCHES)]
        self.optimizer = self._make_optimizer()
        self.steps_done = 0

    def _tensors(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = map(torch.tensor, self.setting.batch(index))
        return inputs.long().to(self.device), targets.long().to(self.device)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.setting.preset.train
        rules = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
        return rules[config.optimizer](
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def loss(self, index: int) -> Tensor:
        """Returns the mean loss of a batch."""
        inputs, targets = self.batches[index % NUM_BATCHES]
        half = self.setting.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits, _ = self.model(inputs)
        logits = logits.float().flatten(0, 1)
        return functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE)

    def train(self, num_steps: int) -> np.ndarray:
        """Does steps as the notebooks do theirs, and returns each one's loss."""
        self.model.train()
        clip, losses = self.setting.preset.train.clip, []
        for _ in range(num_steps):
            self.optimizer.zero_grad()
            loss = self.loss(self.steps_done)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            losses.append(loss.item())
            self.steps_done += 1
        return np.array(losses)

    def prepare_training(self) -> None:
        """Does a step of one character: the optimiser's moments are there after it, as ours are."""
        self._with_one_character(self.train)

    def prepare_gradients(self) -> None:
        """Computes gradients of one character: PyTorch loads what it needs for that."""
        self._with_one_character(self.gradient_step)

    def _with_one_character(self, run: Callable[[int], object]) -> None:
        batches = self.batches
        self.batches = [(inputs[:1, :1], targets[:1, :1]) for inputs, targets in batches]
        run(1)
        self.batches = batches

    def gradient_step(self, num_steps: int) -> None:
        """Computes gradients of one batch, with dropout."""
        self.model.train()
        for _ in range(num_steps):
            self.optimizer.zero_grad()
            loss = self.loss(0)
            loss.backward()
            loss.item()

    def loss_and_gradients(self) -> tuple[float, Arrays]:
        """Returns the first batch's loss and gradients without dropout, by PyTorch's names."""
        assert self.named is not None
        self.model.eval()
        self.model.zero_grad()
        loss = self.loss(0)
        loss.backward()
        grads = {name: p.grad for name, p in self.named.named_parameters()}
        self.model.zero_grad()
        return loss.item(), {n: g.cpu().numpy() for n, g in grads.items() if g is not None}

    @torch.no_grad()
    def evaluate(self, num_batches: int) -> np.ndarray:
        """Returns the mean loss of each batch."""
        self.model.eval()
        return np.array([self.loss(index).item() for index in range(num_batches)])
