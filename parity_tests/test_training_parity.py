"""Fifty steps of each of the three update rules: every loss, norm, rate and parameter."""

import pytest

from astra_jax.presets import PRESETS, override
from astra_torch.parity import Case, check_float32, check_float64, random_case, torch_results

STEPS = 50
# A cosine over five epochs of ten steps; the largest model is made smaller, its rule is not.
SMALLER = dict(hidden_dim=64, embedding_dim=32)
CASES = {
    "adamw-cosine-clip": random_case(
        override(PRESETS["shakespeare", "alpha"], epochs=5), num_steps=STEPS
    ),
    "adam-constant": random_case(PRESETS["names", "alpha"], num_steps=STEPS),
    "adamw-constant": random_case(override(PRESETS["names", "gamma"], **SMALLER), num_steps=STEPS),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_training_agrees_in_float64(case: Case):
    report = check_float64(case, "training")
    assert report.ok, report.describe()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_training_agrees_in_float32(case: Case):
    report = check_float32(case, "training")
    assert report.ok, report.describe()


def test_the_clip_is_at_work():
    # Were every gradient shorter than the limit, the comparison would say nothing of the clip.
    norms = torch_results(CASES["adamw-cosine-clip"], "training", "float64")["gradient norms"]
    assert norms.max() > 1.0
