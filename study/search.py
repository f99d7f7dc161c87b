"""The search for a better recipe, by trials on the training part alone.

The study's training part is split once more: most of it is trained on; the rest, the end of a text
or a random share of words, is the development set that trials are judged by. The validation part
is not read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astra_jax.config import DatasetName, Preset
from astra_jax.data.corpus import load_corpus
from astra_jax.data.splits import Split, running_text, split_corpus, words_of
from astra_jax.errors import TIME_IS_UP, InputError, StoppedError
from astra_jax.experiments import lifecycle
from astra_jax.presets import PRESETS, override
from astra_jax.runs.folder import CONFIG, Run
from astra_jax.storage import strict_json
from astra_jax.storage.atomic import write_text
from astra_jax.training.fitting import FitOptions, fit, steps_in_epoch
from astra_jax.training.progress import Progress
from astra_jax.training.trainer import Keys
from study import measures
from study.trainings import Work, fields_of, require_no_fallback

FORMAT = 1
FOLDER = "search"
"""Of the run folders, and, under the study's results, of one file a search."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe that is tried.

    Attributes:
        why: what is hoped for.
        changes: fields that it has otherwise than the preset.
    """

    why: str
    changes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What its run folder is called: the changes, or that there are none."""
        fields = (
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.changes.items()
        )
        return ",".join(fields) or "notebook"


@dataclass(frozen=True, kw_only=True)
class Search:
    """The trials of one model.

    Attributes:
        dataset: of the model.
        model: its name in the presets.
        epochs: of every trial, fewer than the preset's where a whole training takes long.
        trials: in the order of the search; each was thought of when those before it were known.
    """

    dataset: DatasetName
    model: str
    epochs: int
    trials: Sequence[Trial]

    @property
    def name(self) -> str:
        """What its file and its folder are called."""
        return f"{self.dataset}-{self.model}"

    def preset(self, trial: Trial) -> Preset:
        """Returns what a trial trains.

        Raises:
            InputError: it is another model, or learns from more characters than the preset.
        """
        published = override(PRESETS[self.dataset, self.model], epochs=self.epochs)
        preset = override(published, **trial.changes)
        if preset.name != published.name or _characters(preset) > _characters(published):
            raise InputError(f"{trial.name} is another model, or learns from more characters")
        return preset


def conduct_search(search: Search, work: Work, progress: Progress) -> None:
    """Does the trials that are not yet known, as far as there is time, and writes them down.

    Raises:
        StoppedError: a signal came; the next call goes on.
        InputError: what there is is of another search or text, and as `fitting.fit` does, like the
            others.
    """
    known = read_trials(work.out, search)
    for trial in search.trials:
        if is_known(search, trial, known):
            continue
        run, split = _trained(search, trial, known, work, progress)
        if run is None or split is None:
            return
        known[trial.name] = _result(trial, run, split)
        _write(work.out, search, known)


def is_known(search: Search, trial: Trial, known: Mapping[str, dict[str, Any]]) -> bool:
    """Whether there is a result of a trial as it is planned now."""
    found = known.get(trial.name)
    if found is None:
        return False
    vocab_size = found["preset"]["model"]["vocab_size"]  # That of its corpus.
    planned = override(search.preset(trial), vocab_size=vocab_size)
    return bool(found["preset"] == planned.to_dict())


def _trained(
    search: Search,
    trial: Trial,
    known: Mapping[str, dict[str, Any]],
    work: Work,
    progress: Progress,
) -> tuple[Run | None, Split | None]:
    """Trains a trial to its end; returns nothing where there is no time for it."""
    folder = work.runs / FOLDER / search.name / trial.name
    if (folder / CONFIG).is_file():
        text, fields = _development_text(search, known, work), fields_of(search.preset(trial))
        run, split = lifecycle.resume(folder, text, fields)
    elif work.is_over:
        return None, None
    else:
        text = _development_text(search, known, work)
        run, split = lifecycle.begin(search.preset(trial), text, folder)
    work.tell(f"{run.preset.title}, trial {trial.name}")
    try:
        fit(run, split, progress, FitOptions(deadline=work.deadline))
    except StoppedError as stop:
        if stop.number != TIME_IS_UP:
            raise
        return None, None
    return run, split


def _development_text(search: Search, known: Mapping[str, dict[str, Any]], work: Work) -> str:
    """Writes what the study trains on into a file, a corpus of its own, and returns its path."""
    preset = PRESETS[search.dataset, search.model]
    corpus = load_corpus(search.dataset, work.corpus)
    require_no_fallback(corpus.record, work.corpus)
    split = split_corpus(corpus.text, preset.data, Keys.from_seed(0).split)
    if search.dataset == "names":
        text = "\n".join(words_of(split.train, split.vocabulary))
    else:
        text = corpus.text[: len(running_text(split.train))]
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if any(result["corpus_sha256"] != sha256 for result in known.values()):
        raise InputError(
            f"{_path(work.out, search)} is of another text than {corpus.record.name}: give the "
            "former by --corpus, or another folder by --out"
        )
    path = work.runs / FOLDER / f"{search.dataset}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return str(path)


def _characters(preset: Preset) -> int:
    """Returns what a training reads: of windows in characters, of words in passes over them."""
    steps = preset.train.steps_per_epoch
    batch = 1 if steps is None else steps * preset.data.batch_size * preset.data.seq_len
    return preset.train.epochs * batch


def _result(trial: Trial, run: Run, split: Split) -> dict[str, Any]:
    """Returns what a trial has come to, JSON-ready."""
    lines = run.metrics()
    return {
        "name": trial.name,
        "why": trial.why,
        "changes": dict(trial.changes),
        "preset": run.preset.to_dict(),
        "train_loss_nats": lines[-1].train_loss_nats,
        "development": measures.evaluate(run, split),
        "steps": len(lines) * steps_in_epoch(run.preset, split.train),
        "corpus_sha256": run.corpus.sha256,
        "environment": run.environment,
    }


def _path(out: Path, search: Search) -> Path:
    return out / FOLDER / f"{search.name}.json"


def read_trials(out: Path, search: Search) -> dict[str, dict[str, Any]]:
    """Returns the results of the trials that are known, by name."""
    path = _path(out, search)
    if not path.is_file():
        return {}
    found = strict_json.read(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} is no search of format {FORMAT}: put back what was there")
    return {trial["name"]: trial for trial in found["trials"]}


def _write(out: Path, search: Search, known: Mapping[str, dict[str, Any]]) -> None:
    """Writes the trials in the order of the search."""
    path = _path(out, search)
    path.parent.mkdir(parents=True, exist_ok=True)
    trials = [known[trial.name] for trial in search.trials if trial.name in known]
    record = {"format": FORMAT, "search": search.name, "epochs": search.epochs, "trials": trials}
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
