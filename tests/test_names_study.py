"""Tests of how the names study's two properties are measured, on models that know nothing."""

import dataclasses
import math
from pathlib import Path

import pytest
from flax import nnx

from astra_jax.data.splits import split_corpus
from astra_jax.errors import InputError
from astra_jax.model import GRULanguageModel
from astra_jax.presets import PRESETS, override
from astra_jax.training.trainer import Keys, Trainer
from study import names_measures, names_page, names_study
from tests.trainings import Silent

WORDS = [first + "ev" + last for first in "abcde" for last in "aeiou"] + ["aeva"] * 6 + ["b"] * 9


@pytest.mark.parametrize("start_token", [False, True])
def test_losses_are_those_of_training_and_their_parts_add_up(
    start_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_measures, "NUM_NAMES", 50)
    small = dict(embedding_dim=3, hidden_dim=5, seq_len=5, batch_size=4, train_fraction=0.5)
    preset = override(PRESETS["names", "alpha"], start_token=start_token, **small)
    keys = Keys.from_seed(0)
    split = split_corpus("\n".join(WORDS), preset.data, keys.split)
    preset = override(preset, vocab_size=len(split.vocabulary))
    model = GRULanguageModel(preset.model, rngs=nnx.Rngs(params=keys.init))
    found = names_measures.measure(model, preset, split, WORDS)

    validation = split.validation
    losses = Trainer(preset, 1).evaluate(nnx.state(model), validation, validation.cover_rows())
    expected = found.every_nats if start_token else found.later_nats
    assert losses.mean_of_targets == pytest.approx(expected, rel=1e-6)
    if start_token:  # Read the same way, all targets are the first letters and the later ones.
        targets = losses.counts.sum()
        num_words = len(names_measures.words_of_parts(split)[1])
        parts = num_words * found.first_nats + (targets - num_words) * found.later_nats
        assert parts / targets == pytest.approx(found.every_nats, rel=1e-6)
    assert 0 < found.leaked_share < 1
    assert found.leaked_nats is not None
    low, high = sorted([found.leaked_nats, found.unseen_nats])
    assert low <= found.later_nats <= high
    assert sum(found.first_letters.values()) == pytest.approx(1)
    assert found.kl_nats > 0


def test_words_without_duplicates_leak_none() -> None:
    preset = override(PRESETS["names", "alpha"], dedupe=True, seq_len=5, train_fraction=0.5)
    split = split_corpus("\n".join(WORDS), preset.data, Keys.from_seed(0).split)
    seen, validation = names_measures.words_of_parts(split)
    assert not set(seen) & set(validation)
    assert len(seen) + len(validation) == 26


def test_distance_is_the_share_that_would_have_to_be_moved() -> None:
    one, other = {"a": 0.5, "b": 0.5}, {"a": 0.25, "c": 0.75}
    assert names_measures.distance(one, other) == names_measures.distance(other, one) == 0.75
    assert names_measures.distance(one, one) == 0
    assert names_measures.first_letters(["ab", "a", "", "cd"]) == {"": 0.25, "a": 0.5, "c": 0.25}
    # The mean deviation of the share of heads in n throws of a coin: sqrt(1 / (2 pi n)).
    assert names_measures.distance_by_chance(["a", "b"], 400) == pytest.approx(
        math.sqrt(1 / (2 * math.pi * names_measures.NUM_NAMES)), rel=0.2
    )


def test_table_has_a_column_for_each_setting_and_tells_what_there_is_none_of() -> None:
    values = names_measures.Measured(9, 2.0, 2.1, 2.2, 0.0, None, 2.0, 0.5, 0.25, {"a": 1.0})
    settings = dict.fromkeys(names_study.SETTINGS, dataclasses.asdict(values))
    record = {"settings": settings, "generated_names": 50}
    lines = names_page.table(record).splitlines()
    assert lines[0] == "|  | notebook | start token | dedupe | both |"
    assert {line.count("|") for line in lines} == {6}
    assert "| – | – | – | – |" in lines[4]


def test_the_builtin_names_are_not_taken_for_the_published_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs the published corpora"):
        names_study.study(tmp_path, tmp_path / "out", Silent(), epochs=1, corpus=None)
    assert not list(tmp_path.iterdir())
