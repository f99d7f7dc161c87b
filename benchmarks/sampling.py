"""Contenders that write text: each new character is drawn from what the model says of it."""

from collections.abc import Callable

import numpy as np
import torch

from astra_jax.sampling.draws import sample_key
from astra_jax.sampling.sampler import Sampler
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature
from astra_torch import sampling as torch_sampling
from astra_torch.models import load_model
from astra_torch.onnx_runtime import OnnxModel, continue_greedily
from astra_torch.weights import to_model
from benchmarks.onnx_peer import onnx_model
from benchmarks.setting import Setting

TEMPERATURE = 0.8
"""Of the draws that are timed; it is not 1, at which dividing by it could be left out."""

NAME_LENGTH = 20
"""Characters after which the names notebook ends a name that has not ended."""

Write = Callable[[np.ndarray, int, bool], np.ndarray]
"""Continues prompts `[N, P]` by so many characters `[N, S]`, drawn or the most likely ones."""


def ours(setting: Setting, *, stateful: bool = True) -> Write:
    """Returns our sampler: a loop on the device, which carries the state unless told otherwise."""
    preset = setting.preset
    model = to_model(setting.arrays, preset.model, setting.layout, preset.train.dtype)
    sampler = Sampler(model)

    def write(prompt: np.ndarray, length: int, greedy: bool) -> np.ndarray:
        strategy: Strategy = Greedy() if greedy else Temperature(TEMPERATURE)
        return sampler.continue_ids(prompt, length, strategy, sample_key(0), stateful)

    return write


def _torch_model(setting: Setting) -> torch.nn.Module:
    preset = setting.preset
    model = load_model(preset.model, preset.data.dataset, setting.arrays)
    return model.eval().to(setting.torch_device)


def notebook(setting: Setting) -> Write:
    """Returns the notebook's sampler, which begins every step from a zero state.

    That of text reads the newest character alone, that of names the whole name again; a name ends
    after `NAME_LENGTH` characters, and the next one begins.
    """
    model, device = _torch_model(setting), setting.torch_device
    most = {"shakespeare": 1, "names": NAME_LENGTH}[setting.preset.data.dataset]

    @torch.no_grad()
    def write(prompt: np.ndarray, length: int, greedy: bool) -> np.ndarray:
        start = torch.tensor(prompt[:, -1:]).long().to(device)
        read, new = start, []
        for _ in range(length):
            logits = model(read)[0][:, -1]
            if greedy:
                ids = logits.argmax(dim=-1, keepdim=True)
            else:
                ids = torch.multinomial(torch.softmax(logits / TEMPERATURE, dim=-1), 1)
            new.append([one.item() for one in ids])
            read = torch.cat([read, ids], dim=1)
            if read.shape[1] > most:
                read = ids if most == 1 else start
        return np.array(new).T

    return write


def torch_stateful(setting: Setting) -> Write:
    """Returns PyTorch's loop that carries the state, as ours does."""
    model, device = _torch_model(setting), setting.torch_device

    def write(prompt: np.ndarray, length: int, greedy: bool) -> np.ndarray:
        uniforms = torch.rand(length, len(prompt), device=device)
        ids = torch_sampling.continue_ids(
            model,  # pyright: ignore[reportArgumentType]
            torch.tensor(prompt).long().to(device),
            uniforms,
            temperature=None if greedy else TEMPERATURE,
        )
        return ids.cpu().numpy()

    return write


def onnx_stateful(setting: Setting) -> Write:
    """Returns a loop around ONNX Runtime that carries the state."""
    model = onnx_model(setting)

    def write(prompt: np.ndarray, length: int, greedy: bool) -> np.ndarray:
        if greedy:
            return continue_greedily(model, prompt, length)
        return _draw(model, prompt, length)

    return write


def _draw(model: OnnxModel, prompt: np.ndarray, length: int) -> np.ndarray:
    ids, state, new = prompt, None, []
    for drawn in np.random.default_rng(0).random((length, len(prompt), 1), np.float32):
        logits, state = model(ids, state)
        last = logits[:, -1]
        weights = np.exp((last - last.max(axis=-1, keepdims=True)) / TEMPERATURE)
        cumulated = weights.cumsum(axis=-1)
        passed = (cumulated <= drawn * cumulated[:, -1:]).sum(axis=-1, keepdims=True)
        ids = np.minimum(passed, last.shape[-1] - 1)
        new.append(ids)
    return np.concatenate(new, axis=1)
