"""The study on tiny models and on made records: what is trained, kept, judged and written."""

import dataclasses
import json
import math
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from flax import nnx

from astra_jax.config import Preset
from astra_jax.data.corpus import PUBLISHED, CorpusRecord
from astra_jax.errors import InputError, StoppedError
from astra_jax.experiments import lifecycle, restoring
from astra_jax.presets import NOTEBOOK, PRESETS, TUNED, override
from astra_jax.published import PUBLISHED_LOSSES
from astra_jax.report import figures
from astra_jax.runs.metrics import EpochMetrics, Spread
from astra_jax.training import fitting, pace, stopping
from astra_jax.training.progress import Snapshot
from study import course, findings, measures, page, plan, records, tables, trainings
from study.contrasts import Contrast, contrasts_of, pairs_of
from study.outcomes import Outcome, outcomes_of
from study.plan import PLAN, Row, choose
from study.records import RunRecord
from study.trainings import Work
from study.verdicts import Verdict, tallies_of, verdicts_of
from tests.commands import call
from tests.test_resume import assert_same_end
from tests.trainings import Silent

TINY = dict(embedding_dim=4, hidden_dim=8, num_layers=1, batch_size=4, seq_len=16)
TEXT = Row(dataset="shakespeare", model="alpha", recipe="notebook", seeds=2)
WORDS = Row(dataset="names", model="alpha", recipe="notebook", seeds=2)


def tiny(row: Row) -> Preset | None:
    if row.recipe != NOTEBOOK:
        return None
    preset = override(PRESETS[row.dataset, row.model], epochs=2, steps_per_epoch=7, **TINY)
    return dataclasses.replace(preset, name=row.model)


class Asked:
    """Stands in for what a model is asked, and takes note."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def evaluate(self, run: Any, split: Any) -> dict[str, Any]:
        self.seeds.append(run.preset.train.seed)
        return made_evaluation(run.metrics()[-1].val_loss_nats if run.metrics() else 4.0, split)

    def compare_samplers(self, run: Any, split: Any) -> dict[str, Any]:
        del split
        return made_samplers(words=run.preset.data.dataset == "names")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Makes the study one of tiny models that answer at once."""
    asked = Asked()
    monkeypatch.setattr(plan, "preset_of", tiny)
    monkeypatch.setattr(plan, "PLAN", (TEXT, WORDS))
    monkeypatch.setattr(measures, "evaluate", asked.evaluate)
    monkeypatch.setattr(measures, "compare_samplers", asked.compare_samplers)
    monkeypatch.setattr(trainings, "write_samples", lambda run: None)
    monkeypatch.setattr(trainings, "draw_losses", lambda run: None)
    monkeypatch.setattr(page, "draw_all", lambda outcomes, out: [])
    monkeypatch.setattr(pace.Pace, "steps", lambda self, remaining: min(2, remaining))
    return asked


EVALUATE, COMPARE_SAMPLERS = measures.evaluate, measures.compare_samplers
Bench = Callable[..., Work]


@pytest.fixture
def bench(tmp_path: Path, corpora: dict[str, str]) -> Bench:
    def make(name: str = "", dataset: str = "shakespeare", **fields: Any) -> Work:
        where = dict(runs=tmp_path / f"{name}runs", out=tmp_path / f"{name}out")
        return Work(**where, corpus=corpora[dataset], tell=lambda line: None, **fields)

    return make


