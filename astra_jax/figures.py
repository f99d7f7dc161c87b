"""Curves drawn from runs."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Files only: a window system need not be there.
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from astra_jax.atomic import replacing
from astra_jax.config import Preset
from astra_jax.errors import InputError
from astra_jax.published import PUBLISHED_LOSSES
from astra_jax.runs import LOSS_FIGURE, Run

TRAIN, VALIDATION = "#1f6f8b", "#c8553d"


def draw_losses(run: Run) -> Path:
    """Draws a run's losses over its epochs into its folder, and returns the file.

    The published losses are drawn too, where the run is of the published model, recipe and
    corpus; nothing else can be held against them.

    Raises:
        InputError: the run has no metrics yet.
    """
    metrics = run.metrics()
    if not metrics:
        raise InputError(f"{run.folder} has no metrics to draw: train first")
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    epochs = [line.epoch for line in metrics]
    marker = "." if len(metrics) == 1 else ""

    def draw(name: str, values: list[float], color: str, linestyle: str = "-") -> None:
        axes.plot(epochs, values, label=name, color=color, linestyle=linestyle, marker=marker)

    draw("train", [line.train_loss_nats for line in metrics], TRAIN)
    draw("validation, every character", [line.val_loss_nats for line in metrics], VALIDATION)
    estimates = [line.val_estimate_nats for line in metrics]
    draw("validation, the notebook's estimate", estimates, VALIDATION, ":")
    if run.is_published_setup:
        _draw_published(axes, run.preset)
    axes.set(xlabel="epoch", ylabel="loss (nats per character)", title=_caption(run))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path = run.folder / LOSS_FIGURE
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)
    return path


def _draw_published(axes: Axes, preset: Preset) -> None:
    published = PUBLISHED_LOSSES.get((preset.data.dataset, preset.name), {})
    for column, color, name in ((0, TRAIN, "train"), (1, VALIDATION, "validation estimate")):
        axes.plot(
            list(published),
            [losses[column] for losses in published.values()],
            "o",
            color=color,
            markerfacecolor="none",
            label=f"published {name}",
        )


def _caption(run: Run) -> str:
    model = run.preset.model
    return (
        f"{run.preset.title}, {model.num_parameters:,} parameters, on {run.corpus.name}"
        f" ({run.corpus.origin}), seed {run.preset.train.seed}"
    )


def draw_first_letters(shares: dict[str, dict[str, float]], path: Path) -> Path:
    """Draws how often words begin with each letter, and returns the file.

    Args:
        shares: by letter, of several lists of words by their names.
        path: the .png to write.
    """
    letters = sorted(set().union(*shares.values()))
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / len(shares)
    for index, (name, share) in enumerate(shares.items()):
        places = [place + (index - (len(shares) - 1) / 2) * width for place in range(len(letters))]
        axes.bar(places, [share.get(letter, 0.0) for letter in letters], width, label=name)
    axes.set_xticks(range(len(letters)), [letter or "none" for letter in letters])
    axes.set(ylabel="share of names", title="First letters")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)
    return path
