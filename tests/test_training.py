"""Training: it learns, and evaluates every character once."""

from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from astra_jax.config import Preset
from astra_jax.data.datasets import TextWindows
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import DivergedError, InputError
from astra_jax.experiments import lifecycle
from astra_jax.optimizers import learning_rate_schedule
from astra_jax.presets import override
from astra_jax.training import engines, fitting, pace
from astra_jax.training.options import FitOptions
from astra_jax.training.progress import Snapshot
from astra_jax.training.saving import SavePolicy
from astra_jax.training.trainer import MAX_STEPS_PER_CALL, Keys, Trainer
from tests.trainings import TEXT, WORDS, Begin, Silent, Train, without_times


def test_seeds_fix_everything_and_differ(train: Train):
    lines = {
        name: train(override(TEXT, seed=seed, epochs=1), name).metrics()
        for name, seed in {"one": 1, "again": 1, "two": 2}.items()
    }
    assert without_times(lines["one"]) == without_times(lines["again"])
    assert lines["one"][0].train_loss_nats != lines["two"][0].train_loss_nats


def test_training_learns(train: Train):
    fields = dict(hidden_dim=32, steps_per_epoch=100, batch_size=16, learning_rate=1e-2)
    first, second = train(override(TEXT, **fields)).metrics()
    uniform = np.log(60)
    assert uniform > first.train_loss_nats > second.train_loss_nats + 0.2
    assert uniform - 1 > first.val_loss_nats > second.val_loss_nats


def test_a_call_for_later_steps_than_the_next_does_none(begin: Begin):
    run, split = begin(TEXT)
    trainer, keys = Trainer(run.preset, 7), Keys.from_seed(0)
    rows = split.train.epoch_rows(keys.batches, 7)
    steps = []
    for offset in (1, 0):
        state = trainer.init(keys.init)
        state, _ = trainer.run_steps(state, split.train, rows, offset, 4, keys.dropout)
        steps.append(int(state.step))
    assert steps == [0, 4]


def test_a_call_ends_where_its_rows_do(begin: Begin):
    run, split = begin(TEXT)
    trainer, keys = Trainer(run.preset, 7), Keys.from_seed(0)
    rows = split.train.epoch_rows(keys.batches, 3)
    state, told = trainer.run_steps(trainer.init(keys.init), split.train, rows, 0, 7, keys.dropout)
    assert int(state.step) == np.count_nonzero(told.loss_nats) == 3


@pytest.mark.parametrize("preset", [TEXT, WORDS], ids=["text", "words"])
def test_the_full_pass_is_the_mean_over_every_character(preset: Preset, begin: Begin):
    run, split = begin(preset)
    trainer = Trainer(run.preset, 1)
    params = trainer.init(Keys.from_seed(0).init).params
    data = split.validation
    losses = trainer.evaluate(params, data, data.cover_rows())
    assert losses.counts.sum() == data.count_targets()
    # The same in one batch of all windows or words, with NumPy's own arithmetic.
    batch = data.batch(data.cover_rows().ravel())
    logits, _ = jax.jit(nnx.merge(trainer.graph, params).__call__)(batch.inputs)
    exp = np.exp(np.asarray(logits, np.float64))
    targets = np.asarray(batch.targets)
    places = np.argwhere(targets >= 0)
    likelihoods = [exp[b, t, targets[b, t]] / exp[b, t].sum() for b, t in places]
    assert len(likelihoods) == data.count_targets()
    np.testing.assert_allclose(losses.mean_of_targets, -np.log(likelihoods).mean(), rtol=1e-6)


def test_a_partial_batch_counts_as_a_batch_of_its_own_words(begin: Begin):
    run, split = begin(override(WORDS, batch_size=64, steps_per_epoch=None))
    trainer = Trainer(run.preset, 1)
    params = trainer.init(Keys.from_seed(0).init).params
    partial = split.train.cover_rows()[-1]
    count = int((np.asarray(partial) >= 0).sum())
    assert count == 240 - 3 * 64
    loss = jax.jit(trainer.loss)
    with_padding = loss(params, split.train.batch(partial))
    alone = loss(params, split.train.batch(partial[:count]))
    np.testing.assert_allclose(with_padding, alone, rtol=1e-6)


