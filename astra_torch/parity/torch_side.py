"""What PyTorch computes from a case, in an order of operations of its own."""

import functools

import numpy as np
import torch
from torch import Tensor

from astra_torch.models import load_model
from astra_torch.parity.cases import Case, StepInputs
from astra_torch.parity.quantities import Name, ParityDtype, Results
from astra_torch.training import ReferenceTrainer, loss_nats


class TorchSide:
    """A model of a case and its training state, in one type, on the CPU."""

    def __init__(self, case: Case, dtype: ParityDtype):
        """Loads the case's weights strictly into the notebooks' class."""
        preset = case.preset
        self.model = load_model(
            preset.model, preset.data.dataset, case.twin_arrays, getattr(torch, dtype)
        )
        # Masks are given; without them nothing is to be dropped.
        self.model.eval()
        self.clip = case.preset.train.clip
        self._case = case

    @functools.cached_property
    def trainer(self) -> ReferenceTrainer:
        """Where a training stands; there is none of a recipe that neither study has."""
        return ReferenceTrainer(self.model, self._case.preset, self._case.steps_per_epoch)

    @torch.no_grad()
    def logits(self, inputs: StepInputs) -> Results:
        """Returns the forward pass of a batch."""
        tokens, targets, keep = _tensors(inputs)
        hiddens, last = self.model.hidden_states(tokens, keep=keep)
        logits, _ = self.model(tokens, keep=keep)
        results = self._named("weights", self.model.state_dict()) | {
            Name("last states"): last.numpy(),
            Name("logits"): logits.numpy(),
            Name("loss"): loss_nats(self.model, tokens, targets, keep).numpy(),
        }
        for index, hidden in enumerate(hiddens):
            results[Name("hidden states", f"layer {index}")] = hidden.numpy()
        return results

    def gradients(self, inputs: StepInputs) -> Results:
        """Returns the backward pass of a batch."""
        self.model.zero_grad()
        loss_nats(self.model, *_tensors(inputs)).backward()
        results = self._named("gradient", self._grads())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip or float("inf"))
        clipped = torch.nn.utils.get_total_norm(self._grads().values())
        return results | {
            Name("gradient norm"): norm.numpy(),
            Name("clipped gradient norm"): clipped.numpy(),
        }

    def _grads(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def training(self, inputs: StepInputs) -> Results:
        """Does a training step, and returns what it computed and what it left behind."""
        done = self.trainer.step(*_tensors(inputs))
        moments = {
            name: self.trainer.optimizer.state[parameter]
            for name, parameter in self.model.named_parameters()
        }
        return (
            {
                Name("loss"): np.asarray(done.loss_nats),
                Name("gradient norm"): np.asarray(done.grad_norm),
                Name("clipped gradient norm"): np.asarray(done.clipped_grad_norm),
                Name("learning rate"): np.asarray(done.learning_rate),
            }
            | self._named("first moment", {n: m["exp_avg"] for n, m in moments.items()})
            | self._named("second moment", {n: m["exp_avg_sq"] for n, m in moments.items()})
            | self._named("parameter", self.model.state_dict())
        )

    def _named(self, quantity: str, tensors: dict[str, Tensor]) -> Results:
        # Copied: the next step writes into them.
        return {
            Name(quantity, name): tensor.detach().numpy().copy() for name, tensor in tensors.items()
        }


def _tensors(inputs: StepInputs) -> tuple[Tensor, Tensor, Tensor | None]:
    return (
        torch.tensor(inputs.inputs).long(),
        torch.tensor(inputs.targets).long(),
        None if inputs.keep is None else torch.tensor(inputs.keep),
    )
