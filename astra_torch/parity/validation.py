"""From what a user asks to be validated to a certificate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from astra_jax.config import Preset
from astra_jax.data.corpus import BUILTIN, CorpusRecord, load_corpus
from astra_jax.data.splits import Split, split_corpus
from astra_jax.data.token_files import TokenFile
from astra_jax.errors import InputError
from astra_jax.presets import override
from astra_jax.storage.hashing import hash_arrays
from astra_jax.training.fitting import steps_in_epoch
from astra_jax.training.trainer import Keys
from astra_torch import conversion
from astra_torch.onnx_models import require_onnx
from astra_torch.parity.cases import Case, random_arrays, training_case
from astra_torch.parity.certificate import DRAWN, Certificate, Reports
from astra_torch.parity.checks import check
from astra_torch.parity.onnx_side import check_onnx
from astra_torch.parity.precision import describe_precision
from astra_torch.parity.progress import StageProgress
from astra_torch.parity.quantities import ParityDtype
from astra_torch.parity.texts import TextReport, check_texts
from astra_torch.trained_model import TrainedModel
from astra_torch.training import beyond_studies
from astra_torch.weights import Arrays

Stage = Literal["logits", "gradients", "training", "onnx", "texts"]
"""What can be validated: the levels that compare numbers with PyTorch, ONNX Runtime's forward
pass, and the samplers."""

STAGES: tuple[Stage, ...] = ("logits", "gradients", "training", "onnx", "texts")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is validated.

    Attributes:
        preset: model and recipe.
        corpus: what the batches are drawn from.
        split: its parts.
        source: where the weights are from, for a reader.
        arrays: JAX's weights; None takes random ones, and the run's own where a training begins.
        twin_arrays: PyTorch's; None is JAX's.
    """

    preset: Preset
    corpus: CorpusRecord
    split: Split
    source: str
    arrays: Arrays | None = None
    twin_arrays: Arrays | None = None

    @property
    def is_pair(self) -> bool:
        """Whether each framework has weights of its own."""
        return self.twin_arrays is not None

    def case(self, stage: Stage) -> Case:
        """Returns the inputs of a stage."""
        arrays = self.arrays
        if arrays is None and stage != "training":
            arrays = random_arrays(self.preset, self.preset.train.seed)
        return training_case(self.preset, self.split, arrays=arrays, twin_arrays=self.twin_arrays)


def subject_of_preset(preset: Preset, corpus_source: str | None) -> Subject:
    """Returns a published or overridden preset to be validated, with weights that it draws.

    Raises:
        InputError: the corpus cannot be used.
    """
    corpus, split = _split(preset, corpus_source)
    preset = override(preset, vocab_size=len(split.vocabulary))
    return Subject(
        preset=preset,
        corpus=corpus,
        split=split,
        source=f"{DRAWN} {preset.train.seed}",
    )


def subject_of_files(
    paths: Sequence[Path],
    corpus_source: str | None,
    *,
    seed: int | None = None,
    trust_shapes: bool = False,
) -> Subject:
    """Returns a user's own weights to be validated.

    Args:
        paths: one run folder or weight file for both frameworks, or one for JAX and one for
            PyTorch.
        corpus_source: see `load_corpus`; None is the text that the weights were trained on.
        seed: decides batches and dropout; None is the model's own.
        trust_shapes: see `conversion.read`.

    Raises:
        InputError: a file or the corpus cannot be used, or the two models are of different shape.
    """
    if not 1 <= len(paths) <= 2:
        raise InputError(f"--weights takes one or two models, got {len(paths)}")
    first, last = (
        conversion.read(
            path,
            corpus=corpus_source if path.is_file() else None,
            trust_shapes=trust_shapes,
            weights_only=True,
        )
        for path in (paths[0], paths[-1])
    )
    # A file of the names study does not know its dropout.
    sizes = [(one.layout, {n: a.shape for n, a in one.arrays.items()}) for one in (first, last)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{paths[0]} ({first.preset.title}) and {paths[-1]} ({last.preset.title}) differ in "
            "the names or shapes of their arrays: give two forms of one model"
        )
    preset = first.preset if seed is None else override(first.preset, seed=seed)
    corpus, split = _split(preset, corpus_source or _known_corpus(first))
    if split.vocabulary != first.vocabulary:
        raise InputError(
            f"{corpus.name} has other characters than {paths[0]}: {split.vocabulary.describe()}, "
            f"expected {first.vocabulary.describe()}; give the text of the model by --corpus FILE"
        )
    return Subject(
        preset=preset,
        corpus=corpus,
        split=split,
        source=" and ".join(path.name for path in paths),
        arrays=first.arrays,
        twin_arrays=last.arrays if len(paths) == 2 else None,
    )


