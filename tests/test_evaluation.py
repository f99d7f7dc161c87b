"""Evaluation: every target once, whatever the chunks; what is carried, and what scatters."""

import dataclasses
import io
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from astra_jax import evaluation
from astra_jax.config import Preset
from astra_jax.data import builtin_corpus, splits, token_files
from astra_jax.data.corpus import DATA_DIR_VARIABLE
from astra_jax.data.datasets import StoredWindows
from astra_jax.data.splits import Split
from astra_jax.errors import InputError
from astra_jax.evaluation import TextEvaluation, WordsEvaluation, evaluate
from astra_jax.experiments import lifecycle, restoring
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.presets import override
from astra_jax.report.score_tables import score_tables
from astra_jax.report.scorecards import Subject, scores_record, sum_up
from astra_jax.runs.metrics import EpochMetrics, History, Spread
from astra_jax.training.saving import SavePolicy, Saver, Training
from astra_jax.training.trainer import Trainer
from tests.trainings import TEXT, WORDS, Begin, random_model

EXACT = override(TEXT, num_layers=1, dtype="float64")
WHOLE_WORDS = override(
    WORDS, num_layers=1, layer_norm=False, train_fraction=0.5, steps_per_epoch=None
)


def evaluate_text(preset: Preset, split: Split, **options: int) -> TextEvaluation:
    found = evaluate(random_model(preset), preset, split, **options)
    assert isinstance(found, TextEvaluation)
    return found


def whole_pass(model: GRULanguageModel, tokens: jax.Array) -> float:
    """Returns the mean loss of a text read in one piece, with NumPy's own arithmetic."""
    logits = np.asarray(model(tokens[None, :-1])[0][0], np.float64)
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(-logits[np.arange(len(logits)), np.asarray(tokens[1:])].mean())


@pytest.mark.parametrize("chunk", [13, 599, 4096])
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "file"])
def test_carried_loss_is_that_of_one_pass_whatever_the_chunks(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, chunk: int, stored: bool
) -> None:
    if stored:
        monkeypatch.setattr(token_files, "LARGE_BYTES", 0)
    _, split = begin(EXACT)
    assert isinstance(split.validation, StoredWindows) == stored
    data = splits.running_text(split.validation)
    tokens = (
        data.tokens.windows(np.zeros(1, int), len(data))[0]
        if isinstance(data, StoredWindows)
        else data.tokens
    )
    model = random_model(EXACT)
    with arithmetic("float64"):
        found = evaluation.carried_loss(model, data, chunk)
        expected = whole_pass(model, jnp.asarray(tokens, jnp.int32))
    assert found.num_targets == len(data) - 1 == 599
    assert found.loss_nats == pytest.approx(expected, rel=1e-13)
    assert found.bits_per_char == pytest.approx(expected / np.log(2), rel=1e-13)


def test_windows_are_the_full_pass_of_training(begin: Begin) -> None:
    run, split = begin(EXACT)
    found, data = evaluate_text(run.preset, split), split.validation
    with arithmetic("float64"):
        params = nnx.state(random_model(run.preset))
        losses = Trainer(run.preset, 1).evaluate(params, data, data.cover_rows())
    assert found.windows[16].loss_nats == losses.mean_of_targets
    assert {loss.num_targets for loss in found.windows.values()} == {found.carried.num_targets}
    values = found.to_dict()
    windows = {"windows_16", "windows_128", "windows_256"}
    assert values.keys() == {"kind", "num_targets", "carried", "one_batch"} | windows
    assert values["carried"].keys() == {"loss_nats", "bits_per_char", "num_targets"}
    assert values["one_batch"].keys() == {"num_batches", "mean", "std", "lowest", "highest"}


def test_a_window_as_long_as_the_text_carries_the_state_through_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(builtin_corpus.play()[:2000])
    run, split = lifecycle.begin(EXACT, str(tmp_path / "text.txt"), tmp_path / "run")
    found = evaluate_text(run.preset, split)
    assert found.carried.num_targets == 199
    assert found.windows[256].loss_nats == pytest.approx(found.carried.loss_nats, rel=1e-13)
    # The state matters, or the tests of how it is carried would tell nothing.
    for length in (16, 128):
        assert abs(found.windows[length].loss_nats - found.carried.loss_nats) > 1e-3


