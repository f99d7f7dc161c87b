#!/usr/bin/env python
"""Train a character-level GRU language model in JAX.

Examples:
  python scripts/train.py --model gamma
  python scripts/train.py --model alpha --dataset names
  python scripts/train.py --corpus my.txt --hidden-dim 384 --num-layers 4 --dry-run
  python scripts/train.py --model beta --seeds 5
"""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagConversionOff, OmitArgPrefixes

from astra_jax import cli
from astra_jax.cli import default, of_preset
from astra_jax.config import Preset
from astra_jax.console import Console
from astra_jax.data.corpus import BUILTIN
from astra_jax.data.splits import Split
from astra_jax.errors import InputError, StoppedError
from astra_jax.experiments import lifecycle
from astra_jax.experiments.experiment import Experiment
from astra_jax.experiments.rehearsal import rehearse
from astra_jax.experiments.samples import write_samples
from astra_jax.machine import compile_cache, placement, processes
from astra_jax.presets import NOTEBOOK, find_preset, override
from astra_jax.report.parameters import summarize
from astra_jax.report.tensorboard import TensorBoardProgress, require_tensorboard
from astra_jax.runs.checkpoints import KEEP_LATEST
from astra_jax.runs.folder import Run
from astra_jax.training import sizing
from astra_jax.training.options import FitOptions
from astra_jax.training.progress import ConsoleProgress, Progress, Several
from astra_jax.training.saving import SavePolicy


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """Of the model; what is not given is as in the preset."""

    embedding_dim: Annotated[int | None, of_preset("embedding_dim")] = None
    """E, width of a character's embedding."""
    hidden_dim: Annotated[int | None, of_preset("hidden_dim")] = None
    """H, width of every layer's state."""
    num_layers: Annotated[int | None, of_preset("num_layers")] = None
    """L, number of stacked GRU layers."""
    dropout: Annotated[float | None, of_preset("dropout")] = None
    """Share of the carried state zeroed at every training step, from 0 to below 1."""
    dropout_on: Annotated[str | None, of_preset("dropout_on")] = None
    """What is zeroed: states, as they are carried on, or outputs, what a layer hands up, alone."""
    layer_norm: Annotated[FlagConversionOff[bool] | None, of_preset("layer_norm")] = None
    """LayerNorm before the head, True or False."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Of its batches; what is not given is as in the preset."""

    batch_size: Annotated[int | None, of_preset("batch_size")] = None
    """B, windows or words in a batch."""
    seq_len: Annotated[int | None, of_preset("seq_len")] = None
    """T, characters in a window, or the length that words are padded to."""
    train_fraction: Annotated[float | None, of_preset("train_fraction")] = None
    """Share of the corpus that is trained on, between 0 and 1; the rest validates."""
    start_token: bool = False
    """Words begin with a start token, so that first letters are learned too; not in the study."""
    carry_state: Annotated[FlagConversionOff[bool] | None, of_preset("carry_state")] = None
    """Windows go on where the one before ended, from the states reached there, True or False."""
    level: Annotated[str | None, of_preset("level")] = None
    """char, or byte: any file as the bytes that it has, with a vocabulary of all 256."""
    dedupe: bool = False
    """A word that the list has twice is taken once: none is both trained and validated on."""


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """Of the recipe; what is not given is as in the preset."""

    epochs: Annotated[int | None, of_preset("epochs")] = None
    """Number of epochs."""
    steps_per_epoch: Annotated[int | None, of_preset("steps_per_epoch")] = None
    """Optimiser steps in an epoch; where there are none, every batch is taken once."""
    optimizer: Annotated[str | None, of_preset("optimizer")] = None
    """adamw (decoupled decay) or adam (no decay)."""
    learning_rate: Annotated[float | None, of_preset("learning_rate")] = None
    """The highest learning rate."""
    schedule: Annotated[str | None, of_preset("schedule")] = None
    """cosine (falls once an epoch, to 0), cosine-by-step, or constant."""
    warmup_steps: Annotated[int | None, of_preset("warmup_steps")] = None
    """First steps, in which the learning rate rises from 0."""
    weight_decay: Annotated[float | None, of_preset("weight_decay")] = None
    """Decoupled decay, per unit of learning rate."""
    decay: Annotated[str | None, of_preset("decay")] = None
    """What decays: all parameters, or the matrices of products alone."""
    clip: Annotated[float | None, of_preset("clip")] = None
    """Largest global norm of the gradient; 0 does not clip."""
    seed: Annotated[int | None, of_preset("seed")] = None
    """Fixes weights, split, batches, dropout and samples."""
    dtype: Annotated[str | None, of_preset("dtype")] = None
    """float32, float64, or bfloat16 (products only; parameters stay float32)."""


