"""The reference samplers: the same picks as our `strategies`, fed by a Python loop."""

import torch
from torch import Tensor

from astra_torch.models import GRULanguageModel


def pick_greedy(logits: Tensor) -> Tensor:
    """Returns the most likely ids `[N]` of logits `[N, V]`."""
    return logits.argmax(dim=-1)


def pick_by_temperature(logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns the ids `[N]` at which the cumulated probabilities pass the uniforms `[N]`."""
    below = logits - logits.amax(dim=-1, keepdim=True)
    cumulated = torch.softmax(below / temperature, dim=-1).cumsum(dim=-1)
    passed = cumulated <= uniforms[:, None] * cumulated[:, -1:]
    return passed.sum(dim=-1).clamp(max=logits.shape[-1] - 1)


def pick_by_top_k(logits: Tensor, uniforms: Tensor, k: int, temperature: float = 1.0) -> Tensor:
    """Returns ids `[N]` drawn from the k most likely, in order of falling probability."""
    best, ids = torch.topk(logits, k, dim=-1)
    places = pick_by_temperature(best, uniforms, temperature)
    return ids.gather(-1, places[:, None])[:, 0]


@torch.inference_mode()
def continue_ids(
    model: GRULanguageModel,
    prompt: Tensor,
    uniforms: Tensor,
    *,
    temperature: float | None,
    top_k: int | None = None,
    stateful: bool = True,
) -> Tensor:
    """Continues N prompts; `astra_jax.sampling.sampler.Sampler.continue_ids` in PyTorch.

    Args:
        model: what predicts.
        prompt: ids `[N, P]`.
        uniforms: numbers in [0, 1), `[S, N]`.
        temperature: of the draw; None is greedy.
        top_k: how many of the most likely are drawn from; None is all.
        stateful: whether the state is carried from character to character.

    Returns:
        New ids `[N, S]`.
    """
    model.eval()
    ids = prompt if stateful else prompt[:, -1:]
    state, new = None, []
    for drawn in uniforms:
        logits, last = model(ids, state)
        logits, state = logits[:, -1], last if stateful else None
        if temperature is None:
            picked = pick_greedy(logits)
        elif top_k is None:
            picked = pick_by_temperature(logits, drawn, temperature)
        else:
            picked = pick_by_top_k(logits, drawn, top_k, temperature)
        new.append(picked)
        ids = picked[:, None]
    return torch.stack(new, dim=1)