def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Returns a list that fills with the seeds of every call that trains."""
    calls: list[list[int]] = []
    fit_together = fitting.fit_together

    def spy(runs: Sequence[Any], *rest: Any) -> None:
        calls.append([run.preset.train.seed for run in runs])
        fit_together(runs, *rest)

    monkeypatch.setattr(trainings, "fit_together", spy)
    return calls


def test_an_interrupted_measure_forgets_not_how_many_were_trained_together(
    asked: Asked, bench: Bench
):
    work = bench()
    with (
        mock.patch.object(measures, "evaluate", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        trainings.advance(TEXT, work, Silent())
    trainings.advance(TEXT, work, Silent())
    assert asked.seeds == [0, 1]
    found = [work.known(TEXT, preset) for preset in plan.presets_of(TEXT)]
    assert [record and record.runs_together for record in found] == [(2, 2), (2, 2)]


def test_a_command_trains_what_is_missing_once_and_writes_the_page(
    asked: Asked, corpora: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls, out = trained(monkeypatch), tmp_path / "out"
    where = ["--runs", tmp_path / "runs", "--out", out]
    only = ["--only", "alpha", "--corpus", corpora["shakespeare"]]
    result = call("study.py", *where, *only)
    assert result.code == 0, result.err
    assert calls == [[0, 1]]
    assert asked.seeds == [0, 1]
    record = json.loads((out / "runs" / "shakespeare-alpha-notebook-seed-1.json").read_text())
    folder = tmp_path / "runs" / "shakespeare-alpha-notebook" / "seed-1"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert record["epochs"] == [line | {"runs_together": 2} for line in lines]
    assert record["complete"] is True
    assert record["training_chars"] == 2 * 7 * 4 * 16
    assert record["train_seconds"] == pytest.approx(
        sum(line["train_seconds"] for line in lines) / 2, abs=0.001
    )
    assert record["corpus"]["path"] is None
    assert str(tmp_path) not in json.dumps(record)
    assert "names-custom, notebook: not trained, seed 0, 1" in (out / "README.md").read_text()

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.rmtree(folder.parent)  # Another machine has the records, not the runs.
    assert call("study.py", *where, *only).code == 0
    assert calls == [[0, 1]]
    assert {path: path.read_bytes() for path in before} == before
    dry = call("study.py", *where, *only, "--seeds", 4, "--dry-run")
    assert "2 of 4 seeds done, 4 of 8 epochs; about" in dry.out

    assert call("study.py", *where, *only, "--seeds", 4).code == 0
    assert calls == [[0, 1], [2, 3]]
    assert asked.seeds == [0, 1, 2, 3]
    assert call("study.py", *where, *only, "--again").code == 0
    assert calls == [[0, 1], [2, 3], [0, 1]]
    assert asked.seeds == [0, 1, 2, 3, 0, 1]


def test_words_are_recorded_with_the_targets_that_they_have_and_models_are_asked(
    asked: Asked, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    del asked
    monkeypatch.setattr(measures, "evaluate", EVALUATE)
    monkeypatch.setattr(measures, "compare_samplers", COMPARE_SAMPLERS)
    evaluation = made_evaluation(2.0, words=True)
    evaluate = mock.Mock(return_value=SimpleNamespace(to_dict=lambda: evaluation))
    compare = mock.Mock(return_value=made_samplers(words=True))
    monkeypatch.setattr(measures.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(measures.texts, "compare_samplers", compare)
    finished: list[Path] = []
    monkeypatch.setattr(trainings, "write_samples", lambda run: finished.append(run.folder))
    work = bench(dataset="names")
    course.conduct([WORDS], work, Silent())
    first, second = records.read_all(work.out)
    run, split = lifecycle.resume(work.folder(WORDS, 0), work.corpus)
    steps = split.train.max_steps
    assert steps is not None
    assert first.training_chars == round(14 * split.train.count_targets() / steps)
    assert first.preset == override(second.preset, seed=0)
    assert (first.evaluation, first.samplers) == (evaluation, made_samplers(words=True))
    assert finished == [work.folder(WORDS, seed) for seed in (0, 1)]
    newest = nnx.state(restoring.restore_model(run))
    for asked_of in (evaluate.call_args_list[0].args[0], compare.call_args_list[0].args[1]):
        same = jax.tree.map(
            lambda one, other: bool((one == other).all()), newest, nnx.state(asked_of)
        )
        assert all(jax.tree.leaves(same))


class Clock(Silent):
    """Time that goes on when training tells of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def steps(self, snapshot: Snapshot) -> None:
        super().steps(snapshot)
        self.now += 1


