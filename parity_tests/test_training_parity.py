"""Whole trainings: every loss, norm, rate, moment and parameter after every step."""

import jax
import numpy as np
import pytest

from astra_jax.config import Preset
from astra_jax.data.corpus import BUILTIN, load_corpus
from astra_jax.data.splits import Split, split_corpus
from astra_jax.model import arithmetic
from astra_jax.presets import PRESETS, override
from astra_jax.training.trainer import Keys, Trainer
from astra_torch.parity import JaxSide, Name, check, random_case, training_case
from astra_torch.weights import find_layout, to_arrays

STEPS = 50
SMALLER = dict(embedding_dim=24, hidden_dim=40, batch_size=7, seq_len=16)


def prepare(preset: Preset) -> tuple[Preset, Split]:
    text = load_corpus(preset.data.dataset, BUILTIN).text[:20_000]
    text = text[: text.rindex("\n")]
    split = split_corpus(text, preset.data, Keys.from_seed(preset.train.seed).split)
    return override(preset, vocab_size=len(split.vocabulary)), split


# One layer and three, with and without LayerNorm, and all recipes. The other presets differ in
# numbers alone; every preset's own training is in results/parity.
TRAINED = [("names", "alpha"), ("names", "gamma"), ("shakespeare", "gamma")]


@pytest.mark.parametrize("key", TRAINED, ids="-".join)
def test_trainings_agree(key):
    # Fifty steps of a preset's own recipe on real batches; the cosine falls every ten.
    # The limit lies among the gradients' norms, so that the clip acts and rests.
    recipe = dict(steps_per_epoch=10, clip=0.42) if key[0] == "shakespeare" else {}
    preset, split = prepare(override(PRESETS[key], **SMALLER, **recipe))
    for report in check(training_case(preset, split), "training", num_steps=STEPS).values():
        assert report.ok, report.describe()
        assert report.num_steps == len(report.drift["parameter"]) == STEPS
        assert report.num_rates == (5 if recipe else 1)
        assert (0 < report.num_clipped < STEPS) == bool(recipe)


def test_words_with_a_start_token_are_the_same_arrays_in_both_frameworks():
    switches = dict(start_token=True, dedupe=True, seq_len=17)
    preset, split = prepare(override(PRESETS["names", "alpha"], **switches))
    case = training_case(preset, split)
    for step in (0, 1, case.steps_per_epoch - 1, case.steps_per_epoch):
        ours, twin = case.draw(step), case.draw_twin(step)
        counted = slice(len(twin.inputs))  # The rest of ours is empty rows.
        assert np.array_equal(ours.inputs[counted], twin.inputs)
        assert np.array_equal(ours.targets[counted], twin.targets)
        assert (twin.inputs[:, 0] == 0).all()
        assert (twin.targets[:, 0] > 1).all()


def test_a_large_training_agrees():
    # The shape of the largest gradient sums.
    case = random_case(PRESETS["names", "beta"], batch_size=8, seq_len=16)
    for report in check(case, "training", num_steps=3).values():
        assert report.ok, report.describe()


@pytest.mark.parametrize("key", [("shakespeare", "beta"), ("names", "beta")], ids="-".join)
def test_what_is_compared_is_what_is_trained(key):
    # The steps that parity takes one by one are those that `run_steps` takes on the device.
    preset, split = prepare(override(PRESETS[key], **SMALLER))
    case, keys = training_case(preset, split), Keys.from_seed(preset.train.seed)
    side, count = JaxSide(case, "float32"), 5
    results = [side.training(case.draw(step)) for step in range(count)]
    with arithmetic("float32"):
        trainer = Trainer(preset, case.steps_per_epoch)
        rows = split.train.epoch_rows(jax.random.fold_in(keys.batches, 0), case.steps_per_epoch)
        state, history = trainer.run_steps(
            trainer.init(keys.init), split.train, rows, 0, count, keys.dropout
        )
    losses = [result[Name("loss")] for result in results]
    np.testing.assert_allclose(history.loss_nats[:count], losses, rtol=1e-6)
    layout = find_layout(preset.model, preset.data.dataset)
    for name, trained in to_arrays(state.params, layout).items():
        compared = results[-1][Name("parameter", name)]
        np.testing.assert_allclose(trained, compared, rtol=0, atol=1e-6 * np.abs(compared).max())
