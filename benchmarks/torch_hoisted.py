"""PyTorch with the same hoisting as ours: all that has no recurrence in it is outside the loops."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astra_torch.models import GRULanguageModel, GRULayer


class HoistedModel(nn.Module):
    """The notebooks' model, with as little in its loops as there can be.

    Input projections of all steps and gates are one product before the loop, the first layer's
    are looked up in the projected table, the reset and update gates share one recurrent product,
    all dropout masks are drawn at once, and the weights' gradients are two products after the loop
    backwards.
    """

    def __init__(self, model: GRULanguageModel):
        """Takes the model whose parameters are used."""
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Returns the logits `[B, T, V]`, and nothing of the states."""
        ids, table = tokens.t(), self.model.embedding.weight
        first, *others = self.model.stack
        if len(table) <= ids.numel():
            projected = functional.embedding(ids, _project(first, table))
        else:
            projected = _project(first, functional.embedding(ids, table))
        hidden = _recur(first, projected)
        for layer in others:
            hidden = _recur(layer, _project(layer, hidden))
        norm = self.model.final_norm
        hidden = hidden if norm is None else norm(hidden)
        return self.model.head(hidden).transpose(0, 1), None


def _project(layer: GRULayer, inputs: Tensor) -> Tensor:
    """Returns what inputs `[..., I]` and biases contribute to r, z and n, `[..., 3 H]`."""
    cell = layer.grucell
    weight = torch.cat([cell.Wrx.weight, cell.Wzx.weight, cell.Wx.weight])
    bias = torch.cat([cell.Wrx.bias + cell.bias_r, cell.Wzx.bias + cell.bias_z, cell.Wx.bias])
    return functional.linear(inputs, weight, bias)


def _recur(layer: GRULayer, projected: Tensor) -> Tensor:
    """Returns the states `[T, B, H]` from projections `[T, B, 3 H]`."""
    cell = layer.grucell
    gates = torch.cat([cell.Wrh.weight, cell.Wzh.weight]).t()
    candidate = cell.Wh.weight.t()
    keep = None
    if layer.training and layer.dropout:
        ones = projected.new_ones(*projected.shape[:2], len(candidate))
        keep = functional.dropout(ones, layer.dropout)
    # Under autocast projections are bfloat16; weights become so once, not at every step.
    return _Recurrence.apply(projected, *(w.to(projected.dtype) for w in (gates, candidate)), keep)


class _Recurrence(torch.autograd.Function):
    """A layer's steps, and their gradient by hand: autograd's adds small products at every step."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, gates: Tensor, candidate: Tensor, keep: Tensor | None
    ) -> Tensor:
        """Returns the states; `gates` are the kernels `[H, 2 H]` of r and z."""
        length, batch_size, _ = projected.shape
        hidden_dim = len(candidate)
        states = projected.new_zeros(length + 1, batch_size, hidden_dim)
        both = projected.new_empty(length, batch_size, 2 * hidden_dim)
        new, reset = torch.empty_like(states[1:]), torch.empty_like(states[1:])
        for t, at_t in enumerate(projected):
            x_gates, x_n = at_t.split([2 * hidden_dim, hidden_dim], dim=1)
            torch.sigmoid(torch.addmm(x_gates, states[t], gates), out=both[t])
            r, z = both[t].chunk(2, dim=1)
            torch.mul(r, states[t], out=reset[t])
            torch.tanh(torch.addmm(x_n, reset[t], candidate), out=new[t])
            torch.lerp(states[t], new[t], z, out=states[t + 1])
            if keep is not None:
                states[t + 1] *= keep[t]
        ctx.save_for_backward(states, both, new, reset, gates, candidate, keep)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Returns the gradients of the projections and of both kernels."""
        states, both, new, reset, gates, candidate, keep = ctx.saved_tensors
        (grad_states,), before = grads, states[:-1]
        r, z = both.chunk(2, dim=2)
        # What each gate's gradient is multiplied with, for all steps at once.
        to_n, to_z, to_r = z * (1 - new * new), (new - before) * z * (1 - z), before * r * (1 - r)
        stay = 1 - z
        grad_projected = both.new_empty(*new.shape[:2], 3 * new.shape[2])
        grad = torch.zeros_like(before[0])
        for t in reversed(range(len(new))):
            grad = grad + grad_states[t]
            if keep is not None:
                grad = grad * keep[t]
            at_r, at_z, at_n = grad_projected[t].chunk(3, dim=1)
            torch.mul(grad, to_n[t], out=at_n)
            torch.mul(grad, to_z[t], out=at_z)
            grad_reset = torch.mm(at_n, candidate.t())
            torch.mul(grad_reset, to_r[t], out=at_r)
            grad = torch.addcmul(grad * stay[t], grad_reset, r[t])
            grad = torch.addmm(grad, grad_projected[t, :, : gates.shape[1]], gates.t())
        grad_both, grad_new = grad_projected.split([gates.shape[1], len(candidate)], dim=2)
        grad_gates = before.flatten(0, 1).t() @ grad_both.flatten(0, 1)
        return grad_projected, grad_gates, reset.flatten(0, 1).t() @ grad_new.flatten(0, 1), None