def test_a_budget_stops_inside_an_epoch_and_the_next_call_ends_where_none_would_have(
    asked: Asked, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    whole = bench("whole-")
    course.conduct([TEXT], whole, Silent())
    clock, parts = Clock(), bench("parts-")
    monkeypatch.setattr(stopping, "time", clock)
    monkeypatch.setattr(trainings, "time", clock)
    course.conduct([TEXT, WORDS], dataclasses.replace(parts, deadline=4.0), clock)
    partial = records.read_all(parts.out)
    assert [record.seed for record in partial] == [0, 1]  # Of the second row none had begun.
    assert {record.steps_done for record in partial} == {partial[0].steps_done}
    assert 7 < partial[0].steps_done < 14
    assert len(partial[0].epochs) == 1
    assert not partial[0].is_complete
    assert partial[0].is_measured
    text = (parts.out / "README.md").read_text()
    assert "| **1 of 2** |" in text
    assert "Astra-custom, notebook: **1 of 2 epochs**, seed 0, 1" in text

    course.conduct([TEXT], dataclasses.replace(parts, deadline=4.0), clock)
    assert records.read_all(parts.out) == partial
    course.conduct([TEXT], parts, Silent())
    for seed in (0, 1):
        runs = (lifecycle.resume(each.folder(TEXT, seed))[0] for each in (parts, whole))
        assert_same_end(*runs)
    assert all(record.is_complete for record in records.read_all(parts.out))
    assert asked.seeds == [0, 1] * 3


def test_what_was_trained_before_a_call_was_ended_is_measured_though_time_is_up(
    asked: Asked, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    class Interrupted(Silent):
        def epoch(self, lines: Sequence[EpochMetrics]) -> None:
            del lines
            signal.raise_signal(signal.SIGTERM)

    work = bench()
    with pytest.raises(StoppedError, match="stopped by SIGTERM after step 7"):
        course.conduct([TEXT], work, Interrupted())
    assert not records.read_all(work.out)
    calls = trained(monkeypatch)
    course.conduct([TEXT], dataclasses.replace(work, deadline=0.0), Silent())
    assert [record.steps_done for record in records.read_all(work.out)] == [7, 7]
    assert calls == []


def test_rows_that_cannot_be_trained_are_refused_in_one_line(
    asked: Asked, bench: Bench, corpora: dict[str, str], tmp_path: Path
):
    for flags, message in (
        (["--only", "delta"], "error: the study has no 'delta': choose from alpha, names-alpha, "),
        (["--seeds", 0], "error: --seeds must be from 1 to 1024, got 0"),
        (["--budget", -1], "error: --budget must be at least 0 minutes, got -1"),
        ([], "error: the study needs the published corpora: connect to the network, set"),
    ):
        result = call("study.py", *flags, "--runs", tmp_path / "r", "--out", tmp_path / "o")
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert result.err.startswith(message)
    assert not (tmp_path / "r").exists()
    work = bench()
    course.conduct([TEXT], work, Silent())
    other = dataclasses.replace(work, corpus=corpora["names"])
    with pytest.raises(InputError, match=r"seed-0\.json is of text\.txt, and .* of words\.txt"):
        course.conduct([dataclasses.replace(TEXT, seeds=3)], other, Silent())
    path = work.out / "runs" / "shakespeare-alpha-notebook-seed-0.json"
    values = json.loads(path.read_text())
    values["preset"]["train"]["learning_rate"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"another recipe .* learning_rate was 0\.5, now 0\.003"):
        course.conduct([TEXT], work, Silent())


def test_the_plan_has_every_model_and_leaves_out_recipes_that_there_are_none_of():
    names = [row.name for row in PLAN if row.recipe == NOTEBOOK]
    assert sorted(names) == sorted(
        f"{'names-' if dataset == 'names' else ''}{model}" for dataset, model in PRESETS
    )
    assert {row.name for row in choose(None, None)} >= set(names)
    assert [row.seeds for row in choose("beta, alpha", 5)] == [5, 5]
    assert choose("page", None) == []


def made_evaluation(loss: float, split: Any = None, *, words: bool = False) -> dict[str, Any]:
    def part(nats: float) -> dict[str, Any]:
        return {"loss_nats": nats, "bits_per_char": nats / math.log(2), "num_targets": 1000}

    if words:
        return {"kind": "words", "all": part(loss), "seen": None, "unseen": part(loss + 0.1)}
    batch = {"num_batches": 200, "mean": loss, "std": 0.03, "lowest": loss - 0.1}
    return {
        "kind": "text",
        "carried": part(loss - 0.05),
        "windows_128": part(loss),
        "windows_256": part(loss - 0.02),
        "one_batch": batch | {"highest": loss + 0.1},
    }


def made_samplers(*, words: bool = False) -> dict[str, Any]:
    def sampler(mode: str, strategy: str, share: float) -> dict[str, Any]:
        names = ("later_nats_per_char", "known_words", "distinct")
        names = names if words else ("nats_per_char", "known_words", "repetition")
        numbers = {name: {"mean": share, "error": 0.01} for name in names}
        return {"mode": mode, "strategy": strategy, "text": "a|b\n<i>*c*"} | numbers

    k = 28 if words else 30  # Words have fewer characters.
    listed = [
        sampler(mode, strategy, share)
        for mode, share in (("stateful", 0.5), ("stateless", 0.75))
        for strategy in ("greedy", f"top-k {k}, temperature 1.0", f"top-k {k}, temperature 0.8")
    ]
    real = sampler("", "", 0.9)
    return {"reference": real, "samplers": listed}


def made(
    dataset: Any,
    model: str,
    seed: int = 0,
    *,
    recipe: str = NOTEBOOK,
    offset: float = 0.0,
    done: int | None = None,
    rise: float = 0.0,
) -> RunRecord:
    """Returns a record of nothing, whose losses are the published ones less an offset."""
    preset = override(PRESETS[dataset, model], seed=seed)
    published = PUBLISHED_LOSSES.get((dataset, model), {})
    epochs, steps = preset.train.epochs, preset.train.steps_per_epoch or 401
    lines, last = [], (2.0, 2.0)
    for epoch in range(1, (done or epochs) + 1):
        train, validation = published.get(epoch, last)
        last = train, last[1] if validation is None else validation
        line = EpochMetrics(
            epoch=epoch,
            step=steps * epoch,
            learning_rate=0.001,
            train_loss_nats=last[0] - offset,
            val_estimate_nats=last[1] - offset,
            val_loss_nats=2 - offset - 0.01 * min(epoch, 5) + rise * max(0, epoch - 5),
            grad_norm=0.1,
            chars_per_s=1e5,
            train_seconds=10.0,
            eval_seconds=1.0,
        )
        lines.append(line)
    corpus = PUBLISHED[dataset]
    words, loss = dataset == "names", lines[-1].val_loss_nats
    return RunRecord(
        recipe=recipe,  # pyright: ignore[reportArgumentType]
        preset=preset,
        corpus=CorpusRecord(
            name=corpus.title,
            origin="cache",
            path=None,
            sha256=corpus.sha256,
            characters=corpus.size,
        ),
        environment={"processor": "a processor", "cores": 2, "devices": ["cpu"], "jax": "0.10"},
        epochs=tuple(lines),
        runs_together=(2,) * len(lines),
        steps_done=lines[-1].step,
        steps_planned=steps * epochs,
        training_chars=lines[-1].step * 64,
        evaluation=made_evaluation(loss, words=words),
        samplers=made_samplers(words=words),
    )


OFFSETS = (0.001, 0.002, 0.004, 0.005, 0.003, 0.003)


def made_study() -> list[RunRecord]:
    return [
        *(made("shakespeare", "alpha", seed, offset=each) for seed, each in enumerate(OFFSETS)),
        *(
            made("shakespeare", "alpha", seed, recipe=TUNED, offset=0.06 + each / 2)
            for seed, each in enumerate(OFFSETS)
        ),
        *(made("shakespeare", "beta", seed, offset=seed / 100) for seed in (0, 1)),
        made("shakespeare", "gamma", done=12, rise=0.01),
        made("names", "alpha"),
    ]


def outcome_of(*found: RunRecord) -> Outcome:
    (outcome,) = outcomes_of(found)
    return outcome


def test_a_verdict_is_by_students_interval_for_one_further_run():
    ours = Spread.of([1.0, 1.1, 1.2])  # s = 0.1; t is 4.3027 at 2 degrees of freedom.
    half = 4.302653 * 0.1 * math.sqrt(4 / 3)
    for published, inside in ((1.1 + 0.999 * half, True), (1.1 - 1.001 * half, False)):
        verdict = Verdict(epoch=1, quantity="train", published=published, ours=ours, num_runs=3)
        assert verdict.half_width == pytest.approx(half, rel=1e-6)
        assert verdict.is_inside is inside
        assert verdict.difference == pytest.approx(published - 1.1)
        assert verdict.deviations == pytest.approx((published - 1.1) / 0.1)
    alone = Verdict(
        epoch=1,
        quantity="validation",
        published=1.2,
        ours=Spread.of([1.0]),
        num_runs=1,
        batch_std=0.05,
    )
    assert (alone.half_width, alone.is_inside, alone.deviations) == (None, None, None)
    assert alone.batch_half_width == pytest.approx(1.959964 * 0.05 * math.sqrt(2), rel=1e-6)


def test_the_interval_covers_one_further_run_as_often_as_it_says():
    rng, inside, number = np.random.default_rng(0), 0, 4000
    for runs in rng.normal(size=(number, 4)):
        *ours, further = runs.tolist()
        verdict = Verdict(
            epoch=1, quantity="train", published=further, ours=Spread.of(ours), num_runs=3
        )
        inside += verdict.is_inside is True
    assert abs(inside / number - 0.95) < 3 * math.sqrt(0.95 * 0.05 / number)


def test_published_numbers_meet_those_of_their_epoch_and_quantity():
    runs = [made("shakespeare", "alpha", seed, offset=each) for seed, each in enumerate(OFFSETS)]
    outcome = outcome_of(*runs)
    found = verdicts_of(outcome)
    assert [(each.epoch, each.quantity) for each in found[:3]] == [
        (1, "train"),
        (1, "validation"),
        (2, "train"),
    ]
    assert len(found) == 20
    for verdict in found:
        assert verdict.difference == pytest.approx(0.003)
        scatter = pytest.approx(0.03) if verdict.quantity == "validation" else None
        assert verdict.batch_std == scatter
    train, validation = tallies_of(found)
    assert (train.judged, train.inside, validation.inside) == (10, 10, 10)
    assert "20 of 20 published numbers are inside" in findings.verdicts(outcome)
    far = [dataclasses.replace(run, epochs=shifted(run, 0.5)) for run in runs]
    assert "0 of 20 published numbers are inside" in findings.verdicts(outcome_of(*far))
    other = dataclasses.replace(runs[0].corpus, sha256="0" * 64)
    assert not verdicts_of(outcome_of(dataclasses.replace(runs[0], corpus=other)))
    faster = override(runs[0].preset, learning_rate=0.1)
    assert not verdicts_of(outcome_of(dataclasses.replace(runs[0], preset=faster)))


def test_the_committed_records_are_of_the_recipes_as_they_are():
    out = Path(__file__).parents[1] / "results" / "study"
    meant = [(row, preset) for row in PLAN for preset in plan.presets_of(row)]
    found = [records.find(out, row, preset) for row, preset in meant]  # Of another, it raises.
    assert len(found) == 36
    assert None not in found


def test_a_published_number_that_was_cut_off_has_no_verdict():
    found = verdicts_of(outcome_of(made("shakespeare", "gamma")))
    assert [(each.quantity, each.published) for each in found if each.epoch >= 17] == [
        ("train", 1.1043),
        ("validation", 1.4891),
        ("train", 1.1023),
    ]


def shifted(run: RunRecord, by: float) -> tuple[EpochMetrics, ...]:
    return tuple(
        dataclasses.replace(
            line,
            train_loss_nats=line.train_loss_nats - by,
            val_estimate_nats=line.val_estimate_nats - by,
        )
        for line in run.epochs
    )


def test_gains_are_paired_by_seed_and_know_their_error():
    contrast = Contrast(measure="all", notebook=(2.0, 2.2, 2.4), tuned=(1.9, 2.0, 2.3))
    assert contrast.gain == pytest.approx(0.4 / 3)
    assert contrast.error == pytest.approx(np.std([0.1, 0.2, 0.1], ddof=1) / math.sqrt(3))
    assert contrast.is_enough is None  # 0.05 is inside 0.133 ± 4.30 · 0.033.
    for low, verdict in ((1.86, True), (1.96, False)):
        near = Contrast(measure="all", notebook=(2.0,) * 3, tuned=(low, low + 0.01, low + 0.01))
        assert near.is_enough is verdict
    alone = Contrast(measure="all", notebook=(2.0,), tuned=(1.8,))
    assert alone.is_enough is None
    assert Contrast(measure="all", notebook=(2.0,), tuned=(1.96,)).error is None
    outcomes = outcomes_of(sorted(made_study(), key=lambda each: (each.stem, each.seed)))
    ((notebook, tuned),) = pairs_of(outcomes)
    begun = made("shakespeare", "alpha", recipe=TUNED, done=3)
    assert pairs_of([notebook, *outcomes_of([begun])]) == []
    for found in contrasts_of(notebook, tuned):
        gains = [0.06 - each / 2 for each in OFFSETS]
        np.testing.assert_allclose(found.gains, gains)
    told = findings.tuned(notebook, tuned)
    assert "6 seeds" in told
    assert "The goal of 0.05 nats is reached." in told
    assert (
        findings._goal(alone) == "Whether the goal of 0.05 nats is reached, one seed leaves open."
    )
    assert "as many characters" in told
    assert notebook.seconds(1) == 5.0  # Two were trained together in ten.
    longer = (dataclasses.replace(each, training_chars=10**12) for each in tuned.records)
    more = dataclasses.replace(tuned, records=tuple(longer))
    assert "**more** characters" in findings.tuned(notebook, more)
    assert "at its lowest" not in told


def test_runs_that_stand_elsewhere_change_no_mean():
    """As if seeds were added under a budget: the losses of the newer runs are lower."""
    whole = made("shakespeare", "alpha")
    newer = [made("shakespeare", "alpha", seed, offset=0.2, done=5) for seed in (1, 2)]
    outcome = outcome_of(whole, *newer)
    assert findings.overfitting(outcome) == findings.overfitting(outcome_of(whole))
    assert "one run: of one run there is no interval" in findings.verdicts(outcome)
    assert len(outcome.lines(1)) == 1
    smaller = made("shakespeare", "alpha", done=3)
    (sentence,) = findings.scaling([outcome_of(smaller), outcome_of(made("shakespeare", "beta"))])
    assert "parameters of Astra-α after 3 of 10 epochs, Astra-β is" in sentence


def test_a_gain_over_what_overfits_is_also_told_against_its_lowest():
    outcomes = outcomes_of(sorted(made_study(), key=lambda each: (each.stem, each.seed)))
    ((notebook, tuned),) = pairs_of(outcomes)
    end = tuned.of_epoch(tuned.epochs[-1], lambda line: line.val_loss_nats).mean
    runs = []
    for run in notebook.furthest:
        lines = list(run.epochs)
        lines[1] = dataclasses.replace(lines[1], val_loss_nats=end - 0.02)
        runs.append(dataclasses.replace(run, epochs=tuple(lines)))
    told = findings.tuned(outcome_of(*runs), tuned)
    assert "0.0200 nats higher than that of the study's recipe at its lowest, epoch 2." in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(format=2), "is no record of format 1"),
        (dict(epochs=None), "epochs must be a list of objects, got None"),
        (dict(recipe="best"), "recipe must be one of notebook, tuned, got 'best'"),
        (dict(complete=False), "contradicts itself: complete was False, now True"),
        (dict(parameters=1), "contradicts itself: parameters was 1, now 86913"),
        (dict(steps_done=5), "steps_done must be from 2000, its last epoch's, to 2000, got 5"),
        (dict(evaluation=[1]), r"evaluation must be dict or null, got \[1\]"),
        (dict(preset={}), "Preset: missing fields"),
        (dict(corpus=3), "CorpusRecord must be a JSON object, got 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_damaged_records_are_refused_in_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
):
    record = made("shakespeare", "alpha")
    assert records.keep(tmp_path, record)
    path = tmp_path / "runs" / record.file_name
    assert records.read(path) == record
    path.write_text(json.dumps(record.to_dict() | change))
    with pytest.raises(InputError, match=message):
        records.read(path)
    result = call("study.py", "--only", "page", "--out", tmp_path)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert str(path) in result.err
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is not valid JSON"):
        records.read(path)


def test_records_with_numbers_missing_inside_are_refused_by_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(page, "draw_all", lambda outcomes, out: [])
    record = made("shakespeare", "alpha")
    for evaluation in ({"carried": 3}, {"carried": {"loss_nats": "low"}}):
        records.keep(tmp_path, dataclasses.replace(record, evaluation=evaluation))
        with pytest.raises(InputError, match=r"seed-0\.json is damaged"):
            page.write_page(tmp_path)
    for samplers in ({"reference": {}}, {"reference": {}, "samplers": [{"mode": "?"}]}):
        records.keep(tmp_path, dataclasses.replace(record, samplers=samplers))
        with pytest.raises(InputError, match=r"seed-0\.json is damaged"):
            page.write_page(tmp_path)


def test_what_has_gone_further_stays(tmp_path: Path):
    whole, part = made("shakespeare", "gamma"), made("shakespeare", "gamma", done=12)
    assert records.keep(tmp_path, part)
    assert records.keep(tmp_path, whole)
    assert not records.keep(tmp_path, part)
    path = tmp_path / "runs" / whole.file_name
    assert records.read(path) == whole
    path.rename(path.with_name("other.json"))
    with pytest.raises(InputError, match="belongs into shakespeare-gamma-notebook-seed-0"):
        records.read_all(tmp_path)


def test_epochs_keep_how_many_runs_were_trained_together():
    record = made("names", "alpha", done=3)
    longer = made("names", "alpha", done=5).epochs
    assert records.continued(record, longer, 6) == (2, 2, 2, 6, 6)
    anew = (dataclasses.replace(longer[0], train_seconds=3.0), *longer[1:])
    assert records.continued(record, anew, 6) == (6, 2, 2, 6, 6)
    assert records.continued(None, longer, 6) == (6,) * 5
    assert record.train_seconds == 15.0
    longer = made("names", "alpha", done=10)
    tenths = tuple(dataclasses.replace(line, train_seconds=0.1) for line in longer.epochs)
    # Added one by one they are less, and a file that one Python wrote contradicts another's sum.
    alone = dataclasses.replace(longer, epochs=tenths, runs_together=(1,) * 10)
    assert alone.train_seconds == 1.0


def test_the_page_is_the_same_to_the_byte_and_all_it_links_to_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figures, "DPI", 30)
    kept = [record for record in made_study() if record.preset.name == "alpha"]
    for name in ("one", "two"):
        for record in kept:
            records.keep(tmp_path / name, record)
        page.write_page(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir() if path.is_file())
    assert files == [
        "README.md",
        "curves-names.png",
        "curves-shakespeare.png",
        "overfitting.png",
        "samplers.png",
        "scaling.png",
        "summary.json",
        "verdicts.png",
    ]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = (tmp_path / "one" / "README.md").read_text()
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    for link in links - {"../../astra_jax/published.py"}:
        assert (tmp_path / "one" / link).exists(), link
    assert {f"runs/{record.file_name}" for record in kept} <= links
    assert not re.findall(r"\b(None|nan|inf)\b", text)


