"""The optimizer's state in PyTorch: real torch objects, and a file's state dicts, read strictly."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from astra_jax.config import Preset, TrainConfig
from astra_jax.errors import InputError
from astra_jax.optimizers import BETA_1, BETA_2, EPSILON
from astra_torch.files import WeightFile, to_numpy
from astra_torch.models import load_model
from astra_torch.training import ReferenceTrainer, require_studies_rule
from astra_torch.training_state import OptimizerState
from astra_torch.weights import Arrays

MOMENTS = ("exp_avg", "exp_avg_sq")
"""torch's names of Adam's running means."""

MAX_STEP = 2**24
"""torch counts steps in a float32, which has every whole number up to here."""

RATE_TOLERANCE = 1e-9
"""Of learning rates, relative to the first: torch multiplies them from epoch to epoch, and the
roundings of some hundred epochs stay far below; a rate of another epoch or recipe does not."""


def to_trainer(arrays: Arrays, optimizer: OptimizerState, preset: Preset) -> ReferenceTrainer:
    """Returns PyTorch's training at the same point, in the weights' own type.

    Raises:
        InputError: the learning rate falls by the epoch, and the length of one is not known; or
            neither study trains so.
    """
    require_studies_rule(preset)
    if preset.train.schedule == "cosine" and optimizer.steps_per_epoch is None:
        raise InputError(
            "the position in the cosine schedule is not known, since nothing says how many steps "
            "an epoch has: resume the run for an epoch first, or pass --weights-only"
        )
    model = load_model(preset.model, preset.data.dataset, arrays)
    trainer = ReferenceTrainer(model, preset, optimizer.steps_per_epoch or 1)
    if trainer.schedule is not None:
        # Without gradients nothing moves, but torch warns of a schedule that steps first.
        trainer.optimizer.step()
        for _ in range(optimizer.step // trainer.steps_per_epoch):
            trainer.schedule.step()
    _set_moments(trainer, optimizer)
    return trainer


def _set_moments(trainer: ReferenceTrainer, optimizer: OptimizerState) -> None:
    moments = {
        index: {
            "step": torch.tensor(float(optimizer.step)),
            "exp_avg": torch.tensor(optimizer.exp_avg[name]),
            "exp_avg_sq": torch.tensor(optimizer.exp_avg_sq[name]),
        }
        for index, (name, _) in enumerate(trainer.model.named_parameters())
    }
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    trainer.steps_done = optimizer.step


def from_trainer(trainer: ReferenceTrainer, steps_per_epoch: int | None) -> OptimizerState:
    """Returns the optimizer's part of a PyTorch training that has done at least one step."""
    moments = {
        name: trainer.optimizer.state[parameter]
        for name, parameter in trainer.model.named_parameters()
    }
    return OptimizerState(
        step=trainer.steps_done,
        exp_avg={name: slot["exp_avg"].numpy().copy() for name, slot in moments.items()},
        exp_avg_sq={name: slot["exp_avg_sq"].numpy().copy() for name, slot in moments.items()},
        steps_per_epoch=steps_per_epoch,
    )


