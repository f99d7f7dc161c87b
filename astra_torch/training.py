"""The reference training step: PyTorch's own update rules, clipping and schedule."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from astra_jax.config import TrainConfig
from astra_torch.models import GRULanguageModel

IGNORE = -100
"""torch's default `ignore_index`."""


class StepResult(NamedTuple):
    """What a training step tells: all of the time before its update."""

    loss_nats: float
    grad_norm: float
    learning_rate: float


class ReferenceTrainer:
    """A model and its update rule, stepped as the notebooks step theirs."""

    def __init__(self, model: GRULanguageModel, config: TrainConfig, steps_per_epoch: int):
        """Makes the optimiser and, where the recipe has one, the schedule."""
        rules = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
        self.model = model
        self.optimizer: torch.optim.Optimizer = rules[config.optimizer](
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule: LRScheduler | None = None
        if config.schedule == "cosine":
            self.schedule = CosineAnnealingLR(self.optimizer, T_max=config.epochs)
        self.clip = config.clip
        self.steps_per_epoch = steps_per_epoch
        self.steps_done = 0

    def step(self, inputs: Tensor, targets: Tensor, keep: Tensor | None = None) -> StepResult:
        """Does one step, and at the end of an epoch one of the schedule.

        Args:
            inputs: ids `[B, T]`.
            targets: ids `[B, T]`, `IGNORE` where none counts.
            keep: dropout's survivors, `[L, T, B, H]`; None draws them if the model trains.
        """
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.zero_grad()
        loss = loss_nats(self.model, inputs, targets, keep)
        loss.backward()
        # With no limit this only measures.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip or float("inf"))
        self.optimizer.step()
        self.steps_done += 1
        if self.schedule is not None and self.steps_done % self.steps_per_epoch == 0:
            self.schedule.step()
        return StepResult(loss.item(), norm.item(), learning_rate)


def loss_nats(
    model: GRULanguageModel, inputs: Tensor, targets: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Returns the mean cross-entropy over the targets that count."""
    logits, _ = model(inputs, keep=keep)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