def test_sentences_follow_from_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page, "draw_all", lambda outcomes, out: [])
    for record in made_study():
        records.keep(tmp_path, record)
    page.write_page(tmp_path)
    text = (tmp_path / "README.md").read_text()
    for line in (
        "**Astra-α**, 6 runs: 20 of 20 published numbers are inside the 95% prediction interval",
        "**Astra-β**, 2 runs: two runs leave an interval of 16 standard deviations to either side",
        "**Astra-γ**, one run: of one run there is no interval",
        "the published training losses are 0.0030 nats above ours on average",
        "**Astra-γ** overfits: its validation loss is lowest at epoch 5 with 1.9500, 0.0700 higher",
        "at epoch 12 (of 20, as far as it has come), 0.878 nats above training there",
        "**Astra-α** does not overfit: its validation loss is 1.9470 at epoch 5 and epoch 10",
        "two of the same model are less than 0.083 apart in 95 of 100 cases; 8 of the 9 steps",
        "| Astra-γ | 4,383,041 | **12 of 20** |",
        "* Astra-γ, notebook: **12 of 20 epochs**, seed 0",
        "* names-α, notebook: not trained, seed 1, 2, 3, 4, 5",
        "* names-γ, notebook: not trained, seed 0",
        "75% against 50% of the words are in the corpus",
        "75% against 50% of the words are training words",
        "| greedy | stateful | 0.500 ± 0.010 | 50.0% ± 1.0% | 50.0% |",
    ):
        assert line in text, line
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tuned"]["alpha"]["carried"]["gain_nats"] == pytest.approx(0.0585)
    assert summary["rows"]["alpha"]["published"][0]["inside"] is True
    assert "log.md" not in text
    (tmp_path / "log.md").write_text("tried\n")
    page.write_page(tmp_path)
    assert "[`log.md`](log.md)" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("kept", [0, 1], ids=["nothing", "one epoch, not evaluated"])
