"""Hidden states, logits, loss and every gradient of one batch, for all six presets."""

import pytest

from astra_jax.presets import PRESETS, override
from astra_torch.parity import Case, check_float32, check_float64, random_case

CASES = {
    f"{dataset}-{name}": random_case(preset, batch_size=3, seq_len=9, seed=seed)
    for seed, ((dataset, name), preset) in enumerate(PRESETS.items())
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_model_agrees_in_float64(case: Case):
    report = check_float64(case, "model")
    assert report.ok, report.describe()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_model_agrees_in_float32(case: Case):
    report = check_float32(case, "model")
    assert report.ok, report.describe()


@pytest.mark.parametrize("dropout", [True, False])
def test_odd_shapes_agree(dropout: bool):
    # No two dimensions are equal, so that no transpose goes unnoticed; one row alone in a batch.
    shape = dict(embedding_dim=5, hidden_dim=7, num_layers=2, vocab_size=11, layer_norm=True)
    preset = override(PRESETS["shakespeare", "beta"], **shape)
    case = random_case(preset, batch_size=1, seq_len=3, dropout=dropout)
    report = check_float64(case, "model")
    assert report.ok, report.describe()
