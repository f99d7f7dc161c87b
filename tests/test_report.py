"""Tests of the page about runs: what is on it, and that nothing else gets onto it."""

import dataclasses
import html.parser
import itertools
import json
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_jax.config import Preset
from astra_jax.data.corpus import PUBLISHED, CorpusRecord
from astra_jax.data.vocabulary import published_vocabulary
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS, override
from astra_jax.published import PUBLISHED_LOSSES
from astra_jax.report import content
from astra_jax.report.charts import Chart, Series
from astra_jax.report.page import write_report
from astra_jax.report.plot import MAX_MARKS, Scale, place
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.sampling.writing import Writer
from tests.commands import call
from tests.trainings import TEXT, WORDS, Train

ALPHA = PRESETS["shakespeare", "alpha"]
HOSTILE = "ROMEO: <script>'$1'</script>&amp;\"><img src=x>{{ 7*7 }} $\\frac$"


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its tags, balanced, and its text."""

    VOID = ("meta", "br", "img", "link", "line", "path")

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def structure(self) -> list[tuple[str, list[str]]]:
        """Returns tags and names of attributes; not those of ticks, which are as times are."""
        ticks = ("line", "text")
        return [(tag, list(names)) for tag, names in self.tags if tag not in ticks]

    def curves(self) -> dict[str, int]:
        """Returns the number of lines in each chart, by its heading."""
        counts: dict[str, int] = {}
        for tag, attributes in self.tags:
            if tag == "figcaption":
                counts[str(attributes["id"])] = 0
            elif tag == "path":
                counts[list(counts)[-1]] += 1
        return counts


class Folder(NamedTuple):
    """A run as a test wants it, without a training."""

    path: Path

    def run(self, preset: Preset = ALPHA, epochs: int = 10, origin: str = "cache") -> Run:
        published = PUBLISHED["shakespeare"]
        sha256 = published.sha256 if origin == "cache" else "0" * 64
        record = CorpusRecord.from_dict(
            dict(
                name=published.title,
                origin=origin,
                path="/secret/place",
                sha256=sha256,
                characters=9,
            )
        )
        run = Run.create(self.path, preset, published_vocabulary("shakespeare"), record)
        run.write_metrics([metrics(epoch) for epoch in range(1, epochs + 1)])
        return run


def metrics(epoch: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        step=200 * epoch,
        learning_rate=3e-3 / epoch,
        train_loss_nats=1.5 + 1 / epoch,
        val_estimate_nats=1.75 + 1 / epoch,
        val_loss_nats=1.625 + 1 / epoch,
        grad_norm=0.25,
        chars_per_s=123456.0,
        train_seconds=15.0,
        eval_seconds=1.0,
    )


def test_report_of_a_published_setup_holds_it_against_the_study(tmp_path: Path) -> None:
    run = Folder(tmp_path / "mine").run(epochs=4)
    page, *pictures = write_report([run], run.folder / "report.html")
    assert {picture.name for picture in pictures} == {
        f"report-{name}.png"
        for name in ("loss", "bits", "learning-rate", "gradient-norm", "throughput")
    }
    assert all(picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for picture in pictures)
    shown = Page(page)
    titles = [text for text in shown.texts if text.startswith("published train, epoch ")]
    losses = PUBLISHED_LOSSES["shakespeare", "alpha"]
    assert titles == [f"published train, epoch {e}: {t:g}" for e, (t, _) in losses.items()]
    for text in (
        "Astra-α 86,913 parameters on Tiny Shakespeare, seed 0 4 of 10 epochs done",
        "Validation loss 1.8750 nats",
        f"Bits per character {1.875 / math.log(2):.3f} bits",
        "Training loss 1.7500 nats published 1.6936",
        "Training time 1 min 00 s",
        "No samples. The run has no checkpoint that can be read.",
        "kernel_hh 3 × 128 × 128 49,152 56.6%",
        "Epoch Step Train Validation Estimate Bits/char",
    ):
        assert text in shown.text
    assert shown.curves() == {
        "loss-title": 3,
        **dict.fromkeys(
            ["bits-title", "learning-rate-title", "gradient-norm-title", "throughput-title"], 1
        ),
    }


def test_report_of_a_loss_that_the_study_does_not_have_leaves_it_out(tmp_path: Path) -> None:
    run = Folder(tmp_path / "mine").run(PRESETS["shakespeare", "gamma"], epochs=18)
    theirs, none = PUBLISHED_LOSSES["shakespeare", "gamma"][18]
    assert none is None
    text = Page(write_report([run], tmp_path / "page.html", with_samples=False)[0]).text
    assert f"123,456 {theirs:.4f} – " in text


@pytest.mark.parametrize("epochs", [0, 1])
def test_report_of_other_text_says_so_and_shows_nothing_published(
    tmp_path: Path, epochs: int
) -> None:
    run = Folder(tmp_path / "mine").run(epochs=epochs, origin="built-in")
    shown = Page(write_report([run], tmp_path / "page.html", with_samples=False)[0])
    assert "built-in text, not on a published corpus" in shown.text
    assert "published train" not in shown.text
    assert ("No epoch has been trained here yet" in shown.text) == (epochs == 0)
    assert len(shown.curves()) == 5 * epochs


def test_report_overlays_runs(tmp_path: Path) -> None:
    moved = Folder(tmp_path / "new").run(epochs=0).folder.rename(tmp_path / "new\udcff")
    runs = [
        Folder(tmp_path / "one" / "run").run(epochs=10),
        Folder(tmp_path / "two" / "run").run(override(ALPHA, seed=1), epochs=3),
        Folder(tmp_path / "small").run(override(ALPHA, hidden_dim=8), epochs=1),
        Run.open(moved),
    ]
    shown = Page(write_report(runs, tmp_path / "page.html", with_samples=False)[0])
    assert set(shown.curves().values()) == {3}
    assert "train-loss-title" in shown.curves()
    for text in ("4 runs", "run (1) ·", "run (2) ·", "small ·", "new\ufffd ·", "no epoch done yet"):
        assert text in shown.text
    assert shown.text.count("published, Astra-α, epoch 10: 1.6276") == 1
    assert shown.text.count("published estimate, Astra-α, epoch 10: 1.7015") == 1


@pytest.mark.parametrize("preset", [TEXT, WORDS], ids=["text", "words"])
def test_report_shows_what_the_newest_checkpoint_writes(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: Preset
) -> None:
    monkeypatch.setattr(content, "TEMPERATURES", (0.7,))  # Each is compiled anew.
    run = train(override(preset, epochs=1))
    shown = Page(write_report([run], tmp_path / "page.html")[0])
    assert "From the checkpoint of step 7" in shown.text
    assert "Temperature 0.7 state carried" in shown.text
    assert "Greedy state carried" in shown.text
    assert "Greedy stateless" in shown.text
    legend = 3
    items = [tag for tag, _ in shown.tags if tag == "li"]
    assert len(items) == legend + 20 * (preset is WORDS)
    shutil.rmtree(run.checkpoints)
    assert "No samples" in Page(write_report([run], tmp_path / "page.html")[0]).text


def test_report_takes_a_stranger_for_text_only(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(run: Run) -> Page:
        config = json.loads((run.folder / "config.json").read_text())
        config["environment"] = {HOSTILE + "\x1b": [HOSTILE + "\0"]}
        (run.folder / "config.json").write_text(json.dumps(config))
        monkeypatch.setattr(Writer, "generate", lambda *_, num, **__: [HOSTILE + "\r\n"] * num)
        written, *_ = write_report([Run.open(run.folder)], run.folder / "report.html")
        text = written.read_text()
        assert str(tmp_path) not in text
        assert "url(" not in text
        assert "http" not in text.replace("http-equiv", "")
        return Page(written)

    preset = override(TEXT, epochs=1)
    strange = page(train(dataclasses.replace(preset, title=HOSTILE), "<i>$x$"))
    plain = page(train(preset, "plain"))
    assert strange.structure() == plain.structure()
    assert {tag for tag, _ in plain.tags}.isdisjoint({"script", "img", "link", "iframe"})
    assert strange.text.count(HOSTILE + "\ufffd") == plain.text.count(HOSTILE + "\ufffd") == 2
    assert strange.text.count(HOSTILE) > plain.text.count(HOSTILE)


def test_report_replaces_its_own_pages_only(tmp_path: Path) -> None:
    run = Folder(tmp_path / "run").run()
    page = tmp_path / "page.html"
    for _ in range(2):
        write_report([run], page, with_samples=False)
    page.write_text("<p>Somebody's own")
    with pytest.raises(InputError, match="is no report of ours"):
        write_report([run], page, with_samples=False)
    assert page.read_text() == "<p>Somebody's own"
    picture = tmp_path / "notes-loss.png"
    picture.write_text("Somebody's own")
    with pytest.raises(InputError, match=r"notes-loss\.png exists, and no report that it is of"):
        write_report([run], tmp_path / "notes.html", with_samples=False)
    assert picture.read_text() == "Somebody's own"
    (tmp_path / "folder.html").mkdir()
    for wrong in ("page.txt", "missing/page.html", "folder.html"):
        with pytest.raises(InputError, match=r"page\.txt|missing|folder\.html"):
            write_report([run], tmp_path / wrong, with_samples=False)


VALUES = st.floats(-1e30, 1e30).filter(lambda value: value == 0 or abs(value) > 1e-30)


@given(values=st.lists(VALUES, min_size=1, max_size=300), from_zero=st.booleans())
@settings(max_examples=100, deadline=None)
def test_place_keeps_every_point_inside_and_in_order(values: list[float], from_zero: bool) -> None:
    series = Series(label="a", points=tuple(enumerate(values, 1)), color=0)
    plot = place(Chart(name="a", title="A", unit="b", series=(series,), from_zero=from_zero))
    (curve,) = plot.curves
    drawn = [tuple(map(float, point.split())) for point in curve.path[1:].split("L")]
    assert len(drawn) == len(values)
    assert all(-1e-6 <= x <= 100 + 1e-6 and -0.01 <= y <= 100.01 for x, y in drawn)
    for (one, at), (other, then) in itertools.pairwise(zip(values, drawn, strict=True)):
        assert at[0] <= then[0]
        assert at[1] >= then[1] if one <= other else at[1] <= then[1]
    assert 1 <= len(curve.marks) <= MAX_MARKS
    for ticks in (plot.x_ticks, plot.y_ticks):
        assert 1 <= len(ticks) <= 12
        assert len({tick.label for tick in ticks}) == len(ticks)
        assert all(-1e-6 <= tick.place <= 100 + 1e-6 for tick in ticks)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.63, 2.24], ["1.6", "1.8", "2.0", "2.2", "2.4"]),
        ([2.413, 2.768], ["2.4", "2.5", "2.6", "2.7", "2.8"]),
        ([0.0, 3e-3], ["0", "0.0005", "0.0010", "0.0015", "0.0020", "0.0025", "0.0030"]),
        ([0.0, 118_000.0], ["0", "20k", "40k", "60k", "80k", "100k", "120k"]),
        ([0.0, 2.4e-9], ["0", "5e-10", "1e-09", "1.5e-09", "2e-09", "2.5e-09"]),
    ],
)
def test_ticks_are_round(values: list[float], labels: list[str]) -> None:
    scale = Scale.over(values)
    assert [scale.label(tick) for tick in scale.ticks()] == labels


def test_figures_are_those_of_the_last_the_best_and_all_epochs(tmp_path: Path) -> None:
    run = Folder(tmp_path / "mine").run()
    told = [(1.9, 2.0, 100.0), (1.8, 1.7, 300.0), (1.6, 1.75, 110.0)]
    lines = [
        dataclasses.replace(
            metrics(epoch),
            train_loss_nats=train,
            val_loss_nats=validation,
            chars_per_s=speed,
            train_seconds=19.0 + epoch,
        )
        for epoch, (train, validation, speed) in enumerate(told, 1)
    ]
    run.write_metrics(lines)
    page = tmp_path / "page.html"
    assert call("report.py", run.folder, "--out", page, "--no-samples").code == 0
    for part in (
        "Validation loss 1.7500 nats lowest 1.7000, epoch 2",
        "Throughput 110 chars/s",
        "Training time 1 min 03 s",
        "No samples. None were asked for.",
    ):
        assert part in Page(page).text
