"""The study's numbers, those of all runs taken together."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from astra_jax.runs.metrics import Spread
from study.contrasts import contrasts_of, pairs_of
from study.outcomes import Outcome
from study.samplers import written_by
from study.verdicts import Verdict, batch_std, verdicts_of

_EPOCH = ("train_loss_nats", "val_estimate_nats", "val_loss_nats")


def summary_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns them as a JSON-ready dictionary: by row, and of both recipes of a model."""
    pairs = {
        notebook.row.name: contrasts_of(notebook, tuned) for notebook, tuned in pairs_of(outcomes)
    }
    return {
        "rows": {outcome.row.name: _row(outcome) for outcome in outcomes},
        "tuned": {
            name: {
                each.measure: {"gain_nats": each.gain, "error": each.error, "gains": each.gains}
                for each in contrasts
            }
            for name, contrasts in pairs.items()
        },
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "title": outcome.title,
        "parameters": outcome.parameters,
        "records": [record.file_name for record in outcome.records],
        "complete": all(record.is_complete for record in outcome.records),
        "epochs_planned": outcome.epochs_planned,
        "final": _final(outcome),
        "epochs": [_epoch(outcome, epoch) for epoch in outcome.epochs],
        "batch_std_nats": batch_std(outcome),
        "published": [_verdict(verdict) for verdict in verdicts_of(outcome)],
        "samplers": [dataclasses.asdict(written) for written in written_by(outcome)],
    }


def _final(outcome: Outcome) -> dict[str, Any]:
    """Returns what the runs that are furthest come to."""
    furthest = outcome.furthest
    evaluated = {name: outcome.evaluated(name, "loss_nats") for name in outcome.measures}
    return {
        "seeds": [record.seed for record in furthest],
        "epochs_done": len(furthest[0].epochs),
        "training_chars": furthest[0].training_chars,
        "train_seconds": Spread.of([record.train_seconds for record in furthest]).to_dict(),
        "loss_nats": {
            name: Spread.of(values).to_dict() for name, values in evaluated.items() if values
        },
    }


def _epoch(outcome: Outcome, epoch: int) -> dict[str, Any]:
    lines = outcome.lines(epoch)
    spreads = {name: Spread.of([getattr(line, name) for line in lines]) for name in _EPOCH}
    return {
        "epoch": epoch,
        "runs": len(lines),
        **{name: spread.to_dict() for name, spread in spreads.items()},
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "epoch": verdict.epoch,
        "quantity": verdict.quantity,
        "published": verdict.published,
        "ours": verdict.ours.to_dict(),
        "difference": verdict.difference,
        "deviations": verdict.deviations,
        "half_width_95": verdict.half_width,
        "inside": verdict.is_inside,
        "batch_half_width_95": verdict.batch_half_width,
    }
