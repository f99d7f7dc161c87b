"""What a report says of a run, as text and tables; how it looks is the template's."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astra_jax.errors import InputError
from astra_jax.experiments.restoring import merge_model, restore_state
from astra_jax.experiments.samples import Sample, draw_samples
from astra_jax.published import published_losses
from astra_jax.report.parameters import HEADERS, describe_parameters
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.sampling.strategies import Greedy, Temperature
from astra_jax.sampling.writing import Writer
from astra_jax.units import bits, duration

TEMPERATURES = (0.5, 0.8, 1.0, 1.2)
SHOWN_LENGTH = 400
"""Characters of a drawn text; words end by themselves, and greedy text soon repeats itself."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A figure that matters, with its unit and what to hold it against."""

    name: str
    value: str
    unit: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under headers."""

    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a run's newest model writes.

    Attributes:
        step: of the checkpoint; None where there are no samples.
        samples: the texts.
        missing: why there are none.
    """

    step: int | None = None
    samples: tuple[Sample, ...] = ()
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that a report says of one run."""

    label: str
    title: str
    subtitle: str
    state: str
    builtin: bool
    facts: list[Fact]
    samples: Samples
    parameters: Table
    settings: dict[str, dict[str, str]]
    epochs: Table


def describe(run: Run, label: str, *, with_samples: bool) -> Section:
    """Returns what there is to say of a run.

    Args:
        run: the run.
        label: what to call it.
        with_samples: whether its newest model is to write some.

    Raises:
        InputError: its metrics are damaged.
    """
    metrics = run.metrics()
    model = run.preset.model
    return Section(
        label=label,
        title=run.preset.title,
        subtitle=f"{model.num_parameters:,} parameters on {run.corpus.name}, "
        f"seed {run.preset.train.seed}",
        state=_state(run, metrics),
        builtin=run.uses_builtin_text,
        facts=_facts(run, metrics),
        samples=_samples(run) if with_samples else Samples(missing="None were asked for."),
        parameters=Table(headers=HEADERS, rows=describe_parameters(run.preset)),
        settings=_settings(run),
        epochs=_epochs(run, metrics),
    )


def compare(sections: Sequence[Section]) -> Table:
    """Returns the figures of several runs, a row each."""
    names = list(dict.fromkeys(fact.name for section in sections for fact in section.facts))
    rows = []
    for section in sections:
        values = {fact.name: f"{fact.value} {fact.unit}".strip() for fact in section.facts}
        rows.append((section.label, section.title, *(values.get(name, "–") for name in names)))
    return Table(headers=("Run", "Model", *names), rows=rows)


def _state(run: Run, metrics: list[EpochMetrics]) -> str:
    epochs = run.preset.train.epochs
    imported = f"begun from weights of step {run.imported_step:,}" if run.imported_step else ""
    if not metrics:
        return (imported and f"{imported}; not trained further") or "no epoch done yet"
    done = metrics[-1].epoch
    whole = "the only epoch done" if epochs == 1 else f"all {epochs} epochs done"
    state = whole if done == epochs else f"{done} of {epochs} epochs done"
    return f"{state}, {imported}" if imported else state


def _facts(run: Run, metrics: list[EpochMetrics]) -> list[Fact]:
    parameters = Fact(name="Parameters", value=f"{run.preset.model.num_parameters:,}", unit="")
    if not metrics:
        return [parameters]
    last = metrics[-1]
    best = min(metrics, key=lambda line: line.val_loss_nats)
    return [
        Fact(
            name="Validation loss",
            value=f"{last.val_loss_nats:.4f}",
            unit="nats",
            remark="" if best is last else f"lowest {best.val_loss_nats:.4f}, epoch {best.epoch}",
        ),
        Fact(
            name="Bits per character",
            value=f"{bits(last.val_loss_nats):.3f}",
            unit="bits",
            remark="on the validation part",
        ),
        Fact(
            name="Training loss",
            value=f"{last.train_loss_nats:.4f}",
            unit="nats",
            remark=_beside_published(run, metrics),
        ),
        Fact(
            name="Throughput",
            value=f"{statistics.median(line.chars_per_s for line in metrics):,.0f}",
            unit="chars/s",
            remark="median of the epochs; the first one compiles",
        ),
        Fact(
            name="Training time",
            value=duration(sum(line.train_seconds for line in metrics)),
            unit="",
            remark="without evaluation",
        ),
        parameters,
    ]


def _beside_published(run: Run, metrics: list[EpochMetrics]) -> str:
    published = published_losses(run.preset, run.corpus)
    common = [line for line in metrics if line.epoch in published]
    if not common:
        return ""
    line = common[-1]
    theirs = f"published {published[line.epoch][0]:.4f}"
    if line is metrics[-1]:
        return theirs
    return f"epoch {line.epoch}: {line.train_loss_nats:.4f}, {theirs}"


def _samples(run: Run) -> Samples:
    try:
        state = restore_state(run)
    except InputError:
        # Its message names the folder, which is nobody's business once the page is shown around.
        return Samples(missing="The run has no checkpoint that can be read.")
    writer = Writer(merge_model(run, state), run.vocabulary)
    length = SHOWN_LENGTH if run.vocabulary.end_id is None else None
    drawn = {f"temperature {t:g}": Temperature(t) for t in TEMPERATURES}
    greedy = {"greedy": Greedy()}
    return Samples(
        step=int(state.step),
        samples=(
            *draw_samples(run, writer, drawn, stateful=True, length=length),
            *draw_samples(run, writer, greedy, stateful=True),
            *draw_samples(run, writer, greedy, stateful=False),
        ),
    )


def _settings(run: Run) -> dict[str, dict[str, str]]:
    """Returns the configuration by group; no path, which would tell of the machine's user."""
    preset, corpus = run.preset.to_dict(), run.corpus.to_dict()
    del corpus["path"]
    groups = {
        "Model": preset["model"],
        "Data": preset["data"],
        "Recipe": preset["train"],
        "Corpus": corpus,
        "Versions and machine": run.environment,
    }
    return {
        group: {name.replace("_", " "): _text(value) for name, value in values.items()}
        for group, values in groups.items()
        if isinstance(values, dict)
    }


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if type(value) is int and abs(value) >= 10_000 else str(value)


def _epochs(run: Run, metrics: list[EpochMetrics]) -> Table:
    published = published_losses(run.preset, run.corpus)
    headers = (
        *("Epoch", "Step", "Train", "Validation", "Estimate", "Bits/char", "Learning rate"),
        *("Gradient norm", "Chars/s"),
        *(("Published train", "Published estimate") if published else ()),
    )
    rows = []
    for line in metrics:
        theirs = published.get(line.epoch, (None, None)) if published else ()
        rows.append(
            (
                *(str(line.epoch), f"{line.step:,}", f"{line.train_loss_nats:.4f}"),
                *(f"{line.val_loss_nats:.4f}", f"{line.val_estimate_nats:.4f}"),
                *(f"{bits(line.val_loss_nats):.3f}", f"{line.learning_rate:.3g}"),
                *(f"{line.grad_norm:.4g}", f"{line.chars_per_s:,.0f}"),
                *("–" if loss is None else f"{loss:.4f}" for loss in theirs),
            )
        )
    return Table(headers=headers, rows=rows)