def test_a_page_of_little_can_be_written(kept: int, tmp_path: Path):
    if kept:
        record = made("names", "gamma", done=1)
        records.keep(tmp_path, dataclasses.replace(record, evaluation=None, samplers=None))
    result = call("study.py", "--only", "page", "--out", tmp_path)
    assert result.code == 0, result.err
    text = (tmp_path / "README.md").read_text()
    assert ("No run has been recorded yet." in text) == (not kept)
    assert ("| names-γ | 4,155,420 | **1 of 60** |" in text) == bool(kept)


def test_texts_stand_side_by_side_as_they_are_written():
    text = tables.texts(outcome_of(made("shakespeare", "alpha")))
    head, _, *rows = text.splitlines()
    assert head == "| Astra-α | stateful | stateless |"
    cell = "a&#124;b<br>&lt;i&gt;&#42;c&#42;"
    assert rows[0] == f"| greedy | {cell} | {cell} |"
    assert len(rows) == 2


def test_a_row_of_several_recipes_is_refused():
    one = made("shakespeare", "alpha")
    other = dataclasses.replace(one, preset=override(one.preset, seed=1, learning_rate=0.1))
    with pytest.raises(InputError, match=r"seed-1\.json is not of the recipe and corpus of"):
        outcomes_of([one, other])


def test_long_epochs_are_saved_on_the_way(monkeypatch: pytest.MonkeyPatch):
    steps = {name: trainings._save_every(preset) for name, preset in PRESETS.items()}
    assert steps["shakespeare", "gamma"] == 93
    assert all(
        every is not None and every > 250
        for name, every in steps.items()
        if name != ("shakespeare", "gamma")
    )
    gpu = SimpleNamespace(platform="gpu")
    monkeypatch.setattr(trainings.jax, "devices", lambda: [gpu])
    assert trainings._save_every(PRESETS["shakespeare", "gamma"]) is None
