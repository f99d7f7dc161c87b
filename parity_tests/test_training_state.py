"""Training goes on in the other framework, and back, as if it had never changed hands."""

import copy
import dataclasses
import functools
import math
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from astra_jax.config import DatasetName, Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.datasets import Batch
from astra_jax.data.vocabulary import published_vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments import lifecycle, samples
from astra_jax.model import arithmetic, parameters
from astra_jax.presets import PRESETS, override
from astra_jax.report.figures import draw_losses
from astra_jax.runs.folder import Run
from astra_jax.runs.metrics import EpochMetrics
from astra_jax.training.fitting import fit
from astra_jax.training.progress import Snapshot
from astra_jax.training.trainer import Trainer
from astra_torch import conversion, notebook_files
from astra_torch.models import build_model
from astra_torch.tolerances import FLOAT64
from astra_torch.torch_state import from_trainer, to_trainer
from astra_torch.trained_model import TrainedModel
from astra_torch.training import ReferenceTrainer
from astra_torch.training_state import OptimizerState, from_jax, to_jax
from astra_torch.weights import Arrays, entries, find_layout, to_arrays, to_model

RULES: dict[str, tuple[DatasetName, str]] = {
    "adamw-cosine-clip": ("shakespeare", "beta"),
    "adam": ("names", "alpha"),
    "adamw": ("names", "gamma"),
}
EPOCHS, STEPS_PER_EPOCH = 6, 2
PART = 4
"""Steps of a part of three: the cosine changes its rate inside each."""


class Training(NamedTuple):
    """A training between two frameworks."""

    preset: Preset
    arrays: Arrays
    optimizer: OptimizerState


def beginning(rule: str, dtype: str = "float64") -> Training:
    preset = override(
        PRESETS[RULES[rule]],
        **dict(embedding_dim=3, hidden_dim=5, vocab_size=7, dtype=dtype),
        **dict(epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH),
    )
    rng = np.random.default_rng(0)
    sizes = dict(V=7, E=3, H=5)
    arrays = {
        entry.name: (0.7 * rng.standard_normal([sizes[s] for s in entry.shape])).astype(dtype)
        for entry in entries(find_layout(preset.model, preset.data.dataset))
    }
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    return Training(preset, arrays, OptimizerState(0, zeros, zeros, STEPS_PER_EPOCH))


def with_moments(training: Training, step: int) -> Training:
    """A training at some step, without the trouble of training."""
    rng = np.random.default_rng(1)
    mean, square = (
        {name: (1e-3 * rng.random(a.shape)).astype(a.dtype) for name, a in training.arrays.items()}
        for _ in range(2)
    )
    return training._replace(optimizer=OptimizerState(step, mean, square, STEPS_PER_EPOCH))


def batch(step: int) -> np.ndarray:
    """Inputs and targets `[2, B, T]` of a step."""
    return np.random.default_rng(step).integers(7, size=(2, 4, 6), dtype=np.int32)


pytestmark = pytest.mark.usefixtures("compiled_in_haste")


@functools.cache
def update(preset: Preset) -> Callable[..., Any]:
    return jax.jit(Trainer(preset, STEPS_PER_EPOCH).update)


def train_in_jax(training: Training, steps: int = PART) -> Training:
    preset, arrays, optimizer = training
    layout = find_layout(preset.model, preset.data.dataset)
    with arithmetic(preset.train.dtype):
        params = parameters(to_model(arrays, preset.model, layout, preset.train.dtype))
        state = to_jax(params, optimizer, preset, layout)
        for step in range(optimizer.step, optimizer.step + steps):
            state, _ = update(preset)(state, Batch(*map(jnp.asarray, batch(step))), None)
        after = from_jax(state, layout, STEPS_PER_EPOCH)
    assert after is not None
    return Training(preset, to_arrays(state.params, layout), after)


