"""Hidden states, logits, loss and every gradient of one batch, for all six presets."""

import pytest

from astra_jax.presets import PRESETS, override
from astra_torch.parity import Case, Level, check, random_case
from astra_torch.parity.precision import describe_precision, logits_errors

CASES = {
    f"{dataset}-{name}": random_case(preset, batch_size=3, seq_len=9, seed=seed)
    for seed, ((dataset, name), preset) in enumerate(PRESETS.items())
}


@pytest.mark.parametrize("level", ["logits", "gradients"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_batch_agrees(case: Case, level: Level):
    for report in check(case, level).values():
        assert report.ok, report.describe()


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("level", ["logits", "gradients"])
def test_odd_shapes_agree(level: Level, dropout: bool):
    # No two dimensions are equal, so that no transpose goes unnoticed; one row alone in a batch.
    shape = dict(embedding_dim=5, hidden_dim=7, num_layers=2, vocab_size=11, layer_norm=True)
    preset = override(PRESETS["shakespeare", "beta"], **shape)
    case = random_case(preset, batch_size=1, seq_len=3, dropout=dropout)
    report = check(case, level, dtypes=["float64"])["float64"]
    assert report.ok, report.describe()


def test_a_device_of_one_precision_says_so():
    # Where there is a choice the certificate tells what each costs; here all are the same.
    case = CASES["names-alpha"]
    errors = logits_errors(case, ("highest", "tensorfloat32"))
    assert errors["highest"] == errors["tensorfloat32"] > 0
    assert "TF32 plays no part" in describe_precision(case)