@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """What changes no result."""

    checkpoint_every: Annotated[int | None, default("at the end of every epoch")] = None
    """Also save after every so many steps."""
    keep: int = KEEP_LATEST
    """Newest checkpoints that stay; that of the lowest validation loss stays beside them."""
    devices: Annotated[int | Literal["all"] | None, default("what is fastest")] = None
    """Devices that share each batch; the cores of a CPU count as devices."""
    backend: Annotated[str | None, default("what is fastest")] = None
    """How the recurrence is computed: scan, fused, wavefront or pallas."""
    remat: bool = False
    """Spend a third more time to train long sequences in little memory."""
    coordinator: Annotated[str | None, default("one process")] = None
    """Host and port of process 0, where several processes train together."""
    num_processes: Annotated[int | None, default("1")] = None
    """How many train together."""
    process_id: Annotated[int | None, default("0")] = None
    """Which of them this one is, from 0."""
    debug_nans: bool = False
    """If training diverges, run the step again and say which operation did it."""
    no_compile_cache: bool = False
    """Compile everything anew, and keep nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags; defaults are those of alpha / beta / gamma."""

    model: Annotated[str | None, default("alpha")] = None
    """alpha, beta or gamma; small, medium and large name the three names models."""
    dataset: Annotated[str | None, default("shakespeare")] = None
    """shakespeare (running text) or names (one word a line)."""
    recipe: Annotated[str | None, default("notebook")] = None
    """notebook, as in the studies, or tuned: lower losses from no more characters."""
    corpus: Annotated[str | None, default("the published one")] = None
    """A UTF-8 text file, or `builtin` for the text that the project makes itself."""
    out: Annotated[Path | None, default("runs/…")] = None
    """Folder for config, vocabulary, metrics, checkpoints and samples; must be new or empty."""
    resume: Annotated[Path | None, default("a new run")] = None
    """Go on with the run in this folder, or with the runs, with its own configuration."""
    seeds: Annotated[int | None, default("one run")] = None
    """Train so many runs in one program, of successive seeds, each in a run folder of its own."""
    summary: bool = False
    """Print the model's modules, shapes and parameters, and train nothing."""
    dry_run: bool = False
    """Print configuration, corpus, memory and time, from some steps timed here; train nothing."""
    quiet: bool = False
    """Print errors and the last line only."""
    tensorboard: bool = False
    """Also write events for TensorBoard, into the run's folder; needs the `tensorboard` extra."""

    network: Annotated[NetworkFlags, OmitArgPrefixes] = NetworkFlags()
    data: Annotated[DataFlags, OmitArgPrefixes] = DataFlags()
    training: Annotated[TrainingFlags, OmitArgPrefixes] = TrainingFlags()
    machine: Annotated[MachineFlags, OmitArgPrefixes] = MachineFlags()

    def overrides(self) -> dict[str, object]:
        """Returns the fields of the preset that were given."""
        given = asdict(self.network) | asdict(self.data) | asdict(self.training)
        # A switch that is not given says nothing, also of a run that is resumed.
        given |= {"start_token": self.data.start_token or None, "dedupe": self.data.dedupe or None}
        fields = {name: value for name, value in given.items() if value is not None}
        if fields.get("clip") == 0:
            fields["clip"] = None
        return fields

    def preset(self) -> Preset:
        """Returns what a new run is to be."""
        recipe = self.recipe or NOTEBOOK
        preset = find_preset(self.model or "alpha", self.dataset, recipe)
        return override(preset, **self.overrides())

    def fit_options(self) -> FitOptions:
        """Returns what was chosen that changes no result."""
        machine = self.machine
        saving = SavePolicy(checkpoint_every=machine.checkpoint_every, keep=machine.keep)
        return FitOptions(
            saving=saving,
            debug_nans=machine.debug_nans,
            devices=machine.devices,
            backend=machine.backend,
            remat=machine.remat,
        )

    def go_on(self, folder: Path) -> str:
        """Returns the command that goes on with a run in the way that these flags asked for."""
        command = ["python", "scripts/train.py", "--resume", str(folder)]
        # A new run has written down its own text.
        given = {} if self.resume is None else {"corpus": self.corpus}
        given |= asdict(self.machine) | {"tensorboard": self.tensorboard}
        for name, value in given.items():
            of_processes = name in ("coordinator", "num_processes", "process_id")
            if of_processes or value in (None, False, getattr(MachineFlags, name, None)):
                continue
            flag = "--" + name.replace("_", "-")
            command += [flag] if value is True else [flag, str(value)]
        return shlex.join(command)

    def join_processes(self) -> None:
        """Joins the other processes, where there are to be any."""
        machine = self.machine
        given = (machine.coordinator, machine.num_processes, machine.process_id)
        if None not in given:
            tell = cli.teller(self.quiet)
            processes.connect(*given, tell)  # pyright: ignore[reportArgumentType]
        elif set(given) != {None}:
            raise InputError("--coordinator, --num-processes and --process-id go together")
        else:
            placement.split_cpu()