def steps_in_torch(trainer: ReferenceTrainer, steps: int = PART) -> None:
    trainer.model.eval()  # Nothing is dropped.
    for step in range(trainer.steps_done, trainer.steps_done + steps):
        inputs, targets = torch.from_numpy(batch(step)).long()
        trainer.step(inputs, targets)


def train_in_torch(training: Training, steps: int = PART) -> Training:
    preset, arrays, optimizer = training
    trainer = to_trainer(arrays, optimizer, preset)
    steps_in_torch(trainer, steps)
    after = {name: value.numpy().copy() for name, value in trainer.model.state_dict().items()}
    return Training(preset, after, from_trainer(trainer, STEPS_PER_EPOCH))


def tensors(training: Training) -> dict[str, np.ndarray]:
    optimizer = training.optimizer
    parts = dict(parameter=training.arrays, mean=optimizer.exp_avg, square=optimizer.exp_avg_sq)
    return {
        f"{part} {name}": array for part, arrays in parts.items() for name, array in arrays.items()
    }


def bits(training: Training) -> dict[str, tuple[Any, ...]]:
    return {
        name: (array.dtype, array.shape, array.tobytes())
        for name, array in tensors(training).items()
    }


def distance(one: Training, other: Training) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    pairs = ((array, tensors(other)[name]) for name, array in tensors(one).items())
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_from_jax_to_torch_and_back_no_bit_changes(rule: str, dtype: str):
    training = with_moments(beginning(rule, dtype), step=3)
    through_torch = train_in_torch(training, steps=0)
    assert bits(train_in_jax(through_torch, steps=0)) == bits(through_torch) == bits(training)
    assert through_torch.optimizer.step == 3
    assert {kind for kind, *_ in bits(training).values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("rule", RULES)
def test_a_training_that_changes_hands_is_the_uninterrupted_one(rule: str):
    start = beginning(rule)
    in_jax, in_torch = train_in_jax(start, 3 * PART), train_in_torch(start, 3 * PART)
    back_in_jax = train_in_jax(train_in_torch(train_in_jax(start)))
    back_in_torch = train_in_torch(train_in_jax(train_in_torch(start)))
    for handed_over in (back_in_jax, back_in_torch):
        assert handed_over.optimizer.step == 3 * PART
        assert distance(handed_over, in_jax) <= FLOAT64
        assert distance(handed_over, in_torch) <= FLOAT64


def exchange_moments(state: OptimizerState) -> OptimizerState:
    return dataclasses.replace(state, exp_avg=state.exp_avg_sq, exp_avg_sq=state.exp_avg)


def count_one_more(state: OptimizerState) -> OptimizerState:
    return dataclasses.replace(state, step=state.step + 1)


def exchange_gates(state: OptimizerState) -> OptimizerState:
    other = {"Wr": "Wz", "Wz": "Wr"}
    moments = {
        name: state.exp_avg[re.sub("W[rz]", lambda gate: other[gate[0]], name)]
        for name in state.exp_avg
    }
    return dataclasses.replace(state, exp_avg=moments)


def forget(state: OptimizerState) -> OptimizerState:
    zeros = {name: np.zeros_like(array) for name, array in state.exp_avg.items()}
    return dataclasses.replace(state, exp_avg=zeros, exp_avg_sq=zeros)


@pytest.mark.parametrize("fault", [exchange_moments, count_one_more, exchange_gates, forget])
def test_a_fault_in_the_handover_shows(fault: Callable[[OptimizerState], OptimizerState]):
    start = beginning("adamw-cosine-clip")
    before = train_in_jax(start)
    handed_over = before._replace(optimizer=fault(before.optimizer))
    # The fault's own step count would show at once; what it leads to must show as well.
    first = handed_over.optimizer.step
    after = train_in_torch(handed_over, 2 * PART - first)
    assert not distance(after, train_in_jax(before)) <= 1e6 * FLOAT64


def test_pytorch_goes_on_from_its_own_state_dicts_to_the_bit():
    training = beginning("adamw-cosine-clip", "float32")
    whole = to_trainer(training.arrays, training.optimizer, training.preset)
    steps_in_torch(whole)
    saved = copy.deepcopy(whole.state_dict())
    weights = copy.deepcopy(whole.model.state_dict())
    steps_in_torch(whole)

    arrays = {name: value.numpy() for name, value in weights.items()}
    half = to_trainer(arrays, training.optimizer, training.preset)
    half.load_state_dict(saved)
    assert half.state_dict()["scheduler_state_dict"] == saved["scheduler_state_dict"]
    moments = from_trainer(half, STEPS_PER_EPOCH)
    # What is made of JAX's state is what torch itself has saved.
    made = to_trainer(arrays, moments, training.preset).state_dict()
    assert str(made) == str(saved)
    assert made["scheduler_state_dict"]["last_epoch"] == PART // STEPS_PER_EPOCH
    steps_in_torch(half)
    for name, value in half.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name])