def test_single_batches_scatter_around_the_mean_over_all_windows(begin: Begin) -> None:
    run, split = begin(EXACT)
    found = evaluate_text(run.preset, split, num_batches=400)
    with arithmetic("float64"):
        data = splits.running_text(split.validation)
        every = np.arange(len(data) - data.seq_len - 1)[:, None]
        params = nnx.state(random_model(run.preset))
        losses = Trainer(run.preset, 1).evaluate(params, data, every)
    means, batch, spread = losses.sums / losses.counts, data.batch_size, found.one_batch
    assert abs(spread.mean - means.mean()) < 4 * means.std() / np.sqrt(batch * 400)
    assert spread.std == pytest.approx(means.std() / np.sqrt(batch), rel=0.2)
    assert spread.lowest < spread.mean - spread.std < spread.mean + spread.std < spread.highest
    # Windows side by side begin at other places than those that lie anywhere.
    assert spread.mean == pytest.approx(found.windows[data.seq_len].loss_nats, abs=0.1)
    other = evaluate_text(override(run.preset, seed=1), split, num_batches=400)
    assert other.one_batch != spread
    assert other.carried == found.carried
    # The study's rule, whatever the recipe: windows that follow one another would scatter less.
    following = override(run.preset, carry_state=True)
    assert evaluate_text(following, begin(following, "following")[1], num_batches=400) == found
    with pytest.raises(InputError, match=r"single batches need about .*B, this .*--batches"):
        evaluate_text(run.preset, split, num_batches=10**12)


@pytest.mark.parametrize("preset", [TEXT, WHOLE_WORDS], ids=["text", "words"])
def test_a_model_that_overflows_has_no_loss(preset: Preset, begin: Begin) -> None:
    run, split = begin(preset)
    model = random_model(run.preset)
    model.embedding.embedding[...] = model.embedding.embedding[...].at[1:].set(jnp.nan)
    with pytest.raises(InputError, match=r"loss_nats must be .*finite|not finite"):
        evaluate(model, run.preset, split, num_batches=2)


@pytest.fixture
def repeated(tmp_path: Path) -> str:
    """A list of which every third word is another once more."""
    words = [first + "ev" + last for first in "abcdef" for last in "aeiou"]
    (tmp_path / "words.txt").write_text("\n".join(words + words[::2]))
    return str(tmp_path / "words.txt")


@pytest.mark.parametrize("start_token", [False, True])
@pytest.mark.parametrize("at_once", [7, 2048])
def test_words_seen_and_unseen_are_all_words(
    repeated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_token: bool, at_once: int
) -> None:
    monkeypatch.setattr(evaluation, "WORDS_AT_ONCE", at_once)
    preset = override(WHOLE_WORDS, start_token=start_token, dtype="float64")
    run, split = lifecycle.begin(preset, repeated, tmp_path / "run")
    model, data = random_model(run.preset), split.validation
    found = evaluate(model, run.preset, split)
    assert isinstance(found, WordsEvaluation)
    with arithmetic("float64"):
        losses = Trainer(run.preset, 1).evaluate(nnx.state(model), data, data.cover_rows())
    assert found.all.num_targets == data.count_targets() == losses.counts.sum()
    assert found.all.loss_nats == pytest.approx(losses.mean_of_targets, rel=1e-13)
    parts = [part for part in (found.seen, found.unseen) if part is not None]
    assert len(parts) == 2
    assert sum(part.num_targets for part in parts) == found.all.num_targets
    total = sum(part.loss_nats * part.num_targets for part in parts)
    assert total / found.all.num_targets == pytest.approx(found.all.loss_nats, rel=1e-13)
    seen, words = (splits.words_of(part, split.vocabulary) for part in split[:2])
    here = [word in seen for word in words]
    assert found.seen_share == np.mean(here)
    # All words are of four letters: the first of them is a target where it has a start token.
    assert parts[0].num_targets == (4 + start_token) * sum(here)
    names = {"kind", "num_targets", "all", "seen", "unseen", "seen_share"}
    assert found.to_dict().keys() == names


def test_distinct_words_have_none_that_were_seen(repeated: str, tmp_path: Path) -> None:
    preset = override(WHOLE_WORDS, dedupe=True)
    run, split = lifecycle.begin(preset, repeated, tmp_path / "run")
    found = evaluate(random_model(run.preset), run.preset, split)
    assert isinstance(found, WordsEvaluation)
    assert (found.seen, found.seen_share, found.unseen) == (None, 0.0, found.all)


def test_several_seeds_are_summed_up_number_by_number(
    corpora: dict[str, str], tmp_path: Path
) -> None:
    preset = override(WHOLE_WORDS, train_fraction=0.8)
    group, splits = lifecycle.begin_group(preset, corpora["names"], tmp_path / "group", 2)
    for seed, run in enumerate(group.runs):
        state = Trainer(run.preset, 1).state_of(nnx.state(random_model(preset, seed)))
        restoring.import_state(run, state._replace(step=jnp.asarray(7, jnp.int32)))
    subject = Subject.open(group.folder)
    cards = list(subject.score(*lifecycle.find_corpus(subject.runs)))
    for card, run, split in zip(cards, group.runs, splits, strict=True):
        assert card.evaluation == evaluate(restoring.restore_model(run), run.preset, split)
        # Seven batches of four of the 240 training words, which are 60 batches.
        assert (card.step, card.checkpoint) == (7, "newest")
        assert card.trained_chars == round(7 * split.train.count_targets() / 60)
    (entry,) = scores_record([(subject, cards)])["subjects"]
    losses = [run["evaluation"]["all"]["loss_nats"] for run in entry["runs"]]
    assert losses[0] != losses[1]
    assert entry["summary"]["all"]["loss_nats"] == Spread.of(losses).to_dict()
    for path in (tmp_path, corpora["names"]):
        assert str(path) not in str(entry)


