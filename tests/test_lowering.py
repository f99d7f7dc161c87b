"""Training and sampling lower for chips that are not here, and never ask the host meanwhile.

Lowering needs no such chip. What its compiler makes of the result, these tests do not know.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.gru import BACKENDS
from astra_jax.sampling import sampler, strategies
from astra_jax.training.trainer import Keys, Trainer
from tests.trainings import TEXT, Begin

PLATFORMS = {"cuda": "gpu", "tpu": "tpu"}
"""The names that JAX lowers for, and those that it gives its backends."""

KERNELS = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}


def lowered(program: Callable[..., Any], platform: str, *arguments: Any) -> str:
    traced = jax.jit(program).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def visits_to_the_host(text: str) -> set[str]:
    return set(re.findall(r"callback|stablehlo\.(?:send|recv|infeed|outfeed)", text))


# From JAX 0.11 on, Triton asks the GPU itself what it can do.
ROUTES = [
    (backend, platform)
    for backend in BACKENDS
    for platform in PLATFORMS
    if (backend, platform) != ("pallas", "cuda") or jax.__version_info__ < (0, 11)
]


@pytest.mark.parametrize(("backend", "platform"), ROUTES)
def test_training_stays_on_the_device(
    backend: str, platform: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    jax.clear_caches()  # What was traced for one platform would be taken for the other.
    run, split = begin(TEXT)
    keys = Keys.from_seed(0)
    trainer = Trainer(run.preset, 7, backend=backend)
    rows = split.train.epoch_rows(keys.batches, 7)
    monkeypatch.setattr(jax, "default_backend", lambda: PLATFORMS[platform])

    def first_steps(state, end):
        return trainer.run_steps(state, split.train, rows, 0, end, keys.dropout)

    text = lowered(first_steps, platform, jax.eval_shape(trainer.init, keys.init), 7)
    assert visits_to_the_host(text) == set()
    assert (KERNELS[platform] in text) == (backend == "pallas")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "strategy", [strategies.Greedy(), strategies.Temperature(0.8), strategies.TopK(5)], ids=repr
)
def test_sampling_stays_on_the_device(
    strategy: strategies.Strategy, platform: str, monkeypatch: pytest.MonkeyPatch
):
    trainer = Trainer(TEXT, 7)
    monkeypatch.setattr(jax, "default_backend", lambda: PLATFORMS[platform])
    params = jax.eval_shape(trainer.init, jax.random.key(0)).params

    def chunk(params, given, key):
        stepper, cursor = sampler.begin(trainer.graph, params, 3)
        texts = stepper, cursor, given, key, jnp.uint32(0)
        return sampler.write_chunk(trainer.graph, params, *texts, 4, strategy, stateful=True)

    given, key = np.full((5, 3), sampler.DRAWN, np.int32), jax.random.key(0)
    assert visits_to_the_host(lowered(chunk, platform, params, given, key)) == set()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_visit_to_the_host_is_noticed(platform: str):
    def visit(x):
        return jax.pure_callback(np.sin, x, x)

    assert visits_to_the_host(lowered(visit, "cpu", jnp.zeros(2))) == {"callback"}
    with pytest.raises(ValueError, match="platform"):  # There is no host of such a chip here.
        lowered(visit, platform, jnp.zeros(2))
