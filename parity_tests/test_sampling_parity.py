"""Both frameworks write the same text from the same weights and the same uniform numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from astra_jax.model import arithmetic
from astra_jax.presets import PRESETS
from astra_jax.sampling import Greedy, Strategy, Temperature, TopK
from astra_jax.sampling import continue_ids as jax_continue
from astra_torch.models import build_model
from astra_torch.parity import random_case
from astra_torch.sampling import continue_ids as torch_continue
from astra_torch.weights import find_layout, to_model

STRATEGIES: dict[str, tuple[Strategy, float | None, int | None]] = {
    "greedy": (Greedy(), None, None),
    "temperature": (Temperature(0.7), 0.7, None),
    "top-k": (TopK(5, 1.3), 1.3, 5),
}


@pytest.mark.parametrize("stateful", [True, False], ids=["stateful", "stateless"])
@pytest.mark.parametrize(("strategy", "temperature", "top_k"), STRATEGIES.values(), ids=STRATEGIES)
def test_samples_are_the_same(
    strategy: Strategy, temperature: float | None, top_k: int | None, stateful: bool
):
    # In float64, where a draw falls between two rounded sums once in some 10^13 characters.
    preset = PRESETS["shakespeare", "alpha"]
    case = random_case(preset, batch_size=3, seq_len=11)
    uniforms = np.random.default_rng(1).random((300, 3))
    with arithmetic("float64"):
        arrays = {name: array.astype(np.float64) for name, array in case.arrays.items()}
        layout = find_layout(preset.model, "shakespeare")
        graph, params = nnx.split(to_model(arrays, preset.model, layout, "float64"))
        prompt = jnp.asarray(case.inputs[0])
        ours = jax_continue(graph, params, prompt, jnp.asarray(uniforms), strategy, stateful)
    twin = build_model(preset.model, "shakespeare").double()
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    theirs = torch_continue(
        twin,
        torch.from_numpy(case.inputs[0]).long(),
        torch.from_numpy(uniforms),
        temperature=temperature,
        top_k=top_k,
        stateful=stateful,
    )
    np.testing.assert_array_equal(np.asarray(ours), theirs.numpy())
    assert len(np.unique(ours)) > (1 if temperature is None else 4)