def test_a_sum_of_runs_keeps_what_is_equal_and_lacks_what_one_lacks() -> None:
    one, other = {"kind": "words", "n": 3, "seen": {"x": 1.0}}, {"kind": "words", "n": 3}
    spread = dict(mean=2.0, std=2**0.5, lowest=1.0, highest=3.0)
    assert sum_up([one, {**other, "seen": {"x": 3.0}}]) == {**other, "seen": {"x": spread}}
    assert sum_up([one, {**other, "seen": None}]) == {**other, "seen": None}
    assert sum_up([{"n": 1}, {"n": 3}]) == {"n": spread}


def test_a_checkpoint_tells_what_was_done_until_it(begin: Begin) -> None:
    run, split = begin(EXACT)
    trainer, history = Trainer(run.preset, 7), History()
    known = dict(learning_rate=0.1, train_loss_nats=4.0, val_estimate_nats=4.0, grad_norm=1.0)
    with arithmetic("float64"), Saver(run, SavePolicy()) as saver:
        for epoch, loss in {1: 3.0, 2: 4.0}.items():
            times = dict(chars_per_s=1.0, train_seconds=10.0 + epoch, eval_seconds=5.0)
            line = EpochMetrics(epoch=epoch, step=7 * epoch, val_loss_nats=loss, **known, **times)
            history = history.finish(line)
            state = trainer.state_of(nnx.state(random_model(run.preset, epoch)))
            state = state._replace(step=jnp.asarray(line.step, jnp.int32))
            saver.finish(line, Training(state, history))
    for best, epoch, seconds in ((False, 2, 23.0), (True, 1, 11.0)):
        text = lifecycle.find_corpus([run])
        (card,) = Subject.open(run.folder, best=best).score(*text, best=best, num_batches=2)
        assert (card.step, card.trained_chars) == (7 * epoch, 7 * epoch * 4 * 16)
        assert card.train_seconds == seconds
        model = random_model(run.preset, epoch)
        assert card.evaluation == evaluate(model, run.preset, split, num_batches=2)


def test_weights_without_a_word_of_their_training_are_not_told_as_untrained(begin: Begin) -> None:
    run, _ = begin(WHOLE_WORDS)
    state = Trainer(run.preset, 1).state_of(nnx.state(random_model(run.preset)))
    restoring.import_state(run, state)
    subject = Subject.open(run.folder)
    (card,) = subject.score(*lifecycle.find_corpus(subject.runs))
    assert (card.step, card.trained_chars, card.train_seconds) == (0, None, None)
    (table,) = score_tables([(subject, [card])])
    assert [list(column.cells) for column in table.columns[2:4]] == [["–"], ["–"]]
    stranger = dataclasses.replace(run, environment={"processor": "[/x]", "cores": 2})
    (table,) = score_tables([(subject, [dataclasses.replace(card, run=stranger)])])
    shown = io.StringIO()
    Console(file=shown, width=140).print(table)
    assert "[/x], 2 cores" in shown.getvalue()  # No markup.


def test_imported_weights_are_not_taken_to_be_of_the_builtin_text(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(TEXT)[0]
    unknown = dataclasses.replace(run.corpus, name="", origin="imported", path=None, sha256=None)
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    with pytest.raises(InputError, match=r"does not tell what text .* --corpus builtin"):
        lifecycle.find_corpus([run.with_corpus(unknown)])


def test_no_batches_are_refused(begin: Begin) -> None:
    run, split = begin(TEXT)
    with pytest.raises(InputError, match="num_batches must be at least 1, got 0"):
        evaluate(random_model(run.preset), run.preset, split, num_batches=0)


def test_a_narrow_terminal_has_a_table_for_each_model_that_fits_it(begin: Begin) -> None:
    run, _ = begin(TEXT)
    restoring.import_state(run, Trainer(run.preset, 1).init(jax.random.key(0)))
    subject = Subject.open(run.folder)
    cards = list(subject.score(*lifecycle.find_corpus(subject.runs), num_batches=1))
    tables = score_tables([(subject, cards * 2)], width=80)
    assert len(tables) == 3  # Two runs, and their mean.
    shown = io.StringIO()
    for table in tables:
        Console(file=shown, width=60).print(table)
    assert max(map(len, shown.getvalue().splitlines())) <= 60
    loss = cards[0].evaluation.to_dict()["carried"]["loss_nats"]
    assert re.search(rf"state carried +│ +{loss:.4f} │", shown.getvalue())
    assert str(list(tables[0].columns[1].cells)[-1]).endswith("\n–")  # One batch has no deviation.