def _known_corpus(trained: TrainedModel) -> str | None:
    return BUILTIN if trained.corpus.origin == "built-in" else trained.corpus.path


def _split(preset: Preset, source: str | None) -> tuple[CorpusRecord, Split]:
    corpus = load_corpus(preset.data.dataset, source, preset.data.level)
    if isinstance(corpus.content, TokenFile):
        raise InputError(
            f"{corpus.record.name} is too large to be compared in memory: give a shorter text of "
            "the same characters by --corpus FILE"
        )
    key = Keys.from_seed(preset.train.seed).split
    return corpus.record, split_corpus(corpus.content, preset.data, key)


def validate(
    subject: Subject,
    stages: Sequence[Stage],
    *,
    dtypes: Sequence[ParityDtype],
    num_steps: int,
    num_characters: int,
    progress: StageProgress,
) -> Certificate:
    """Compares the two frameworks on a subject.

    Args:
        subject: what is validated.
        stages: which comparisons to make. ONNX Runtime's is in float32 only.
        dtypes: in which types.
        num_steps: of the training.
        num_characters: that each sampler writes, at least.
        progress: is told what is being compared.
    """
    stages = _prepare(subject, stages, dtypes, num_steps)
    levels: dict[str, Reports] = {}
    texts: list[TextReport] = []
    weights: dict[str, dict[str, str]] = {}
    for stage in stages:
        steps = num_steps if stage == "training" else 1
        progress.stage(stage, steps)
        case = subject.case(stage)
        weights[stage] = {"source": subject.source, "sha256": hash_arrays(case.twin_arrays)}
        if subject.is_pair:
            weights[stage]["jax_sha256"] = hash_arrays(case.arrays)
        if stage == "texts":
            texts += [one for d in dtypes for one in check_texts(case, d, num_characters)]
        elif stage == "onnx":
            levels[stage] = {"float32": check_onnx(case)}
        else:
            levels[stage] = check(
                case, stage, dtypes=dtypes, num_steps=steps, on_step=progress.step
            )
    return Certificate(
        preset=subject.preset,
        corpus=subject.corpus,
        weights=weights,
        levels=levels,
        texts=tuple(texts),
        notes=(describe_precision(subject.case("logits")), *_notes(subject, levels)),
    )


def _prepare(
    subject: Subject,
    stages: Sequence[Stage],
    dtypes: Sequence[ParityDtype],
    num_steps: int,
) -> list[Stage]:
    """Refuses what could only fail after hours, and adds what a pair of files needs."""
    if {"onnx", "texts"} & set(stages) and "float32" in dtypes:
        require_onnx()
    recipe = subject.preset.train
    if "training" in stages and (found := beyond_studies(subject.preset)):
        raise InputError(
            f"PyTorch's training is the studies' own, which knows no {', '.join(found)}: compare "
            "the model without it, by --level logits, gradients, onnx or texts"
        )
    dropped = recipe.dropout_on != "states" and subject.preset.model.dropout > 0
    if dropped and {"logits", "gradients"} & set(stages):
        raise InputError(
            "the notebooks' classes drop states alone, and this model drops outputs: compare it "
            "where nothing is dropped, by --level onnx or texts"
        )
    last = recipe.epochs * steps_in_epoch(subject.preset, subject.split.train)
    if "training" in stages and recipe.schedule == "cosine" and num_steps > last:
        raise InputError(
            f"the training has {last} steps, after which its learning rate is 0, and {num_steps} "
            f"are to be compared: give --steps {last} or fewer"
        )
    # Only there are the weights themselves compared, to the bit.
    return ["logits", *stages] if subject.is_pair and "logits" not in stages else [*stages]


def _notes(subject: Subject, levels: Mapping[str, Reports]) -> list[str]:
    """Says what a reader might think was compared, and was not."""
    notes = []
    recipe = subject.preset.train
    if recipe.dtype == "bfloat16":
        notes.append("the model's own products are of bfloat16, in which nothing was compared")
    for report in levels.get("training", {}).values():
        if recipe.clip is not None:
            notes.append(
                f"training, {report.dtype}: the clip at {recipe.clip:g} shortened "
                f"{report.num_clipped} of {report.num_steps} gradients"
            )
        if recipe.schedule == "cosine":
            notes.append(
                f"training, {report.dtype}: the learning rate changed {report.num_rates - 1} times"
            )
    return notes


def choose_stages(level: Stage | Literal["all"], dtypes: Sequence[ParityDtype]) -> list[Stage]:
    """Returns what a level of the command line stands for.

    Raises:
        InputError: the level cannot be compared in the given types.
    """
    possible: list[Stage] = [stage for stage in STAGES if stage != "onnx" or "float32" in dtypes]
    if level == "all":
        return possible
    if level not in possible:
        raise InputError("ONNX Runtime computes in float32: leave out --dtype float64")
    return [level]
