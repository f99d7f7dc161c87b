"""What the study's tables have in them, as Markdown."""

import html
from collections.abc import Sequence

from astra_jax.report.markdown import markdown_table
from astra_jax.runs.metrics import Spread
from astra_jax.units import duration
from study.contrasts import GOAL_NATS, contrasts_of
from study.outcomes import Outcome
from study.records import FOLDER, RunRecord
from study.samplers import GREEDY, MEASURES, MODES, Written, written_by
from study.verdicts import Verdict, batch_std, tallies_of, verdicts_of

NONE = "–"


def seeds(records: Sequence[RunRecord]) -> str:
    """Returns the seeds of runs, each a link to its record."""
    return " ".join(f"[{record.seed}]({FOLDER}/{record.file_name})" for record in records)


def nats(values: Sequence[float]) -> str:
    """Returns mean and standard deviation of some losses, or that there are none."""
    return Spread.of(values).describe() if values else NONE


def results(outcomes: Sequence[Outcome]) -> str:
    """Returns what models of one dataset have come to."""
    measures = outcomes[0].measures
    head = (
        "",
        "parameters",
        "epochs",
        "characters",
        "time a run",
        "on",
        *measures.values(),
        "bits",
    )
    rows = []
    for outcome in outcomes:
        furthest = outcome.furthest
        seconds = [record.train_seconds for record in furthest]
        bits = outcome.evaluated(next(iter(measures)), "bits_per_char")
        rows.append(
            (
                outcome.title,
                f"{outcome.parameters:,}",
                _epochs(outcome),
                f"{furthest[0].training_chars / 1e6:,.1f} M",
                duration(sum(seconds) / len(seconds)),
                ", ".join(dict.fromkeys(_devices(record) for record in furthest)),
                *(nats(outcome.evaluated(name, "loss_nats")) for name in measures),
                f"{Spread.of(bits).mean:.3f}" if bits else NONE,
                seeds(furthest),
            )
        )
    return markdown_table((*head, "seeds"), rows)


def _epochs(outcome: Outcome) -> str:
    done = len(outcome.furthest[0].epochs)
    return str(done) if outcome.is_complete else f"**{done} of {outcome.epochs_planned}**"


def tallies(outcomes: Sequence[Outcome]) -> str:
    """Returns how far the published numbers are from ours, a row a model and quantity."""
    head = ("", "numbers", "published − ours, mean", "farthest", "inside 95 %", "seeds")
    rows = []
    for outcome in outcomes:
        for tally in tallies_of(verdicts_of(outcome)):
            far = tally.farthest
            inside = f"{tally.inside} of {tally.judged}" if tally.judged else NONE
            rows.append(
                (
                    f"{outcome.title}, {tally.quantity}",
                    str(len(tally.verdicts)),
                    _signed(tally.mean_difference),
                    f"{_signed(far.difference)} (epoch {far.epoch})",
                    inside,
                    seeds(outcome.furthest),
                )
            )
    return markdown_table(head, rows)


def every_verdict(outcome: Outcome) -> str:
    """Returns every published number of a model beside ours."""
    head = ("epoch", "", "published", "ours", "difference", "in deviations", "95 % interval")
    rows = [
        (
            str(verdict.epoch),
            verdict.quantity,
            f"{verdict.published:.4f}",
            verdict.ours.describe(),
            _signed(verdict.difference),
            NONE if verdict.deviations is None else _signed(verdict.deviations, 1),
            _interval(verdict),
        )
        for verdict in verdicts_of(outcome)
    ]
    return markdown_table(head, rows)


def _interval(verdict: Verdict) -> str:
    half, inside = verdict.half_width, verdict.is_inside
    if half is not None:
        return f"± {half:.4f}: {_place(bool(inside))}"
    if verdict.batch_half_width is None:
        return "one run: none"
    near = abs(verdict.difference) <= verdict.batch_half_width
    return f"one run: none; of one batch ± {verdict.batch_half_width:.4f}: {_place(near)}"