def main(arguments: Arguments) -> None:
    """Begins or resumes a run and trains it to its end, or tells what it would be."""
    if arguments.tensorboard:
        require_tensorboard()
    arguments.join_processes()
    with processes.all_or_none():
        options = arguments.fit_options()
    # Those that do something else would never meet the others.
    task = bool(arguments.resume), arguments.seeds, arguments.summary, arguments.dry_run
    processes.require_same("what is to be done", task)
    quiet = arguments.quiet or not processes.is_primary()
    tell = cli.teller(quiet)
    if not arguments.machine.no_compile_cache:
        tell(compile_cache.enable())
    if arguments.resume:
        experiment = _resume(arguments, arguments.resume, options)
    else:
        with processes.all_or_none():
            preset = arguments.preset()
        if arguments.summary:
            preset = lifecycle.fit_vocabulary(preset, arguments.corpus)
            Console(highlight=False).print(summarize(preset))
            return
        if arguments.dry_run:
            _rehearse(preset, arguments, options)
            return
        where = arguments.corpus, arguments.out
        experiment = Experiment.begin(preset, *where, options, arguments.seeds)
        tell(_advice(experiment.runs[0].preset, experiment.splits[0]))
    processes.require_same("how it trains", options)
    _train(experiment, arguments, options, quiet)


def _rehearse(preset: Preset, arguments: Arguments, options: FitOptions) -> None:
    with processes.all_or_none():
        prepared = lifecycle.prepare(preset, arguments.corpus, options, arguments.seeds)
    processes.require_same("recipe or corpus", (prepared.presets, prepared.corpus.sha256))
    processes.require_same("how it trains", options)
    told = rehearse(prepared, options)
    if not processes.is_primary():
        return
    print(told)
    if prepared.corpus.origin == "built-in":
        cli.teller(arguments.quiet)(_warning(arguments))
    cli.teller(arguments.quiet)(_advice(prepared.presets[0], prepared.splits[0]))


def _warning(arguments: Arguments) -> str:
    return lifecycle.builtin_warning(
        chosen=arguments.resume is not None or arguments.corpus == BUILTIN
    )


def _advice(preset: Preset, split: Split) -> str:
    return sizing.advice(preset.model.num_parameters, split.train.count_targets())


@contextlib.contextmanager
def _progress(runs: Sequence[Run], quiet: bool, tensorboard: bool) -> Iterator[Progress]:
    with contextlib.ExitStack() as stack:
        listeners: list[Progress] = [stack.enter_context(ConsoleProgress(quiet=quiet))]
        if tensorboard and processes.is_primary():
            events = (TensorBoardProgress(run.folder, place) for place, run in enumerate(runs))
            listeners += map(stack.enter_context, events)
        yield Several(listeners)


def _train(experiment: Experiment, arguments: Arguments, options: FitOptions, quiet: bool) -> None:
    from jax.errors import JaxRuntimeError  # JAX is slow to import: `cli` watches for Ctrl-C first.

    tell, training, runs = cli.teller(quiet), experiment.training, experiment.runs
    if not quiet:
        cli.say(f"{training.describe()}, into {training.folder}")
    warning = _warning(arguments) if training.uses_builtin_text else ""
    tell(warning)
    try:
        with _progress(runs, quiet, arguments.tensorboard) as progress:
            experiment.fit(progress, options)
    except (KeyboardInterrupt, StoppedError, OSError, JaxRuntimeError) as error:
        cli.note(f"go on with: {arguments.go_on(training.folder)}")
        if isinstance(error, JaxRuntimeError):
            processes.leave(error)
        raise
    for run in runs:
        write_samples(run)
    if processes.is_primary():
        _finish(experiment, warning, quiet)


def _finish(experiment: Experiment, warning: str, quiet: bool) -> None:
    from astra_jax.report.figures import draw_losses  # Matplotlib would hold up the first step.

    for run in filter(Run.metrics, experiment.runs):
        draw_losses(run)
    done = f"done: {experiment.outcome()}"
    if quiet and warning:  # The last line is all that is seen.
        done += ", of the project's built-in text"
    cli.say(f"{done}, all in {experiment.training.folder}")
    cli.teller(quiet)(warning)


def _resume(arguments: Arguments, folder: Path, options: FitOptions) -> Experiment:
    """Opens a run, or several; fields of their preset may be given again, if they say the same."""
    with processes.all_or_none():
        for name in ("model", "dataset", "recipe", "out", "seeds", "summary", "dry_run"):
            if getattr(arguments, name):
                flag = "--" + name.replace("_", "-")
                raise InputError(
                    f"--resume takes everything from the run's own config.json: leave out {flag}"
                )
    return Experiment.resume(folder, arguments.corpus, arguments.overrides(), options)


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
