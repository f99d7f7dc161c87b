"""What two properties of the names study cost, and what repairing them brings.

Four models that differ in nothing else: as the notebook does it, with a start token, without
duplicates, and with both.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from matplotlib.figure import Figure

from astra_jax.config import Preset
from astra_jax.data.corpus import load_corpus
from astra_jax.data.datasets import PaddedWords, Split
from astra_jax.errors import InputError
from astra_jax.evaluation import word_losses, words_of
from astra_jax.experiments import lifecycle
from astra_jax.machine.environment import describe_environment
from astra_jax.model import GRULanguageModel
from astra_jax.presets import PRESETS, override
from astra_jax.report.figures import save_figure
from astra_jax.report.markdown import markdown_table
from astra_jax.runs.folder import CONFIG, Run
from astra_jax.sampling.strategies import Temperature
from astra_jax.sampling.writing import Writer
from astra_jax.storage.atomic import write_text
from astra_jax.storage.marked_pages import BEGIN, fill_in
from astra_jax.training.fitting import fit
from astra_jax.training.progress import Progress
from astra_jax.training.trainer import Keys
from study.trainings import require_no_fallback

SETTINGS: dict[str, dict[str, bool]] = {
    "notebook": dict(start_token=False, dedupe=False),
    "start token": dict(start_token=True, dedupe=False),
    "dedupe": dict(start_token=False, dedupe=True),
    "both": dict(start_token=True, dedupe=True),
}
"""The four models, and how their data is made."""

NUM_NAMES = 5000
"""Generated names whose first letters are counted."""

MEASURES, FIGURE, README = "names-fix.json", "first-letters.png", "README.md"
"""What is written into the folder; of a README.md that is there, what stands between its marks."""


@dataclass(frozen=True)
class Measured:
    """One model on the words that it was validated on; losses in nats a target.

    Attributes:
        steps_per_epoch: batches of its training words.
        later_nats: of the letters after the first and the end, which all four models learn.
        every_nats: of first letters too, the words read from token 0, as they are generated.
        first_nats: of first letters alone.
        leaked_share: of the validation words, how many are training words too.
        leaked_nats: `later_nats` of these; None where there are none.
        unseen_nats: `later_nats` of the others.
        kl_nats: of the corpus's first letters from the model's distribution after token 0.
        distance: total variation between the corpus's first letters and those of generated names.
        first_letters: share of each letter among the first of the generated names.
    """

    steps_per_epoch: int
    later_nats: float
    every_nats: float
    first_nats: float
    leaked_share: float
    leaked_nats: float | None
    unseen_nats: float
    kl_nats: float
    distance: float
    first_letters: dict[str, float]


def study(
    folder: Path, out: Path, progress: Progress, *, epochs: int | None, corpus: str | None
) -> list[Path]:
    """Trains what is not yet trained of the four models, measures them and writes it down.

    Args:
        folder: of the four run folders; those that are there go on, or are done.
        out: folder of the results.
        progress: told about the trainings.
        epochs: of each; None is the preset's number.
        corpus: see `load_corpus`.

    Returns:
        The files written.

    Raises:
        InputError: there is no such corpus, a folder cannot be used, or a run in it was begun
            otherwise.
    """
    require_no_fallback(load_corpus("names", corpus).record, corpus)
    more = {} if epochs is None else {"epochs": epochs}
    preset = override(PRESETS["names", "alpha"], **more)
    measured, words, run = {}, [], None
    for name, setting in SETTINGS.items():
        run, split = _trained(folder, name, override(preset, **setting), corpus, progress)
        if not words:  # The first setting leaves none out.
            words = [word for part in _words_of(split) for word in part]
        measured[name] = measure(lifecycle.restore_model(run), run.preset, split, words)
    assert run is not None
    record = {
        "corpus": {"name": run.corpus.name, "sha256": run.corpus.sha256},
        "epochs": preset.train.epochs,
        "seed": preset.train.seed,
        "generated_names": NUM_NAMES,
        "distance_of_as_many_names_of_the_corpus": _noise(words),
        "first_letters": _first_letters(words),
        "settings": {name: dataclasses.asdict(values) for name, values in measured.items()},
        "environment": describe_environment(),
    }
    return _write(out, record)


def _trained(
    folder: Path, name: str, preset: Preset, corpus: str | None, progress: Progress
) -> tuple[Run, Split]:
    """Begins a run or goes on with it, to its end."""
    place = folder / name.replace(" ", "-")
    if (place / CONFIG).is_file():
        fields = {"epochs": preset.train.epochs, **SETTINGS[name]}
        run, split = lifecycle.resume(place, corpus, fields)
    else:
        run, split = lifecycle.begin(preset, corpus, place)
    fit(run, split, progress)
    return run, split


def measure(model: GRULanguageModel, preset: Preset, split: Split, words: list[str]) -> Measured:
    """Measures one model; `words` is the whole list, each as often as it stands there."""
    seen, validation = _words_of(split)
    vocabulary, data = split.vocabulary, preset.data
    # A word of seq_len letters has one target more when it is read from its start.
    longer = dataclasses.replace(data, start_token=True, seq_len=data.seq_len + 1)
    generated_as = word_losses(model, validation, vocabulary, longer)
    trained_as = word_losses(model, validation, vocabulary, data)[:, int(data.start_token) :]
    leaked = np.isin(validation, list(set(seen)))
    start = -_log_probabilities(model, jnp.array([[vocabulary.start_id]], jnp.int32))[0, 0]
    corpus = _first_letters(words)
    kl = sum(p * (np.log(p) + start[vocabulary.tokens.index(c)]) for c, p in corpus.items() if p)
    key = Keys.from_seed(preset.train.seed).samples
    names = Writer(model, vocabulary).generate("", Temperature(), key, num=NUM_NAMES)
    return Measured(
        steps_per_epoch=split.train.max_steps or 0,
        later_nats=_mean(trained_as),
        every_nats=_mean(generated_as),
        first_nats=_mean(generated_as[:, :1]),
        leaked_share=float(leaked.mean()),
        leaked_nats=_mean(trained_as[leaked]) if leaked.any() else None,
        unseen_nats=_mean(trained_as[~leaked]),
        kl_nats=float(kl),
        distance=_distance(corpus, _first_letters(names)),
        first_letters=_first_letters(names),
    )


def _words_of(split: Split) -> tuple[list[str], list[str]]:
    """Returns the words of both parts."""
    if not isinstance(split.train, PaddedWords):
        raise InputError("the names study is one of words")
    train, validation = (words_of(data, split.vocabulary) for data in split[:2])
    return train, validation


@nnx.jit
def _scores(model: GRULanguageModel, inputs: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(model(inputs)[0])


def _log_probabilities(model: GRULanguageModel, inputs: jax.Array) -> Float[np.ndarray, "N T V"]:
    return np.asarray(_scores(model, inputs), np.float64)


def _mean(losses: Float[np.ndarray, "N T"]) -> float:
    return float(np.nanmean(losses))


def _first_letters(words: list[str]) -> dict[str, float]:
    """Returns the share of each first letter; that of words without letters under no letter."""
    letters, counts = np.unique([word[:1] for word in words], return_counts=True)
    return {str(c): n / len(words) for c, n in zip(letters, counts.tolist(), strict=True)}


def _distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Returns the total variation distance: the share that would have to be moved."""
    return sum(abs(one.get(c, 0.0) - other.get(c, 0.0)) for c in one | other) / 2