def _signed(value: float, places: int = 4) -> str:
    return f"{value:+.{places}f}".replace("-", "−")


def _place(inside: bool) -> str:
    return "inside" if inside else "**outside**"


def scatter(outcomes: Sequence[Outcome]) -> str:
    """Returns how much single batches scatter."""
    head = ("", "whole part", "deviation of a batch", "lowest – highest", "batches", "seeds")
    rows = []
    for outcome in outcomes:
        std = batch_std(outcome)
        if std is None:
            continue
        low, high, number = (
            outcome.evaluated("one_batch", name) for name in ("lowest", "highest", "num_batches")
        )
        rows.append(
            (
                outcome.title,
                nats(outcome.evaluated("windows_128", "loss_nats")),
                f"{std:.4f}",
                f"{min(low):.3f} – {max(high):.3f}",
                f"{sum(number):,.0f}",
                seeds(outcome.furthest),
            )
        )
    return markdown_table(head, rows)


def samplers(outcome: Outcome) -> str:
    """Returns what each sampler of a model writes, as numbers."""
    measures = MEASURES[outcome.is_words]
    rows = [
        (
            one.strategy or "real text",
            one.mode if one.strategy else NONE,
            *(_share(one, name) for name in measures),
        )
        for one in written_by(outcome)
    ]
    return markdown_table((outcome.title, "", *measures.values()), rows)


def _share(written: Written, name: str) -> str:
    spread = written.measures.get(name)
    if spread is None:
        return NONE
    form = ".3f" if name.endswith("nats_per_char") else ".1%"
    error = written.errors.get(name)
    return f"{spread.mean:{form}}" + ("" if error is None else f" ± {error:{form}}")


def texts(outcome: Outcome) -> str:
    """Returns a text of each sampler, with the state and without side by side."""
    written = {(one.mode, one.strategy): one.text for one in written_by(outcome)}
    strategies = dict.fromkeys(strategy for _, strategy in written if strategy)
    shown = [name for name in strategies if name == GREEDY or name.endswith("0.8")]
    head = (outcome.title, *MODES)
    rows = [(name, *(_cell(written.get((mode, name), "")) for mode in MODES)) for name in shown]
    return markdown_table(head, rows, words=len(head))


def _cell(text: str) -> str:
    """Returns a text so that nothing in it is taken for Markdown or HTML."""
    escaped = html.escape(text, quote=False)
    for mark in "\\`*_[]|~":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return escaped.strip().replace("\n", "<br>")


def contrasts(pairs: Sequence[tuple[Outcome, Outcome]]) -> str:
    """Returns what the tuned recipe changes, a row for each loss of each model."""
    goal = f"{GOAL_NATS} reached"
    head = ("", "notebook", "tuned", "lower by", "standard error", "seeds", goal)
    rows = []
    for notebook, tuned in pairs:
        for place, contrast in enumerate(contrasts_of(notebook, tuned)):
            error = NONE if contrast.error is None else f"{contrast.error:.4f}"
            rows.append(
                (
                    f"{notebook.title}, {notebook.measures[contrast.measure]}",
                    nats(contrast.notebook),
                    nats(contrast.tuned),
                    _signed(contrast.gain),
                    error,
                    str(len(contrast.gains)),
                    NONE if place else _GOAL[contrast.is_enough],
                )
            )
    return markdown_table(head, rows)


_GOAL = {True: "yes", False: "no", None: "open"}


def machines(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns what the runs were trained on, each machine once."""
    records = (record for outcome in outcomes for record in outcome.records)
    found = (
        f"{_devices(record)} ({record.environment.get('cores')} cores, JAX "
        f"{record.environment.get('jax')})"
        for record in records
    )
    return list(dict.fromkeys(found))


def _devices(record: RunRecord) -> str:
    """Returns what computed: the accelerator, or the processor where there was none."""
    known = record.environment
    devices = known.get("devices") if isinstance(known.get("devices"), list) else []
    kinds = ", ".join(dict.fromkeys(map(str, devices or [])))
    return str(known.get("processor")) if kinds == "cpu" else kinds
