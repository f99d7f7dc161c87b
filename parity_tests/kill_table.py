"""Every fault, put into the product and looked for at every level: the kill table.

python -m parity_tests.kill_table results/parity/kill-table.json
"""

import dataclasses
import functools
import json
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tyro.conf import Positional

from astra_jax import cli
from astra_jax.data.splits import split_corpus
from astra_jax.machine.environment import describe_environment
from astra_jax.presets import PRESETS, override
from astra_jax.sampling.strategies import Greedy, Temperature, TopK
from astra_jax.storage.atomic import write_text
from astra_jax.training.trainer import Keys
from astra_torch.parity import Case, ParityReport, check, training_case
from astra_torch.parity.cases import random_arrays
from astra_torch.parity.checks import DTYPES
from astra_torch.parity.onnx_side import check_onnx
from astra_torch.parity.quantities import LEVELS, ParityDtype
from astra_torch.parity.texts import TextReport, check_texts
from parity_tests.faults import FAULTS, Fault, FaultLevel, Study

STEPS = 7
CHARACTERS = 400
STRATEGIES = {
    "greedy": Greedy(),
    "temperature 0.7": Temperature(0.7),
    "top-k 5, temperature 1.3": TopK(5, 1.3),
}
SMALL = dict(embedding_dim=9, hidden_dim=12, batch_size=5, seq_len=7)


@dataclass(frozen=True, kw_only=True)
class Found:
    """How a fault was found.

    Attributes:
        check: the comparison that was farthest out of bound.
        step: of the training at which it was.
        factor: how many times its bound; infinite where a text differs, or a bound is 0.
        level: at which the fault was found first.
    """

    check: str
    step: int
    factor: float
    level: str = ""


def make_case(study: Study) -> Case:
    """Returns a tiny training of one study's kind, made anew: a fault may be in its making.

    Random weights, so that no bias is zero. The cosine falls every third step, some gradients
    are longer than the clip's limit and some are not, every epoch of words ends with a partial
    batch.
    """
    rng = np.random.default_rng(0)
    letters = np.array(list(string.ascii_lowercase))
    if study == "astra":
        text = "".join(rng.choice(letters, 400))
        preset = override(
            PRESETS["shakespeare", "beta"], epochs=4, steps_per_epoch=3, clip=0.72, **SMALL
        )
    else:
        text = "\n".join("".join(rng.choice(letters, rng.integers(2, 7))) for _ in range(29))
        preset = override(PRESETS["names", "gamma"], **SMALL)
    split = split_corpus(text, preset.data, Keys.from_seed(0).split)
    preset = override(preset, vocab_size=len(split.vocabulary))
    return training_case(preset, split, arrays=random_arrays(preset))


@functools.cache
def _same_case(study: Study) -> Case:
    case = make_case(study)
    return dataclasses.replace(
        case, draw=functools.cache(case.draw), draw_twin=functools.cache(case.draw_twin)
    )


def compare_at(
    level: FaultLevel,
    study: Study,
    *,
    dtypes: Sequence[ParityDtype] = DTYPES,
    new_data: bool = False,
) -> dict[ParityDtype, Found | None]:
    """Returns the comparison that is farthest out of bound, by type; None where all agrees."""
    jax.clear_caches()  # Equal trainers share what is compiled: a fault would stay, or be missed.
    case = make_case(study) if new_data else _same_case(study)
    if level == "texts":
        by_strategy = (
            _of_texts(check_texts(case, "float64", CHARACTERS, {name: strategy}))
            for name, strategy in STRATEGIES.items()
        )
        return {"float64": next(filter(None, by_strategy), None)}
    if level == "onnx":
        return {"float32": _of_numbers(check_onnx(case))}
    steps = STEPS if level == "training" else 1
    reports = check(case, level, dtypes=dtypes, num_steps=steps)
    return {dtype: _of_numbers(report) for dtype, report in reports.items()}


def _of_numbers(report: ParityReport) -> Found | None:
    if report.ok:
        return None
    assert not report.gaps, report.gaps  # A fault is to be found by a bound, not by its absence.
    worst = report.worst
    return Found(check=str(worst.name), step=worst.step, factor=worst.use)


def _of_texts(reports: Sequence[TextReport]) -> Found | None:
    differing = [report for report in reports if not report.ok]
    if not differing:
        return None
    one = differing[0]
    state = "stateful" if one.stateful else "stateless"
    return Found(check=f"{one.strategy}, {state}", step=1, factor=math.inf)


def look_for(fault: Fault) -> dict[ParityDtype, Found]:
    """Puts a fault in, and returns where each type finds it first."""
    found: dict[ParityDtype, Found] = {}
    with pytest.MonkeyPatch.context() as patch:
        fault.inject(patch)
        for level in _levels(fault.level):
            result = compare_at(level, fault.study, new_data=fault.in_data)
            for dtype, one in result.items():
                if one and dtype not in found:
                    found[dtype] = dataclasses.replace(one, level=level)
            if len(found) == len(DTYPES):
                break
    jax.clear_caches()
    return found


def _levels(level: FaultLevel) -> tuple[FaultLevel, ...]:
    """Returns the levels to look at, in order: those that compare numbers, or a fault's own."""
    return tuple(LEVELS) if level in LEVELS else (level,)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where the table goes."""

    path: Positional[Path]
    """A JSON file for it, replaced if it is there."""


def main(arguments: Arguments) -> int:
    """Looks for every fault, writes what found it, and returns 1 if one was not found."""
    rows, missed = [], 0
    for fault in FAULTS:
        found = look_for(fault)
        missed += not found
        rows.append(
            {"fault": fault.name, "study": fault.study}
            | {dtype: _row(found.get(dtype)) for dtype in DTYPES}
        )
        print(json.dumps(rows[-1]), flush=True)
    clean = {
        f"{study} {level}": not any(compare_at(level, study).values())
        for study in ("astra", "names")
        for level in (*LEVELS, "texts", "onnx")
    }
    table = {
        "ok": not missed and all(clean.values()),
        "environment": describe_environment(("torch", "onnx", "onnxruntime")),
        "without a fault": clean,
        "faults": rows,
    }
    write_text(arguments.path, json.dumps(table, indent=1) + "\n")
    print(f"{len(rows) - missed} of {len(rows)} faults found, written to {arguments.path}")
    return 0 if table["ok"] else 1


def _row(found: Found | None) -> dict[str, Any] | None:
    if found is None:
        return None
    values = dataclasses.asdict(found)
    factor = found.factor
    return values | {"factor": "inf" if math.isinf(factor) else float(f"{factor:.3g}")}


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