def _noise(words: list[str], repetitions: int = 100) -> float:
    """Returns the mean distance of as many names drawn from the corpus itself."""
    rng = np.random.default_rng(0)
    corpus = _first_letters(words)
    draws = (_first_letters(rng.choice(words, NUM_NAMES).tolist()) for _ in range(repetitions))
    return sum(_distance(corpus, draw) for draw in draws) / repetitions


def _write(out: Path, record: dict[str, Any]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / MEASURES, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    shares = {"the corpus": record["first_letters"]}
    shares |= {
        name: record["settings"][name]["first_letters"] for name in ("notebook", "start token")
    }
    written = [out / MEASURES, _draw_first_letters(shares, out / FIGURE)]
    readme = out / README
    if readme.is_file() and BEGIN in readme.read_text(encoding="utf-8"):
        fill_in(readme, table(record))
        written.append(readme)
    return written


def table(record: dict[str, Any]) -> str:
    """Returns the measures as a table in Markdown."""
    rows = {
        "share of validation words that are training words": ("leaked_share", "{:.1%}"),
        "loss of the letters after the first, and the end": ("later_nats", "{:.4f}"),
        "… of words that were trained on": ("leaked_nats", "{:.4f}"),
        "… of words that were not": ("unseen_nats", "{:.4f}"),
        "loss of first letters": ("first_nats", "{:.4f}"),
        "loss of every letter and the end": ("every_nats", "{:.4f}"),
        "KL divergence of first letters": ("kl_nats", "{:.4f}"),
        f"distance of first letters, {NUM_NAMES:,} generated names": ("distance", "{:.3f}"),
    }
    settings = record["settings"]
    lines = []
    for title, (field, form) in rows.items():
        values = [values[field] for values in settings.values()]
        cells = ("–" if value is None else form.format(value) for value in values)
        lines.append((title, *cells))
    return markdown_table(("", *settings), lines)


def _draw_first_letters(shares: dict[str, dict[str, float]], path: Path) -> Path:
    """Draws how often words begin with each letter, and returns the file.

    Args:
        shares: by letter, of several lists of words by their names.
        path: the .png to write.
    """
    letters = sorted(set().union(*shares.values()))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(shares)
    for index, (name, share) in enumerate(shares.items()):
        places = [place + (index - (len(shares) - 1) / 2) * width for place in range(len(letters))]
        axes.bar(places, [share.get(letter, 0.0) for letter in letters], width, label=name)
    axes.set_xticks(range(len(letters)), [letter or "none" for letter in letters])
    axes.set(ylabel="share of names", title="First letters")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return save_figure(figure, path)