class Stop:
    """Stops a training at an epoch's end."""

    def __init__(self, epoch: int | None = None):
        self.at_epoch = epoch

    def steps(self, snapshot: Snapshot) -> None:
        pass

    def epoch(self, lines: Sequence[EpochMetrics]) -> None:
        if lines[0].epoch == self.at_epoch:
            raise KeyboardInterrupt


TINY = dict(embedding_dim=4, hidden_dim=8, batch_size=4, seq_len=16, epochs=4)
RUNS = {
    "text": override(PRESETS["shakespeare", "alpha"], steps_per_epoch=3, **TINY),
    "words": override(
        PRESETS["names", "alpha"],
        steps_per_epoch=None,
        dropout=0.2,
        start_token=True,
        dedupe=True,
        **TINY,
    ),
}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("corpora")
    rng = np.random.default_rng(0)
    (folder / "text.txt").write_text("".join(rng.choice([*"abcde \n"], 2000)))
    # The last batch is not full.
    words = ["".join(rng.choice([*"abcde"], length)) for length in rng.integers(2, 9, 22)]
    (folder / "words.txt").write_text("\n".join(words))
    return {name: str(folder / f"{name}.txt") for name in RUNS}


def train(preset: Preset, corpus: str, folder: Path, stop: int | None = None) -> Run:
    run, split = lifecycle.begin(preset, corpus, folder)
    if stop is None:
        fit(run, split, Stop())
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(run, split, Stop(stop))
    return run


def script(name: str, **arguments: Any) -> None:
    """Calls a command as its flags would."""
    module = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / f"{name}.py"))
    module["main"](module["Arguments"](**arguments))


def lines(run: Run) -> list[EpochMetrics]:
    times = dict(chars_per_s=0.0, train_seconds=0.0, eval_seconds=0.0)
    return [dataclasses.replace(line, **times) for line in run.metrics()]


