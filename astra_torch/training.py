"""The reference training step: PyTorch's own update rules, clipping and schedule."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from astra_jax.config import Preset
from astra_jax.errors import InputError
from astra_torch.data import IGNORE
from astra_torch.models import GRULanguageModel

STUDIES: dict[str, tuple[Any, ...]] = {
    "schedule": ("cosine", "constant"),
    "warmup_steps": (0,),
    "decay": ("all",),
    "dropout_on": ("states",),
    "carry_state": (False,),
}
"""Fields of a recipe whose other values neither study has, and those that they have."""


class StepResult(NamedTuple):
    """What a training step tells.

    Attributes:
        loss_nats: mean loss of the batch, before the update.
        grad_norm: global norm of the gradient, before clipping.
        clipped_grad_norm: after it.
        learning_rate: that the update was made with.
    """

    loss_nats: float
    grad_norm: float
    clipped_grad_norm: float
    learning_rate: float


class ReferenceTrainer:
    """A model and its update rule, stepped as the notebooks step theirs."""

    def __init__(self, model: GRULanguageModel, preset: Preset, steps_per_epoch: int):
        """Makes the optimiser and, where the recipe has one, the schedule.

        Raises:
            InputError: see `require_studies_rule`.
        """
        require_studies_rule(preset)
        config = preset.train
        rules = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
        self.model = model
        self.optimizer: torch.optim.Optimizer = rules[config.optimizer](
            # With their names, which torch then writes into the optimizer's state.
            model.named_parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
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
        clipped = nn.utils.get_total_norm(
            p.grad for p in self.model.parameters() if p.grad is not None
        )
        self.optimizer.step()
        self.steps_done += 1
        if self.schedule is not None and self.steps_done % self.steps_per_epoch == 0:
            self.schedule.step()
        return StepResult(loss.item(), norm.item(), clipped.item(), learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """Returns torch's own state dicts of optimizer and schedule, and the steps done.

        The tensors are the trainer's own, as torch's are: the next step writes into them.
        """
        return {
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": None if self.schedule is None else self.schedule.state_dict(),
            "step": self.steps_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned; the model's weights are loaded apart."""
        state = copy.deepcopy(state)  # torch would go on with the given tensors themselves.
        self.optimizer.load_state_dict(state["optimizer_state_dict"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["scheduler_state_dict"])
        self.steps_done = state["step"]


def beyond_studies(preset: Preset) -> list[str]:
    """Returns the fields of a recipe that have other values than `STUDIES` knows, with these."""
    return [
        f"{name} {value}"
        for name, value in (preset.data.to_dict() | preset.train.to_dict()).items()
        if name in STUDIES and value not in STUDIES[name]
    ]


def require_studies_rule(preset: Preset) -> None:
    """Refuses what `ReferenceTrainer` does not do, since neither study does it.

    Raises:
        InputError: the recipe goes beyond the studies.
    """
    if found := beyond_studies(preset):
        raise InputError(
            f"PyTorch's training is the studies' own, which knows no {', '.join(found)}: it cannot "
            "go on with this recipe; convert.py --weights-only writes a file without the training"
        )


def loss_nats(
    model: GRULanguageModel, inputs: Tensor, targets: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Returns the mean cross-entropy over the targets that count."""
    logits, _ = model(inputs, keep=keep)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
