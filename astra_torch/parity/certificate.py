"""What was compared, on what, and how it came out: for a machine to check and a person to read."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from astra_jax.config import Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.machine.environment import describe_environment
from astra_torch.parity.comparison import Comparison, Drift, ParityReport
from astra_torch.parity.quantities import ParityDtype
from astra_torch.parity.texts import TextReport

FORMAT = 1
DRIFT_POINTS = 200
"""Steps at which a certificate keeps the drift; each has the worst since the one before."""

DRAWN = "drawn from seed"
"""How the source of weights begins that are of no file."""

_PACKAGES = ("torch", "onnx", "onnxruntime")
_SWITCHES = ("XLA_FLAGS", "NNX_GRAPH_MODE", "NNX_GRAPH_UPDATES", "JAX_PLATFORMS")

Reports = Mapping[ParityDtype, ParityReport]
"""Of one level, by type."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The outcome of `scripts/validate.py`.

    Attributes:
        preset: model and recipe.
        corpus: the text of the batches.
        weights: of each level, where its weights are from and their sha256.
        levels: the reports of each level that compares numbers.
        texts: the reports of the samplers.
        notes: what else a reader should know.
    """

    preset: Preset
    corpus: CorpusRecord
    weights: Mapping[str, Mapping[str, str]]
    levels: Mapping[str, Reports]
    texts: tuple[TextReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether something was compared, and all of it agrees."""
        verdicts = [
            bool(reports) and all(report.ok for report in reports.values())
            for reports in self.levels.values()
        ]
        verdicts += [report.ok for report in self.texts]
        return bool(verdicts) and all(verdicts)

    def to_json(self) -> str:
        """Returns everything as JSON text."""
        switches = {name: os.environ[name] for name in _SWITCHES if name in os.environ}
        values = {
            "format": FORMAT,
            "ok": self.ok,
            "preset": self.preset.to_dict(),
            "corpus": dataclasses.replace(self.corpus, path=None).to_dict(),
            "weights": self.weights,
            "environment": describe_environment(_PACKAGES) | {"switches": switches},
            "notes": self.notes,
            "levels": {
                level: {dtype: _report(report) for dtype, report in reports.items()}
                for level, reports in self.levels.items()
            },
            "texts": [dataclasses.asdict(report) | {"ok": report.ok} for report in self.texts],
        }
        return _dump(values) + "\n"


def _report(report: ParityReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "num_steps": report.num_steps,
        "num_values": report.num_values,
        "largest": report.largest,
        "gaps": report.gaps,
        "worst": {name: _comparison(one) for name, one in report.by_quantity().items()},
        "tensors": {str(one.name): _comparison(one) for one in report.comparisons},
        "drift": _thin(report.drift, report.num_steps),
        "reference_drift": _thin(report.reference_drift, report.num_steps),
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "tensor": one.name.tensor,
        "step": one.step,
        "max_abs": one.max_abs,
        "relative": one.relative,
        "ulp": one.ulp,
        "bound": one.bound,
        "ok": one.ok,
    }


def _thin(drift: Drift, num_steps: int) -> dict[str, list[Any]]:
    """Returns at most `DRIFT_POINTS` steps, and for each the worst since the one before."""
    if not drift or num_steps < 2:
        return {}
    # Evenly spaced on the figure's axis, which is logarithmic.
    ends = np.unique(np.geomspace(1, num_steps, DRIFT_POINTS).round().astype(int)).tolist()
    spans = list(zip([0, *ends], ends, strict=False))
    thinned = {
        quantity: [max(values[start:end]) for start, end in spans]
        for quantity, values in drift.items()
    }
    return {"step": ends, **thinned}


def _dump(value: Any, indent: str = "") -> str:
    """Returns JSON with one line for every object or list that holds no other."""
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple) or not any(
        isinstance(part, Mapping | list | tuple) for part in parts
    ):
        return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    inner = indent + " "
    if isinstance(value, Mapping):
        lines = [f"{json.dumps(name)}: {_dump(part, inner)}" for name, part in value.items()]
        begin, end = "{}"
    else:
        lines, (begin, end) = [_dump(part, inner) for part in value], "[]"
    return f"{begin}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{end}"


def _plain(value: Any) -> Any:
    """Returns what JSON has a form for: it has none for infinity, which is a verdict here."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value
