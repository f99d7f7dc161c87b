"""The search for a better recipe: on the training part alone, once each, and told in full."""

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from astra_jax.config import DatasetName, Preset
from astra_jax.data.splits import split_corpus, words_of
from astra_jax.errors import InputError
from astra_jax.presets import override
from astra_jax.training.trainer import Keys
from study import search, search_log
from study.search import Search, Trial, conduct_search
from study.trainings import Work
from study.trials import SEARCHES
from tests.commands import call
from tests.trainings import TEXT, WORDS, Silent

ROWS: dict[tuple[DatasetName, str], Preset] = {
    ("shakespeare", "alpha"): replace(override(TEXT, epochs=1), name="alpha"),
    ("names", "alpha"): replace(override(WORDS, epochs=1, steps_per_epoch=None), name="alpha"),
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (search, search_log):
        monkeypatch.setattr(module, "PRESETS", ROWS)


def tiny(dataset: DatasetName, *changes: dict[str, object]) -> Search:
    trials = [Trial(why="to see", changes=each) for each in changes]
    return Search(dataset=dataset, model="alpha", epochs=1, trials=trials)


def work(tmp_path: Path, corpus: str) -> Work:
    told: list[str] = []
    return Work(runs=tmp_path / "runs", out=tmp_path / "out", corpus=corpus, tell=told.append)


def test_trials_of_another_text_are_refused(corpora: dict[str, str], tmp_path: Path):
    place = work(tmp_path, corpora["shakespeare"])
    conduct_search(tiny("shakespeare", {}), place, Silent())
    (before,) = (place.out / "search").iterdir()
    known = before.read_bytes()
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 100)
    more = tiny("shakespeare", {}, {"learning_rate": 1e-3})
    for corpus, said in ((str(other), "is of another text than"), (None, "needs the published")):
        with pytest.raises(InputError, match=said):
            conduct_search(more, replace(place, corpus=corpus), Silent())
    assert before.read_bytes() == known


def test_a_rehearsal_tells_how_many_trials_are_done(tmp_path: Path):
    shown = call("study.py", "--only", "search", "--dry-run", "--out", tmp_path).out.splitlines()
    assert shown[0] == "search shakespeare-alpha 0 of 11 trials done, of 10 epochs each"
    assert len(shown) == len(SEARCHES)


@pytest.mark.parametrize("dataset", ["shakespeare", "names"])
def test_trials_see_the_training_part_alone(
    dataset: DatasetName, corpora: dict[str, str], tmp_path: Path
):
    place = work(tmp_path, corpora[dataset])
    conduct_search(tiny(dataset, {}), place, Silent())
    read = (place.runs / "search" / f"{dataset}.txt").read_text(encoding="utf-8")
    text = Path(corpora[dataset]).read_text(encoding="utf-8")
    data = ROWS[dataset, "alpha"].data
    if dataset == "shakespeare":
        assert read == text[: int(data.train_fraction * len(text))]
    else:
        split = split_corpus(text, data, Keys.from_seed(0).split)
        assert read.split("\n") == words_of(split.train, split.vocabulary)
        assert len(read.split("\n")) == int(data.train_fraction * len(text.split()))


def test_a_trial_is_done_once_and_again_where_it_has_changed(
    corpora: dict[str, str], tmp_path: Path
):
    place = work(tmp_path, corpora["shakespeare"])
    first = tiny("shakespeare", {}, {"dropout": 0.0})
    conduct_search(first, place, Silent())
    file = place.out / "search" / "shakespeare-alpha.json"
    before = file.read_bytes()
    with mock.patch.object(search, "fit", side_effect=AssertionError):
        conduct_search(first, place, Silent())
    assert file.read_bytes() == before
    conduct_search(tiny("shakespeare", {}, {"learning_rate": 0.1}), place, Silent())
    results = json.loads(file.read_bytes())["trials"]
    assert [trial["name"] for trial in results] == ["notebook", "learning_rate=0.1"]
    assert results[0] == json.loads(before)["trials"][0]
    losses = [trial["development"]["windows_128"]["loss_nats"] for trial in results]
    assert losses[0] != losses[1]


def test_no_time_leaves_trials_for_later(corpora: dict[str, str], tmp_path: Path):
    place = work(tmp_path, corpora["shakespeare"])
    late = Work(runs=place.runs, out=place.out, corpus=place.corpus, deadline=0.0)
    conduct_search(tiny("shakespeare", {}), late, Silent())
    assert not (place.out / "search").exists()


@pytest.mark.parametrize(
    ("dataset", "changes"),
    [
        ("shakespeare", {"hidden_dim": 9}),
        ("shakespeare", {"epochs": 2}),
        ("shakespeare", {"batch_size": 8}),
        ("names", {"epochs": 2}),
    ],
)
def test_another_model_or_more_characters_are_no_trial(
    dataset: DatasetName, changes: dict[str, object]
):
    with pytest.raises(InputError, match="is another model, or learns from more characters"):
        tiny(dataset).preset(Trial(why="to see", changes=changes))


def test_every_trial_of_the_study_can_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    for each in SEARCHES:
        names = [each.preset(trial) and trial.name for trial in each.trials]
        assert len(set(names)) == len(names)
        assert names[0] == "notebook"
        assert max(map(len, names)) < 200  # They name folders.


def test_the_log_tells_every_trial_and_which_became_the_recipe(
    corpora: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = work(tmp_path, corpora["shakespeare"])
    trials = tiny("shakespeare", {}, {"dropout": 0.0}, {"clip": None})
    monkeypatch.setattr(search_log, "SEARCHES", [trials])
    assert search_log.write_log(place.out) == []
    two = Search(dataset="shakespeare", model="alpha", epochs=1, trials=trials.trials[:2])
    conduct_search(two, place, Silent())
    tuned = {("shakespeare", "alpha"): {"dropout": 0.0}}
    monkeypatch.setattr(search_log, "TUNED_FIELDS", tuned)
    (path,) = search_log.write_log(place.out)
    log = path.read_text(encoding="utf-8")
    results = json.loads((place.out / "search" / "shakespeare-alpha.json").read_bytes())["trials"]
    base, other = (trial["development"]["windows_128"]["loss_nats"] for trial in results)
    assert f"| {base:.4f} |" in log
    assert f"| {other - base:+.4f} |" in log
    assert "**`dropout` 0.0: the tuned recipe**" in log
    assert "1 of 3 trials are not done yet" in log
