"""What two properties of the names study cost, and what repairing them brings.

Four models that differ in nothing else: as the notebook does it, with a start token, without
duplicates, and with both.
"""

import dataclasses
from pathlib import Path

from astra_jax.config import Preset
from astra_jax.data.corpus import load_corpus
from astra_jax.data.splits import Split
from astra_jax.experiments import lifecycle, restoring
from astra_jax.machine.environment import describe_environment
from astra_jax.presets import PRESETS, override
from astra_jax.runs.folder import CONFIG, Run
from astra_jax.training.fitting import fit
from astra_jax.training.progress import Progress
from study import names_page
from study.names_measures import (
    NUM_NAMES,
    distance_by_chance,
    first_letters,
    measure,
    words_of_parts,
)
from study.trainings import require_no_fallback

SETTINGS: dict[str, dict[str, bool]] = {
    "notebook": dict(start_token=False, dedupe=False),
    "start token": dict(start_token=True, dedupe=False),
    "dedupe": dict(start_token=False, dedupe=True),
    "both": dict(start_token=True, dedupe=True),
}
"""The four models, and how their data is made."""


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
            words = [word for part in words_of_parts(split) for word in part]
        measured[name] = measure(restoring.restore_model(run), run.preset, split, words)
    assert run is not None
    record = {
        "corpus": {"name": run.corpus.name, "sha256": run.corpus.sha256},
        "epochs": preset.train.epochs,
        "seed": preset.train.seed,
        "generated_names": NUM_NAMES,
        "distance_of_as_many_names_of_the_corpus": distance_by_chance(words),
        "first_letters": first_letters(words),
        "settings": {name: dataclasses.asdict(values) for name, values in measured.items()},
        "environment": describe_environment(),
    }
    return names_page.write(out, record)


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
