"""What the numbers say, in sentences that are made of them."""

import itertools
import math
from collections.abc import Sequence

from astra_jax.presets import NOTEBOOK
from study.contrasts import GOAL_NATS, Contrast, contrasts_of, pairs_of
from study.outcomes import Outcome
from study.samplers import GREEDY, PUBLISHED, STATEFUL, STATELESS, find, written_by
from study.verdicts import (
    CONFIDENCE,
    NORMAL,
    Quantity,
    Tally,
    batch_std,
    half_width,
    tallies_of,
    verdicts_of,
)

RISE_NATS = 0.01
"""From which rise of the validation loss above its lowest a model is said to overfit."""

_LOSSES: dict[Quantity, str] = {"train": "training", "validation": "validation"}
_HUNDRED = f"{100 * CONFIDENCE:.0f} of 100"


def verdicts(outcome: Outcome, *, short: bool = False) -> str:
    """Returns how the published numbers of a model stand to ours; empty where there are none.

    Args:
        outcome: our runs of it.
        short: whether the differences are left out.
    """
    tallies, number = tallies_of(verdicts_of(outcome)), len(outcome.furthest)
    if not tallies:
        return ""
    if number < 2:
        first = "of one run there is no interval"
    elif number == 2:
        first = (
            f"two runs leave an interval of {half_width(2):.0f} standard deviations to either "
            "side, which says little"
        )
    else:
        judged = sum(tally.judged for tally in tallies)
        first = (
            f"{sum(tally.inside for tally in tallies)} of {judged} published numbers are inside "
            f"the {CONFIDENCE:.0%} prediction interval of one further run of ours; "
            f"{(1 - CONFIDENCE) * judged:.1f} would be outside by chance"
        )
    parts = [first, *([] if short else map(_tally, tallies))]
    return f"**{outcome.title}**, {_runs(number)}: {'; '.join(parts)}."


def _tally(tally: Tally) -> str:
    far = tally.farthest
    told = (
        f"the published {_LOSSES[tally.quantity]} losses are {_signed(tally.mean_difference)} ours "
        f"on average, {abs(far.difference):.4f} off at most (epoch {far.epoch})"
    )
    batches = [
        abs(verdict.difference) <= verdict.batch_half_width
        for verdict in tally.verdicts
        if verdict.batch_half_width is not None
    ]
    if not batches:
        return told
    return (
        f"{told}, and {sum(batches)} of {len(batches)} as near as another batch of the same "
        f"models would be in {_HUNDRED} cases"
    )


def _signed(nats: float) -> str:
    if not round(nats, 4):
        return "equal to"
    return f"{abs(nats):.4f} nats {'above' if nats > 0 else 'below'}"


def _runs(number: int) -> str:
    return "one run" if number == 1 else f"{number} runs"


def scatter(outcome: Outcome) -> str:
    """Returns what a single batch can tell of a model; empty where nothing is known of it."""
    std = batch_std(outcome)
    if std is None:
        return ""
    apart = NORMAL * math.sqrt(2) * std
    told = (
        f"**{outcome.title}**: one batch is {std:.3f} nats off (standard deviation), and two of "
        f"the same model are less than {apart:.3f} apart in {_HUNDRED} cases"
    )
    losses = [loss for _, loss in outcome.published.values() if loss is not None]
    steps = [abs(after - before) for before, after in itertools.pairwise(losses)]
    if not steps:
        return f"{told}."
    smaller = sum(step < apart for step in steps)
    return (
        f"{told}; {smaller} of the {len(steps)} steps from one published validation loss to the "
        "next are smaller than that."
    )


def samplers(outcome: Outcome) -> str:
    """Returns what leaving the state out costs a model; empty where nothing is known of it."""
    written = written_by(outcome)
    carried, lost = (find(written, mode, PUBLISHED) for mode in (STATEFUL, STATELESS))
    if carried is None or lost is None:
        return ""
    names = [name for name in carried.measures if name in lost.measures]
    letter, told = "letter after the first" if outcome.is_words else "character", []
    for name in names:
        before, after = carried.measures[name].mean, lost.measures[name].mean
        if name.endswith("nats_per_char"):
            told.append(
                f"a loss of {after:.2f} against {before:.2f} nats a {letter}, reading them with "
                "its state carried"
            )
        elif name == "known_words":
            of = "are training words" if outcome.is_words else "are in the corpus"
            told.append(f"{after:.0%} against {before:.0%} of the words {of}")
    greedy = find(written, STATELESS, GREEDY)
    if greedy is not None and "repetition" in greedy.measures:
        share = greedy.measures["repetition"].mean
        told.append(f"of greedy stateless ones {share:.1%} of the 8-grams are repeated")
    if not told:
        return ""
    return f"**{outcome.title}**, stateless samples against stateful ones: {'; '.join(told)}."


