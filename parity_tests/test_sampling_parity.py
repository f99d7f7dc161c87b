"""All samplers write the same text from the same weights and the same uniform numbers."""

import dataclasses

import numpy as np
import pytest

from astra_jax.presets import PRESETS
from astra_torch.parity import ParityDtype, random_case
from astra_torch.parity.texts import check_texts

CHARACTERS = 3_000


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("key", [("shakespeare", "alpha"), ("names", "beta")], ids="-".join)
def test_texts_are_the_same(key, dtype: ParityDtype):
    reports = check_texts(random_case(PRESETS[key], seq_len=11), dtype, CHARACTERS)
    assert {(report.strategy.split()[0], report.stateful) for report in reports} >= {
        ("greedy", True),
        ("greedy", False),
    }
    for report in reports:
        assert report.ok, report
        assert report.num_distinct > (2 if report.strategy == "greedy" else 9)
        assert report.num_characters + 100 * len(report.ties) >= CHARACTERS
    assert len(reports) == (6 if dtype == "float64" else 2)


def test_a_tie_is_told_from_a_difference():
    # Two rows of the head that differ by less than rounding are a tie wherever they lead.
    case = random_case(PRESETS["names", "alpha"], seq_len=11)
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    head = "linear.linear_projection"
    arrays[f"{head}.bias"][:2] = 100.0  # No other character is ever picked.
    arrays[f"{head}.weight"][1] = arrays[f"{head}.weight"][0]
    twin = {name: array.copy() for name, array in arrays.items()}
    twin[f"{head}.bias"][1] = np.nextafter(np.float32(100), np.float32(200))
    nearly = dataclasses.replace(case, arrays=arrays, twin_arrays=twin)
    for report in check_texts(nearly, "float32", CHARACTERS):
        assert len(report.ties) > 0
        assert all(tie.gap <= tie.bound for tie in report.ties)
        for share, enough in ((0.4, False), (0.6, True)):
            compared = dict(num_characters=round(share * report.num_wanted), num_distinct=2)
            assert dataclasses.replace(report, **compared).ok is enough
    twin[f"{head}.bias"][1] = 100.1
    for report in check_texts(nearly, "float32", CHARACTERS):
        assert report.num_mismatches > 0
        assert not report.ok