def from_file(weights: WeightFile, preset: Preset, source: str) -> OptimizerState | None:
    """Reads the optimizer's state that a .pth holds; None where it is of before the first step.

    Args:
        weights: the file, whose weights have been found whole.
        preset: the recipe that training is to go on by.
        source: where the file is, for messages.

    Raises:
        InputError: something is missing, not expected, damaged, or of another recipe. The
            message names what.
    """
    require_studies_rule(preset)

    def require(faults: list[str]) -> None:
        if faults:
            more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
            raise InputError(
                f"{source}: training cannot go on from its optimiser's state: "
                f"{'; '.join(faults[:4])}{more}; to take the weights without it pass "
                "--weights-only"
            )

    # torch knows parameters by their places, which are those of the state dict: of a class that
    # registers its gates in another order, others than ours.
    names = list(weights.arrays)
    saved = weights.training.get("optimizer_state_dict")
    require(_form_faults(saved, names))
    assert saved is not None
    (group,) = saved["param_groups"]
    slots = {name: saved["state"].get(index) for index, name in enumerate(names)}
    require(_rule_faults(group, preset.train))
    if saved["state"]:
        require(_moment_faults(slots, weights.arrays))
    steps = {_whole(slot["step"]) for slot in slots.values() if slot}
    require(_step_faults(steps, weights.metadata))
    step = steps.pop() if steps else 0
    assert step is not None
    steps_per_epoch = preset.train.steps_per_epoch or weights.metadata.get("steps_per_epoch")
    require(_epoch_faults(step, steps_per_epoch, weights.metadata))
    schedule = weights.training.get("scheduler_state_dict")
    require(_schedule_faults(step, steps_per_epoch, schedule, group["lr"], preset.train))
    if step == 0:
        return None
    mean, square = (
        {name: to_numpy(name, slots[name][moment]) for name in names} for moment in MOMENTS
    )
    return OptimizerState(step, mean, square, steps_per_epoch)


def _form_faults(saved: Any, names: list[str]) -> list[str]:
    """Returns where an optimizer's state dict is not of the form that torch writes for a model."""
    if not isinstance(saved, dict) or set(saved) != {"state", "param_groups"}:
        return ["its optimizer_state_dict must have the keys state and param_groups, and no others"]
    state, groups = saved["state"], saved["param_groups"]
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], dict):
        return ["its param_groups must be one group, as of an optimizer of model.parameters()"]
    numbers, named = groups[0].get("params"), groups[0].get("param_names", names)
    # Each is looked at before they are compared: a tensor among them cannot be.
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        numbers = []
    if numbers != list(range(len(names))):
        return [f"its group must have the parameters 0 to {len(names) - 1}"]
    if named != names:
        return [
            "its param_names are not those of the state_dict in their order, so whose moments are "
            "whose is not known"
        ]
    if not isinstance(state, dict) or (state and set(state) != set(numbers)):
        return [f"its state must be of the parameters 0 to {len(names) - 1}, or empty"]
    keys = {"step", *MOMENTS}
    return [
        f"the state of {name} must have the keys step, exp_avg and exp_avg_sq, and no others"
        for name, number in zip(names, numbers, strict=True)
        if state and (not isinstance(state[number], dict) or set(state[number]) != keys)
    ]


def _rule_faults(group: dict[str, Any], config: TrainConfig) -> list[str]:
    """Returns where a parameter group is of another update rule than the recipe's."""
    recipe: dict[str, Any] = {
        "betas": (BETA_1, BETA_2),
        "eps": EPSILON,
        "weight_decay": config.weight_decay,
        "amsgrad": False,
        "maximize": False,
    }
    recipe["lr" if config.schedule == "constant" else "initial_lr"] = config.learning_rate
    # Without decay there is no telling Adam from AdamW; before torch 2.7 nothing told them apart.
    if config.weight_decay and "decoupled_weight_decay" in group:
        recipe["decoupled_weight_decay"] = True
    return _differences(group, recipe) + ([] if "lr" in group else ["it has no lr"])


def _moment_faults(slots: Mapping[str, Any], arrays: Arrays) -> list[str]:
    """Returns what is wrong with the running means, if anything is."""
    faults = []
    for name, slot in slots.items():
        for moment in MOMENTS:
            label, weight = f"{moment} of {name}", arrays[name]
            if not isinstance(slot[moment], torch.Tensor):
                faults.append(f"{label} must be a tensor, got {_describe(slot[moment])}")
                continue
            try:
                array = to_numpy(label, slot[moment])
            except InputError as error:
                faults.append(str(error))
                continue
            if array.shape != weight.shape:
                faults.append(f"{label} has shape {array.shape}, expected {weight.shape}")
            elif array.dtype != weight.dtype:
                faults.append(f"{label} is {array.dtype}, its weights are {weight.dtype}")
            elif not np.isfinite(array).all():
                count = np.sum(~np.isfinite(array))
                faults.append(f"{label} has {count} values that are NaN or infinite")
            elif moment == "exp_avg_sq" and (array < 0).any():
                faults.append(f"{label} has {np.sum(array < 0)} values below 0: means of squares")
    return faults