def overfitting(outcome: Outcome) -> str:
    """Returns whether a model overfits; empty where it has no epoch behind it."""
    if not outcome.epochs:
        return ""
    last, best = outcome.epochs[-1], outcome.best_epoch
    low, end = (outcome.val_loss(epoch).mean for epoch in (best, last))
    train = outcome.of_epoch(last, lambda line: line.train_loss_nats).mean
    at_end = f"epoch {last}{_so_far(outcome)}"
    if best == last:
        told = f"does not overfit: its validation loss is at its lowest, {low:.4f}, at {at_end}"
    elif not round(end - low, 4):
        told = f"does not overfit: its validation loss is {low:.4f} at epoch {best} and {at_end}"
    else:
        name = "overfits" if end - low > RISE_NATS else "does not overfit"
        rise = f"{end - low:.4f} higher at {at_end}"
        told = f"{name}: its validation loss is lowest at epoch {best} with {low:.4f}, {rise}"
    gap = f"{abs(end - train):.3f} nats {'above' if end > train else 'below'} training"
    return f"**{outcome.title}** {told}, {gap} there."


def _so_far(outcome: Outcome) -> str:
    if outcome.is_complete:
        return ""
    return f" (of {outcome.epochs_planned}, as far as it has come)"


def scaling(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns what each model of a dataset and recipe has over the next smaller one."""
    sentences = []
    for smaller, larger in itertools.pairwise(outcomes):
        before, after = (each.val_loss(each.best_epoch).mean for each in (smaller, larger))
        change = "lower" if after < before else "higher"
        sentences.append(
            f"With {larger.parameters / smaller.parameters:.1f} times the parameters of "
            f"{smaller.title}{_stands(smaller)}, {larger.title}{_stands(larger)} is "
            f"{abs(after - before):.3f} nats {change} where either is at its lowest."
        )
    return sentences


def _stands(outcome: Outcome) -> str:
    if outcome.is_complete:
        return ""
    return f" after {len(outcome.epochs)} of {outcome.epochs_planned} epochs"


def tuned(notebook: Outcome, outcome: Outcome) -> str:
    """Returns what the tuned recipe brings a model; empty where nothing can be compared."""
    contrasts = contrasts_of(notebook, outcome)
    if not contrasts:
        return ""
    same = notebook.parameters == outcome.parameters
    parameters = f"the same {notebook.parameters:,}" if same else f"{outcome.parameters:,}"
    before, after = (each.furthest[0].training_chars for each in (notebook, outcome))
    chars = "as many" if after == before else "fewer" if after < before else "**more**"
    told = ", ".join(_gain(notebook, contrast) for contrast in contrasts)
    return (
        f"**{notebook.title}**, {_seeds(contrasts[0])}, {parameters} parameters, {chars} "
        f"characters trained on: {told}. {_goal(contrasts[0])}"
        f"{_against_the_lowest(notebook, outcome)}"
    )


def _goal(contrast: Contrast) -> str:
    """Returns whether the loss that models are compared by is lower by the goal."""
    if contrast.is_enough is None:
        leave = "leaves" if len(contrast.gains) == 1 else "leave"
        return f"Whether the goal of {GOAL_NATS} nats is reached, {_seeds(contrast)} {leave} open."
    return f"The goal of {GOAL_NATS} nats is {'reached' if contrast.is_enough else 'missed'}."


def _seeds(contrast: Contrast) -> str:
    number = len(contrast.gains)
    return "one seed" if number == 1 else f"{number} seeds"


def _against_the_lowest(notebook: Outcome, tuned: Outcome) -> str:
    """Returns what is left of a gain were the study's recipe stopped in time, where it overfits."""
    best, last = notebook.best_epoch, notebook.epochs[-1]
    low, end, other = (
        each.val_loss(epoch).mean
        for each, epoch in ((notebook, best), (notebook, last), (tuned, tuned.epochs[-1]))
    )
    if end - low <= RISE_NATS:
        return ""
    change = "lower" if other < low else "higher"
    return (
        f" Its last epoch's loss is {abs(low - other):.4f} nats {change} than that of the study's "
        f"recipe at its lowest, epoch {best}."
    )


def _all_tuned(outcomes: Sequence[Outcome]) -> str:
    """Returns what the tuned recipes bring, each in the loss that models are compared by."""
    first = [
        f"{notebook.title} {_gain(notebook, contrasts[0])}"
        for notebook, tuned in pairs_of(outcomes)
        if (contrasts := contrasts_of(notebook, tuned))
    ]
    return f"The **tuned recipes**: {'; '.join(first)}." if first else ""


def _gain(notebook: Outcome, contrast: Contrast) -> str:
    error = "" if contrast.error is None else f" ± {contrast.error:.4f}"
    change = "lower" if contrast.gain >= 0 else "higher"
    measure = notebook.measures[contrast.measure]
    return f"{abs(contrast.gain):.4f}{error} nats {change} ({measure})"


def in_short(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns a summary: of each question one model's answer, of overfitting the largest's."""
    texts = [each for each in outcomes if each.row.recipe == NOTEBOOK and not each.is_words]
    asked = [
        (verdicts(each, short=True) for each in outcomes),
        map(scatter, outcomes),
        map(samplers, outcomes),
        map(overfitting, reversed(texts)),
        [_all_tuned(outcomes)],
    ]
    return [answer for answers in asked if (answer := next(filter(None, answers), ""))]