def test_carried_states_are_those_of_the_text_read_in_one_piece(begin: Begin):
    # At a learning rate of 0, and without dropout, the losses of an epoch's windows are those of
    # the whole stretch of text that they make up; the next epoch begins from zero states again.
    fields = dict(carry_state=True, learning_rate=0.0, dropout=0.0, seq_len=4, epochs=2)
    run, split = begin(override(TEXT, **fields))
    trainer, steps = Trainer(run.preset, 7), 7
    state = trainer.init(Keys.from_seed(0).init)
    model = nnx.merge(trainer.graph, jax.tree.map(jnp.copy, state.params))
    for epoch in range(2):
        rows = split.train.epoch_rows(jax.random.key(epoch), steps)
        begun, end = epoch * steps, (epoch + 1) * steps
        state, told = trainer.run_steps(state, split.train, rows, begun, end, jax.random.key(0))
        windows = [split.train.batch(row) for row in rows]
        inputs, targets = (
            np.concatenate([getattr(window, name) for window in windows], axis=1)
            for name in ("inputs", "targets")
        )
        logits, last = jax.jit(model.__call__)(jnp.asarray(inputs))
        np.testing.assert_allclose(state.hidden, last, atol=1e-6)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        expected = losses.reshape(-1, steps, 4).mean(axis=(0, 2))
        np.testing.assert_allclose(told.loss_nats[:steps], expected, rtol=1e-5)
        assert np.ptp(expected) > 1e-4


def test_the_rates_told_are_those_of_the_steps(begin: Begin):
    preset = override(TEXT, schedule="cosine-by-step", warmup_steps=3)
    run, split = begin(preset)
    told = Silent()
    fitting.fit(run, split, told, FitOptions(saving=SavePolicy(checkpoint_every=1)))
    rate = learning_rate_schedule(preset.train, steps_per_epoch=7)
    expected = [float(rate(step)) for step in range(14)]
    snapshots = [one for one in told.seen if isinstance(one, Snapshot)]
    assert len(snapshots) > 7  # The first calls are not told, before a step's time is known.
    for one in snapshots:
        assert one.learning_rate == pytest.approx(expected[7 * (one.epoch - 1) + one.step - 1])
    means = [line.learning_rate for line in run.metrics()]
    assert means == pytest.approx([np.mean(expected[:7]), np.mean(expected[7:])])


def test_grad_norm_is_measured_before_the_clip(begin: Begin):
    run, split = begin(override(TEXT, clip=1e-3))
    trainer = Trainer(run.preset, 7)
    state = trainer.init(Keys.from_seed(0).init)
    batch = split.train.batch(split.train.epoch_rows(jax.random.key(0), 1)[0])
    _, metrics = jax.jit(trainer.update)(state, batch, None)
    grads = jax.jit(jax.grad(trainer.loss))(state.params, batch)
    np.testing.assert_allclose(metrics.grad_norm, optax.tree.norm(grads), rtol=1e-6)
    assert metrics.grad_norm > 1e-2


def test_more_steps_than_batches_are_refused(begin: Begin, tmp_path: Path):
    with pytest.raises(InputError, match=r"at most 60.*got 61"):
        begin(override(WORDS, steps_per_epoch=61))
    assert not (tmp_path / "run").exists()


def test_resume_refuses_another_corpus(begin: Begin, corpora: dict[str, str]):
    run, _ = begin(TEXT)
    with pytest.raises(InputError, match=r"begun on text.txt .* found words.txt"):
        lifecycle.resume(run.folder, corpora["names"])


def test_a_split_of_another_run_is_refused(begin: Begin, corpora: dict[str, str], tmp_path: Path):
    run, split = begin(TEXT)
    other = lifecycle.begin(override(TEXT, batch_size=2), corpora["shakespeare"], tmp_path / "b")[1]
    with pytest.raises(InputError, match=r"not of .*batch_size was 4, now 2; take the one"):
        fitting.fit(run, other, Silent())
    with pytest.raises(InputError, match=r"vocabulary was .*, now "):
        fitting.fit(run, split._replace(vocabulary=Vocabulary.of_bytes()), Silent())
    assert not run.checkpoints.exists()