def _step_faults(steps: set[int | None], metadata: dict[str, Any]) -> list[str]:
    """Returns what is wrong with the numbers of steps that parameters and file say were done."""
    if None in steps:
        return [f"a parameter's step must be a whole number from 0 to {MAX_STEP}"]
    if len(steps) > 1:
        return [f"its parameters must have done one number of steps, got {sorted(steps, key=str)}"]
    (step,) = steps or {0}
    if metadata.get("step", step) != step:
        return [f"the file says step {metadata['step']!r}, its optimizer_state_dict {step}"]
    return []


def _epoch_faults(step: int, steps_per_epoch: Any, metadata: dict[str, Any]) -> list[str]:
    """Returns where what the file says of epochs contradicts the steps done or the recipe."""
    if steps_per_epoch is None:
        return []
    if type(steps_per_epoch) is not int or steps_per_epoch < 1:
        return [f"steps_per_epoch must be a whole number above 0, got {steps_per_epoch!r}"]
    said = {name: metadata[name] for name in ("epoch", "steps_per_epoch") if name in metadata}
    true = {"epoch": step // steps_per_epoch, "steps_per_epoch": steps_per_epoch}
    return [
        f"the file says {name} {value!r}, expected {true[name]} after {step} steps of "
        f"{steps_per_epoch} an epoch"
        for name, value in said.items()
        if value != true[name]
    ]


def _schedule_faults(
    step: int, steps_per_epoch: int | None, schedule: Any, rate: Any, config: TrainConfig
) -> list[str]:
    """Returns where the schedule is not the recipe's, or not at the place that the steps say."""
    if config.schedule == "constant":
        return [] if schedule is None else ["it has a schedule, the recipe's rate is constant"]
    if steps_per_epoch is None:
        return ["nothing says how many steps an epoch has: give the file a steps_per_epoch"]
    if not isinstance(schedule, dict):
        return ["it has no scheduler_state_dict, the recipe has a cosine schedule"]
    epoch = step // steps_per_epoch
    recipe = {
        "T_max": config.epochs,
        "eta_min": 0.0,
        "base_lrs": [config.learning_rate],
        "last_epoch": epoch,
    }
    closed_form = config.learning_rate * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    slack = RATE_TOLERANCE * config.learning_rate
    return _differences(schedule, recipe) + _differences({"lr": rate}, {"lr": closed_form}, slack)


def _differences(
    given: Mapping[str, Any], recipe: Mapping[str, Any], slack: float = 0.0
) -> list[str]:
    """Returns which values are not those of the recipe."""
    return [
        f"{name} is {_describe(given.get(name))}, expected {value!r} by the recipe"
        for name, value in recipe.items()
        if not _equal(given.get(name), value, slack)
    ]


def _equal(given: Any, value: Any, slack: float) -> bool:
    if isinstance(value, tuple | list):
        if not isinstance(given, tuple | list) or len(given) != len(value):
            return False
        return all(_equal(*pair, slack) for pair in zip(given, value, strict=True))
    if isinstance(value, bool):
        return given is value
    return isinstance(given, int | float) and abs(given - value) <= slack


def _whole(step: Any) -> int | None:
    """Returns a step count as torch keeps it, a tensor, or once kept it, a number."""
    if isinstance(step, torch.Tensor) and step.ndim == 0:
        step = step.item()
    if not isinstance(step, int | float) or not 0 <= step <= MAX_STEP or step != int(step):
        return None
    return int(step)


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "missing" if value is None else repr(value)[:60]
