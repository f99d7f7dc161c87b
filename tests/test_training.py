"""Training: it learns, resumes exactly, and evaluates every character once."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from astra_jax import builtin_corpus, experiments, fitting
from astra_jax.config import Preset
from astra_jax.datasets import Split
from astra_jax.errors import DivergedError, InputError
from astra_jax.presets import PRESETS, override
from astra_jax.progress import Snapshot
from astra_jax.runs import EpochMetrics, Run
from astra_jax.training import Keys, Trainer

TINY = dict(embedding_dim=4, hidden_dim=8, batch_size=4, seq_len=16, epochs=2)
TEXT = override(PRESETS["shakespeare", "beta"], steps_per_epoch=7, **TINY)
WORDS = override(PRESETS["names", "gamma"], steps_per_epoch=7, **TINY)


Begin = Callable[..., tuple[Run, Split]]
Train = Callable[..., Run]


class Silent:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def steps(self, snapshot: Snapshot) -> None:
        self.seen.append(snapshot)

    def epoch(self, metrics: EpochMetrics) -> None:
        self.seen.append(metrics)


class CtrlC(Silent):
    def __init__(self, epoch: int):
        super().__init__()
        self.at_epoch = epoch

    def steps(self, snapshot: Snapshot) -> None:
        if snapshot.epoch == self.at_epoch:
            signal.raise_signal(signal.SIGINT)


def without_times(metrics: list[EpochMetrics]) -> list[EpochMetrics]:
    times = dict(chars_per_s=0.0, train_seconds=0.0, eval_seconds=0.0)
    return [dataclasses.replace(line, **times) for line in metrics]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A few hundred windows and words: enough to train on, quick to go through."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "text.txt").write_text(builtin_corpus.play()[:6000])
    (folder / "words.txt").write_text("\n".join(builtin_corpus.names().split()[:301]))
    return {"shakespeare": str(folder / "text.txt"), "names": str(folder / "words.txt")}


@pytest.fixture
def begin(corpora: dict[str, str], tmp_path: Path) -> Begin:
    def begin(preset: Preset, name: str = "run") -> tuple[Run, Split]:
        return experiments.begin(preset, corpora[preset.data.dataset], tmp_path / name)

    return begin


@pytest.fixture
def train(begin: Begin) -> Train:
    def train(preset: Preset, name: str = "run") -> Run:
        run, split = begin(preset, name)
        fitting.fit(run, split, Silent())
        return run

    return train


def final_params(run: Run) -> list[np.ndarray]:
    model = experiments.restore_model(run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


@pytest.mark.parametrize(
    "preset", [TEXT, WORDS, override(TEXT, dtype="float64")], ids=["text", "words", "float64"]
)
def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(
    preset: Preset, begin: Begin, train: Train, monkeypatch: pytest.MonkeyPatch
):
    whole = train(preset, "whole")
    run, split = begin(preset, "halves")
    # However many steps a call does, the steps are the same.
    monkeypatch.setattr(fitting._Pace, "steps", lambda self, remaining: min(3, remaining))
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(run, split, CtrlC(epoch=2))
    assert len(run.metrics()) == 1
    run, split = experiments.resume(run.folder)
    fitting.fit(run, split, Silent())
    assert without_times(run.metrics()) == without_times(whole.metrics())
    for one, other in zip(final_params(run), final_params(whole), strict=True):
        assert one.dtype == ("float64" if preset.train.dtype == "float64" else "float32")
        assert one.tobytes() == other.tobytes()


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


@pytest.mark.parametrize("preset", [TEXT, WORDS], ids=["text", "words"])
def test_the_full_pass_is_the_mean_over_every_character(preset: Preset, begin: Begin):
    run, split = begin(preset)
    trainer = Trainer(run.preset, 1)
    params = trainer.init(Keys.from_seed(0).init).params
    data = split.validation
    losses = trainer.evaluate(params, data, data.cover_rows())
    assert losses.counts.sum() == data.num_targets
    # The same in one batch of all windows or words, with NumPy's own arithmetic.
    batch = data.batch(data.cover_rows().ravel())
    logits, _ = jax.jit(nnx.merge(trainer.graph, params).__call__)(batch.inputs)
    exp = np.exp(np.asarray(logits, np.float64))
    targets = np.asarray(batch.targets)
    places = np.argwhere(targets >= 0)
    likelihoods = [exp[b, t, targets[b, t]] / exp[b, t].sum() for b, t in places]
    assert len(likelihoods) == data.num_targets
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


def test_grad_norm_is_measured_before_the_clip(begin: Begin):
    run, split = begin(override(TEXT, clip=1e-3))
    trainer = Trainer(run.preset, 7)
    state = trainer.init(Keys.from_seed(0).init)
    batch = split.train.batch(split.train.epoch_rows(jax.random.key(0), 1)[0])
    _, metrics = jax.jit(trainer.update)(state, batch, None)
    grads = jax.jit(jax.grad(trainer.loss))(state.params, batch)
    np.testing.assert_allclose(metrics.grad_norm, optax.tree.norm(grads), rtol=1e-6)
    assert metrics.grad_norm > 1e-2


def test_a_diverged_run_stops(train: Train):
    with pytest.raises(DivergedError, match=r"loss is nan by step \d+: .*--learning-rate"):
        train(override(TEXT, learning_rate=1e30, clip=None))
    # The last update of an epoch shows in the validation only.
    with pytest.raises(DivergedError, match=r"(validation|norm).* is (nan|inf) by step 1: "):
        train(override(TEXT, learning_rate=1e38, steps_per_epoch=1, clip=None), "one step")


def test_more_steps_than_batches_are_refused(begin: Begin, tmp_path: Path):
    with pytest.raises(InputError, match=r"at most 60.*got 61"):
        begin(override(WORDS, steps_per_epoch=61))
    assert not (tmp_path / "run").exists()


def test_resume_refuses_another_corpus(begin: Begin, corpora: dict[str, str]):
    run, _ = begin(TEXT)
    with pytest.raises(InputError, match=r"begun on text.txt .* found words.txt"):
        experiments.resume(run.folder, corpora["names"])