@pytest.mark.parametrize("broken", ["estimate", "loss"])
def test_what_is_not_finite_of_a_validation_is_told(
    broken: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    found = (np.inf, 1.25) if broken == "estimate" else (1.25, np.inf)
    monkeypatch.setattr(fitting._Loop, "_evaluate", lambda self, *_: [found])
    with pytest.raises(DivergedError, match=rf"the validation {broken} is inf after step 7"):
        fitting.fit(*begin(TEXT), Silent())


def test_a_text_that_has_moved_is_named_once(begin: Begin, tmp_path: Path):
    run, _ = begin(override(TEXT, epochs=1))
    moved = tmp_path / "moved.txt"
    moved.write_bytes(Path(str(run.corpus.path)).read_bytes())
    fitting.fit(*lifecycle.resume(run.folder, moved), Silent())
    assert lifecycle.resume(run.folder)[0].corpus.path == str(moved)


def test_times_are_of_steps_and_validations_apart(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    clock = mock.Mock(now=50.0)
    clock.perf_counter = lambda: clock.now
    for module in (fitting, pace):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(pace.Pace, "steps", lambda self, remaining: min(2, remaining))
    read, evaluate = fitting._Loop._read, engines.OneRun.evaluate

    def wait(self, call, state):
        if call is not None:
            clock.now += 3.0 * int((call.end - call.begin).max())
        read(self, call, state)

    def validate(self, *what):
        clock.now += 20.0
        return evaluate(self, *what)

    monkeypatch.setattr(fitting._Loop, "_read", wait)
    monkeypatch.setattr(engines.OneRun, "evaluate", validate)
    run, split = begin(override(TEXT, epochs=3))
    told = Silent()
    fitting.fit(run, split, told)
    for line in run.metrics():
        assert (line.train_seconds, line.eval_seconds) == (21.0, 40.0)
        assert line.chars_per_s == pytest.approx(4 * 16 / 3.0, abs=0.1)
    late = [seen for seen in told.seen if isinstance(seen, Snapshot) and seen.epoch > 1]
    assert {seen.epoch for seen in late} == {2, 3}
    for seen in late:
        steps, validations = 7 * (4 - seen.epoch) - seen.step, 4 - seen.epoch
        assert seen.seconds_left == pytest.approx(3.0 * steps + 40.0 * validations)


def test_a_pace_is_that_of_steps_without_compilation(monkeypatch: pytest.MonkeyPatch):
    assert pace.steps_of_a_call(1e-9) == MAX_STEPS_PER_CALL
    now = 0.0
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now)
    kept = pace.Pace()
    kept.start()
    assert kept.steps(10**6) == 1
    now += 60.0  # To compile.
    assert (kept.observe(1), kept.known, kept.steps(10**6)) == (60.0, False, 1)
    now += 0.5
    assert (kept.observe(10), kept.known) == (0.5, True)
    assert (kept.steps(10**6), kept.steps(7)) == (60, 7)  # Three seconds of them.
    now += 900.0  # To validate.
    kept.start()
    now += 1.0
    assert kept.observe(20) == 1.0


def test_every_epoch_draws_batches_of_its_own(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    drawn: dict[str, list[np.ndarray]] = {"epoch_rows": [], "estimate_rows": []}
    run, split = begin(TEXT)
    for name, seen in drawn.items():
        draw = getattr(TextWindows, name)

        def spy(self, *how, draw=draw, seen=seen):
            seen.append(np.asarray(draw(self, *how)))
            return seen[-1]

        monkeypatch.setattr(TextWindows, name, spy)
    fitting.fit(run, split, Silent())
    for first, second in drawn.values():
        assert not np.array_equal(first, second)


def test_a_gradient_that_overflows_stops_a_training_whose_loss_is_finite(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    update = Trainer.update

    def overflow(self, state, batch, keep):
        after, told = update(self, state, batch, keep)
        norm = jnp.where(state.step == 3, jnp.inf, told.grad_norm)
        return after, told._replace(grad_norm=norm)

    monkeypatch.setattr(Trainer, "update", overflow)
    run, split = begin(override(TEXT, learning_rate=1.5e-3))  # So that it is compiled anew.
    trainer, keys = Trainer(run.preset, 7), Keys.from_seed(0)
    rows = split.train.epoch_rows(keys.batches, 7)
    state, told = trainer.run_steps(trainer.init(keys.init), split.train, rows, 0, 7, keys.dropout)
    assert int(state.step) == 3
    assert np.isfinite(told.loss_nats).all()
    with pytest.raises(DivergedError, match="at step 4, the norm of the gradient is not finite"):
        fitting.fit(run, split, Silent())