@pytest.fixture(scope="module")
def wholes(corpora: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Uninterrupted runs; only to be read."""
    folder = tmp_path_factory.mktemp("wholes")
    return {kind: train(RUNS[kind], corpora[kind], folder / kind) for kind in RUNS}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_goes_through_a_pth_and_ends_as_the_uninterrupted_one(
    kind: str, corpora: dict[str, str], wholes: dict[str, Run], tmp_path: Path
):
    whole = wholes[kind]
    half = train(RUNS[kind], corpora[kind], tmp_path / "half", stop=2)
    script("convert", source=half.folder, destination=tmp_path / "half.pth")
    script("convert", source=tmp_path / "half.pth", destination=tmp_path / "back")
    back = Run.open(tmp_path / "back")
    steps = whole.metrics()[-1].step // 4
    assert (back.preset, back.vocabulary) == (whole.preset, whole.vocabulary)
    assert (back.imported_step, back.imported_steps_per_epoch) == (2 * steps, steps)
    script("convert", source=back.folder, destination=tmp_path / "again.pth")
    first, again = (torch.load(tmp_path / name) for name in ("half.pth", "again.pth"))
    places = ("step", "epoch", "steps_per_epoch")
    assert [again[name] for name in places] == [first[name] for name in places]
    # Stopped and resumed once more on the way.
    with pytest.raises(KeyboardInterrupt):
        fit(*lifecycle.resume(back.folder, corpora[kind]), Stop(3))
    assert [line.epoch for line in back.metrics()] == [3]
    fit(*lifecycle.resume(back.folder, corpora[kind]), Stop())
    draw_losses(back)
    assert lines(back) == lines(whole)[2:]
    one, other = (conversion.read(run.folder) for run in (back, whole))
    assert one.optimizer is not None
    assert other.optimizer is not None
    assert one.optimizer.steps_per_epoch == other.optimizer.steps_per_epoch == steps
    assert bits(Training(one.preset, one.arrays, one.optimizer)) == bits(
        Training(other.preset, other.arrays, other.optimizer)
    )


def test_a_run_of_carried_states_goes_through_a_folder_and_through_no_pth(
    corpora: dict[str, str], tmp_path: Path
):
    preset = override(RUNS["text"], carry_state=True)
    whole = train(preset, corpora["text"], tmp_path / "whole")
    half = train(preset, corpora["text"], tmp_path / "half", stop=2)
    script("convert", source=half.folder, destination=tmp_path / "back")
    back = Run.open(tmp_path / "back")
    fit(*lifecycle.resume(back.folder, corpora["text"]), Stop())
    assert lines(back) == lines(whole)[2:]
    model = conversion.read(half.folder)
    with pytest.raises(InputError, match="knows no carry_state True"):
        conversion.write(model, tmp_path / "half.pth")


def test_a_run_that_is_imported_at_its_end_has_nothing_left_to_do(
    corpora: dict[str, str],
    wholes: dict[str, Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(samples, "write_samples", lambda run: None)  # Slow, and tested elsewhere.
    script("convert", source=wholes["text"].folder, destination=tmp_path / "end.pth")
    script("convert", source=tmp_path / "end.pth", destination=tmp_path / "end")
    script("train", resume=tmp_path / "end", corpus=corpora["text"])
    done = capsys.readouterr().out.splitlines()[-1]
    assert done.startswith("done: nothing was left to train after the imported weights")


def example(rule: str = "adamw-cosine-clip", step: int = PART) -> TrainedModel:
    """A model in training, without the trouble of training it."""
    training = with_moments(beginning(rule, "float32"), step)
    dataset = training.preset.data.dataset
    return TrainedModel(
        arrays=training.arrays,
        preset=training.preset,
        vocabulary=dataclasses.replace(
            published_vocabulary(dataset), tokens=published_vocabulary(dataset).tokens[:7]
        ),
        corpus=CorpusRecord.unknown("a test"),
        optimizer=training.optimizer,
    )


def save(model: TrainedModel, path: Path) -> dict[str, Any]:
    """Writes a file and returns what is in it, without the hash: it is going to be changed."""
    conversion.write(model, path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["sha256"]
    return checkpoint


@pytest.mark.parametrize("rule", RULES)
def test_an_exported_checkpoint_trains_on_in_plain_torch(rule: str, tmp_path: Path):
    model = example(rule)
    assert model.optimizer is not None
    checkpoint = save(model, tmp_path / "x.pth")
    config = model.preset.train
    twin = build_model(model.preset.model, model.preset.data.dataset).eval()
    twin.load_state_dict(checkpoint["state_dict"], strict=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(twin.parameters())
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    schedule = None
    if config.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
        schedule.load_state_dict(checkpoint["scheduler_state_dict"])
    for step in range(PART, 2 * PART):
        inputs, targets = torch.from_numpy(batch(step)).long()
        optimizer.zero_grad()
        logits, _ = twin(inputs)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), config.clip)
        optimizer.step()
        if schedule and (step + 1) % STEPS_PER_EPOCH == 0:
            schedule.step()
    after = train_in_torch(Training(model.preset, model.arrays, model.optimizer))
    for name, value in twin.state_dict().items():
        assert value.numpy().tobytes() == after.arrays[name].tobytes()


def test_an_optimizers_state_is_in_the_order_of_the_state_dict(tmp_path: Path):
    model = example("adamw")
    assert model.optimizer is not None
    checkpoint = save(model, tmp_path / "x.pth")
    (group,) = checkpoint["optimizer_state_dict"]["param_groups"]
    state = checkpoint["optimizer_state_dict"]["state"]
    names = group.pop("param_names")
    torch.save(checkpoint, tmp_path / "without names.pth")
    # As of a class that registers its parameters backwards.
    last = len(names) - 1
    checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in names[::-1]}
    checkpoint["optimizer_state_dict"]["state"] = {last - n: slot for n, slot in state.items()}
    torch.save(checkpoint, tmp_path / "backwards.pth")
    group["param_names"] = names[::-1]
    torch.save(checkpoint, tmp_path / "backwards with names.pth")
    for path in ("without names.pth", "backwards.pth", "backwards with names.pth"):
        read = conversion.read(tmp_path / path).optimizer
        assert read is not None
        expected = Training(model.preset, model.arrays, model.optimizer)
        assert bits(Training(model.preset, model.arrays, read)) == bits(expected)
    # Those of a file that such a class was loaded from, which its optimiser keeps.
    group["param_names"] = names
    torch.save(checkpoint, tmp_path / "names of another order.pth")
    with pytest.raises(InputError, match="in their order, so whose moments are whose is not known"):
        conversion.read(tmp_path / "names of another order.pth")


def test_an_optimizer_before_its_first_step_is_none(tmp_path: Path):
    checkpoint = save(example(), tmp_path / "x.pth")
    preset = example().preset
    fresh = ReferenceTrainer(build_model(preset.model, "shakespeare"), preset, 2)
    torch.save(checkpoint | fresh.state_dict() | {"epoch": 0}, tmp_path / "fresh.pth")
    assert conversion.read(tmp_path / "fresh.pth").optimizer is None


def first_slot(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint["optimizer_state_dict"]["state"][0]


def group_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint["optimizer_state_dict"]["param_groups"][0]


def in_slot(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def damage(checkpoint: dict[str, Any]) -> None:
        slot = first_slot(checkpoint)
        slot[name] = change(slot[name])

    return damage


def in_group(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: group_of(checkpoint).update(values)


def in_schedule(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["scheduler_state_dict"].update(values)


def one_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[1, 1] = math.nan
    return tensor


DAMAGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c.update(optimizer_state_dict=[1]), "must have the keys state and param_groups"),
    (lambda c: c.pop("optimizer_state_dict"), "must have the keys state and param_groups"),
    (lambda c: c["optimizer_state_dict"].update(more=1), "and no others"),
    (lambda c: c["optimizer_state_dict"]["param_groups"].append({}), "must be one group"),
    (lambda c: group_of(c)["params"].pop(), "must have the parameters 0 to 24"),
    (lambda c: group_of(c).pop("params"), "must have the parameters 0 to 24"),
    (lambda c: group_of(c)["params"].append(torch.ones(2)), "must have the parameters 0 to 24"),
    (lambda c: group_of(c)["param_names"].reverse(), "whose moments are whose is not known"),
    (in_group(param_names=["x"] * 25), "param_names are not those of the state_dict"),
    (lambda c: c["optimizer_state_dict"]["state"].pop(3), "must be of the parameters 0 to 24"),
    (lambda c: first_slot(c).pop("exp_avg"), "embedding.weight must have the keys step"),
    (lambda c: first_slot(c).update(max_exp_avg_sq=1), "step, exp_avg and exp_avg_sq, and no"),
    (in_slot("exp_avg", lambda t: 1.0), "exp_avg of embedding.weight must be a tensor, got 1.0"),
    (in_slot("exp_avg", lambda t: t.T), r"has shape \(3, 7\), expected \(7, 3\)"),
    (in_slot("exp_avg", torch.Tensor.double), "is float64, its weights are float32"),
    (in_slot("exp_avg", torch.Tensor.bfloat16), "is torch.bfloat16, expected float32 or float64"),
    (in_slot("exp_avg_sq", one_nan), "exp_avg_sq of embedding.weight has 1 values that are NaN"),
    (in_slot("exp_avg_sq", lambda t: -t), "has 21 values below 0"),
    (in_slot("step", lambda t: t + 1), r"must have done one number of steps, got \[4, 5\]"),
    (in_slot("step", lambda t: t + 0.5), "must be a whole number from 0 to 16777216"),
    (in_slot("step", lambda t: -t), "must be a whole number from 0"),
    (in_slot("step", lambda t: t * math.nan), "must be a whole number from 0"),
    (in_slot("step", lambda t: "four"), "must be a whole number from 0"),
    (lambda c: c.update(step=5), "the file says step 5, its optimizer_state_dict 4"),
    (lambda c: c.update(epoch=3), "the file says epoch 3, expected 2 after 4 steps of 2 an epoch"),
    (lambda c: c.update(steps_per_epoch=4), "the file says steps_per_epoch 4, expected 2"),
    (in_group(betas=(0.9, 0.99)), r"betas is \(0.9, 0.99\), expected \(0.9, 0.999\)"),
    (in_group(betas=torch.ones(2)), r"betas is a tensor of shape \(2,\)"),
    (in_group(eps=1e-7), "eps is 1e-07, expected 1e-08 by the recipe"),
    (in_group(amsgrad=True, maximize=True), "amsgrad is True, expected False .* maximize is True"),
    (in_group(weight_decay=0.0), "weight_decay is 0.0, expected 0.01"),
    (in_group(decoupled_weight_decay=False), "decoupled_weight_decay is False, expected True"),
    (in_group(initial_lr=1e-3), "initial_lr is 0.001, expected 0.002"),
    (in_group(lr=1e-3), r"lr is 0.001, expected 0.0015"),
    (in_group(lr=1.5e-3 * (1 + 1e-6)), r"lr is 0.0015000015.*, expected 0.0015"),
    (lambda c: group_of(c).pop("lr"), "it has no lr"),
    (lambda c: c.pop("scheduler_state_dict"), "has no scheduler_state_dict, the recipe has a cos"),
    (in_schedule(last_epoch=1), "last_epoch is 1, expected 2"),
    (in_schedule(eta_min=1e-4), "eta_min is 0.0001, expected 0"),
    (in_schedule(T_max=7, base_lrs=[1.0]), r"T_max is 7, expected 6 .* base_lrs is \[1.0\]"),
    (lambda c: c.update(astra="{"), "metadata is not valid JSON"),
    (lambda c: c.update(astra="[]"), "metadata must be an object"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_a_damaged_optimizer_is_refused_and_can_be_left_out(
    damage: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
):
    model = example()
    checkpoint = save(model, tmp_path / "x.pth")
    damage(checkpoint)
    torch.save(checkpoint, tmp_path / "y.pth")
    with pytest.raises(InputError, match=message) as error:
        conversion.read(tmp_path / "y.pth")
    assert "\n" not in str(error.value)
    if "astra" not in message and "metadata" not in message:
        alone = conversion.read(tmp_path / "y.pth", weights_only=True)
        assert alone.optimizer is None
        assert {n: a.tobytes() for n, a in alone.arrays.items()} == {
            n: a.tobytes() for n, a in model.arrays.items()
        }


def test_a_schedule_is_refused_where_the_rate_is_constant(tmp_path: Path):
    checkpoint = save(example("adam"), tmp_path / "x.pth")
    torch.save(checkpoint | {"scheduler_state_dict": {}}, tmp_path / "y.pth")
    with pytest.raises(InputError, match="has a schedule, the recipe's rate is constant"):
        conversion.read(tmp_path / "y.pth")


def test_without_the_length_of_an_epoch_only_a_constant_rate_goes_on(tmp_path: Path):
    for rule in ("adam", "adamw-cosine-clip"):
        model = example(rule)
        assert model.optimizer is not None
        model = dataclasses.replace(
            model,
            preset=override(model.preset, steps_per_epoch=None),
            optimizer=dataclasses.replace(model.optimizer, steps_per_epoch=None),
        )
        if rule == "adam":
            assert "epoch" not in save(model, tmp_path / "x.pth")
            assert conversion.read(tmp_path / "x.pth").optimizer is not None
        else:
            with pytest.raises(InputError, match=r"how many steps an epoch has.*--weights-only"):
                conversion.write(model, tmp_path / "y.pth")


def test_weights_only_is_the_notebooks_file_as_before(tmp_path: Path):
    conversion.write(example(), tmp_path / "x.pth")
    script("convert", source=tmp_path / "x.pth", destination=tmp_path / "y.pth", weights_only=True)
    small, large = (torch.load(tmp_path / name, weights_only=True) for name in ("y.pth", "x.pth"))
    own = {"optimizer_state_dict", "scheduler_state_dict", "step", "epoch", "steps_per_epoch"}
    assert set(large) - set(small) == own | {"astra", "sha256"}
    versioned, _ = notebook_files.write(example(), tmp_path / "notebooks")
    assert set(torch.load(versioned, weights_only=True)) == set(small)


def test_training_goes_on_from_an_epochs_end_only(corpora: dict[str, str], tmp_path: Path):
    run = train(RUNS["text"], corpora["text"], tmp_path / "run", stop=1)
    model = conversion.read(run.folder)
    assert model.optimizer is not None
    later = dataclasses.replace(model.optimizer, step=5)
    conversion.write(dataclasses.replace(model, optimizer=later), tmp_path / "middle")
    with pytest.raises(InputError, match="imported at step 5, 2 of 3 steps into epoch 2"):
        fit(*lifecycle.resume(tmp_path / "middle", corpora["text"]), Stop())


def test_who_converts_inside_an_epoch_is_told(
    corpora: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = train(RUNS["text"], corpora["text"], tmp_path / "run", stop=1)
    script("convert", source=run.folder, destination=tmp_path / "end.pth")
    model = conversion.read(run.folder)
    assert model.optimizer is not None
    later = dataclasses.replace(model.optimizer, step=5)
    conversion.write(dataclasses.replace(model, optimizer=later), tmp_path / "middle")
    assert capsys.readouterr().err == ""
    script("convert", source=tmp_path / "middle", destination=tmp_path / "middle.pth")
    script("convert", source=tmp_path / "middle.pth", destination=tmp_path / "back")
    script("convert", source=tmp_path / "middle.pth", destination=tmp_path / "x.safetensors")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all("its training stands at 2 of 3 steps of epoch 2: " in line for line in told)
    unknown = dataclasses.replace(later, steps_per_epoch=None)  # As of words, in their first epoch.
    (caveat,) = conversion.caveats(dataclasses.replace(model, optimizer=unknown), Path("x.pth"))
    assert "stands at step 5, of epochs whose length no file says: " in caveat


def test_training_does_not_go_on_with_epochs_of_another_length(
    corpora: dict[str, str], tmp_path: Path
):
    run = train(RUNS["words"], corpora["words"], tmp_path / "run", stop=1)
    model = dataclasses.replace(conversion.read(run.folder), corpus=CorpusRecord.unknown("x"))
    conversion.write(model, tmp_path / "back")
    few = tmp_path / "few.txt"  # One step an epoch, so any number of steps is whole epochs.
    few.write_text("abcde\nbcdea\ncdeab\ndeabc\neabcd\n")
    steps = run.metrics()[-1].step
    with pytest.raises(InputError, match=rf"trained {steps} steps an epoch before.* corpus has 1:"):
        fit(*lifecycle.resume(tmp_path / "back", str(few)), Stop())
    fit(*lifecycle.resume(tmp_path / "back", corpora["words"]), Stop())  # It is bound to none.
    assert lifecycle.resume(tmp_path / "back")[0].corpus.sha256 == run.corpus.sha256
