"""Whether the samplers of both frameworks, and of ONNX Runtime, write the same text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from astra_jax.errors import InputError
from astra_jax.model import arithmetic
from astra_jax.sampling.draws import draw_uniforms, sample_key
from astra_jax.sampling.sampler import Sampler
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature, TopK
from astra_torch import tolerances
from astra_torch.models import GRULanguageModel as TorchModel
from astra_torch.models import load_model
from astra_torch.onnx_runtime import continue_greedily
from astra_torch.parity.cases import Case
from astra_torch.parity.onnx_side import onnx_model
from astra_torch.parity.quantities import ParityDtype
from astra_torch.sampling import continue_ids as torch_continue
from astra_torch.weights import find_layout, to_model

PROMPT_LENGTH = 16
TEMPERATURE = 0.8
TOP_K = 10
LEAST_SHARE = 0.5
"""Of the characters asked for that must have been compared: texts end at their first tie."""


@dataclass(frozen=True, kw_only=True)
class Tie:
    """Where two texts part because two characters are equally likely, but for rounding.

    Attributes:
        stream: which text.
        position: of the character, counted from 0.
        gap: between the two characters' logits in float64.
        bound: what rounding can make of such a gap.
    """

    stream: int
    position: int
    gap: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class TextReport:
    """The same texts by several paths.

    Attributes:
        strategy: how characters were picked.
        stateful: whether the state was carried.
        dtype: type of the arithmetic.
        paths: who wrote them; the last is what the others are held against.
        num_wanted: characters that were to be compared.
        num_characters: compared, of each path: up to the first tie of a text.
        num_distinct: different characters among them.
        num_mismatches: texts that part from the reference without a tie.
        ties: texts that part from it at a tie.
    """

    strategy: str
    stateful: bool
    dtype: ParityDtype
    paths: tuple[str, ...]
    num_wanted: int
    num_characters: int
    num_distinct: int
    num_mismatches: int
    ties: tuple[Tie, ...]

    @property
    def ok(self) -> bool:
        """Whether there is enough text, of more than one character, and it is the same."""
        enough = self.num_characters >= max(1.0, LEAST_SHARE * self.num_wanted)
        return enough and self.num_distinct > 1 and self.num_mismatches == 0

    @property
    def _warning(self) -> str:
        return "" if self.num_distinct > 1 else " (too few to tell whether the texts agree)"

    def describe(self) -> str:
        """Returns in one line what was compared and what came of it."""
        return (
            f"{self.strategy}, {'stateful' if self.stateful else 'stateless'}: "
            f"{self.num_characters:,} of {self.num_wanted:,} characters compared, "
            f"{self.num_distinct} distinct{self._warning}, {self.num_mismatches} texts differ, "
            f"{len(self.ties)} end at a tie"
        )


Ids = np.ndarray
"""Of several texts, `[N, S]`."""


def strategies_of(case: Case, dtype: ParityDtype) -> dict[str, Strategy]:
    """Returns the samplers that a certificate looks at.

    In float32, where ONNX Runtime computes as well, only the greedy one: rounding decides draws
    too often.
    """
    strategies: dict[str, Strategy] = {"greedy": Greedy()}
    if dtype == "float64":
        strategies[f"temperature {TEMPERATURE:g}"] = Temperature(TEMPERATURE)
        k = min(TOP_K, case.preset.model.vocab_size)
        strategies[f"top-k {k}"] = TopK(k)
    return strategies


def check_texts(
    case: Case,
    dtype: ParityDtype,
    num_characters: int,
    strategies: Mapping[str, Strategy] | None = None,
) -> tuple[TextReport, ...]:
    """Compares the samplers, with the state carried and without.

    JAX and PyTorch draw from the same uniform numbers; in float32 ONNX Runtime writes too.

    Args:
        case: weights, and batches whose beginnings are the prompts.
        dtype: type of the arithmetic.
        num_characters: that each sampler writes, at least.
        strategies: how characters are picked; None takes those of `strategies_of`.

    Raises:
        InputError: the model's logits are not finite, so that there is nothing to pick by.
    """
    prompts = np.concatenate([case.draw(step).inputs for step in range(2)])[:, :PROMPT_LENGTH]
    num_steps = -(-num_characters // len(prompts))
    writers = _Writers(case, dtype, prompts, num_steps)
    return tuple(
        writers.compare(name, strategy, stateful)
        for name, strategy in (strategies or strategies_of(case, dtype)).items()
        for stateful in (True, False)
    )


class _Writers:
    """The samplers of one model, and the texts that they begin with."""

    def __init__(self, case: Case, dtype: ParityDtype, prompts: Ids, num_steps: int):
        self.case, self.prompts = case, prompts
        self.dtype: ParityDtype = dtype
        self.num_steps, self.key = num_steps, sample_key(case.preset.train.seed)
        self.twin = _twin(case, dtype)
        with torch.inference_mode():
            logits, _ = self.twin(torch.from_numpy(prompts).long())
        if not torch.isfinite(logits).all():
            raise InputError(
                f"the model's {dtype} logits are not finite: there are no texts to compare"
            )

    def compare(self, name: str, strategy: Strategy, stateful: bool) -> TextReport:
        """Writes by every path and holds the texts against PyTorch's."""
        paths: dict[str, Callable[[Strategy, bool], Ids]] = {"JAX": self._jax}
        if self.dtype == "float32":
            paths["ONNX Runtime"] = self._onnx
        reference = self._torch(strategy, stateful)
        agreed = np.full(len(self.prompts), reference.shape[1])
        ties, mismatches = [], 0
        for write in paths.values():
            ours = write(strategy, stateful)
            for stream in np.flatnonzero((ours != reference).any(axis=1)).tolist():
                first = int(np.argmax(ours[stream] != reference[stream]))
                agreed[stream] = min(agreed[stream], first)
                tie = self._tie(stream, first, ours, reference, stateful)
                if isinstance(strategy, Greedy) and tie.gap <= tie.bound:
                    ties.append(tie)
                else:
                    mismatches += 1
        return TextReport(
            strategy=name,
            stateful=stateful,
            dtype=self.dtype,
            paths=(*paths, "PyTorch"),
            num_wanted=reference.size,
            num_characters=int(agreed.sum()),
            num_distinct=len(np.unique(reference)),
            num_mismatches=mismatches,
            ties=tuple(ties),
        )

    def _tie(self, stream: int, place: int, ours: Ids, reference: Ids, stateful: bool) -> Tie:
        """Looks in float64 at the two characters at which a text parts from the reference."""
        read = np.concatenate([self.prompts[stream], reference[stream, :place]])
        tokens = torch.tensor(read if stateful else read[-1:])[None].long()
        with torch.inference_mode():
            exact = _twin(self.case, "float64")(tokens)[0][0, -1]
            rounded = self.twin(tokens)[0][0, -1]
        error = float((rounded - exact).abs().max())
        floor = float(np.finfo(self.dtype).eps) * float(exact.abs().max())
        # Each of the two logits may be off by as much as any logit of that type.
        bound = 2 * tolerances.FLOAT32_FACTOR * max(error, floor)
        one, other = exact[ours[stream, place]], exact[reference[stream, place]]
        return Tie(stream=stream, position=place, gap=float((one - other).abs()), bound=bound)

    def _jax(self, strategy: Strategy, stateful: bool) -> Ids:
        model = self.case.preset.model
        layout = find_layout(model, self.case.preset.data.dataset)
        with arithmetic(self.dtype):
            arrays = {n: array.astype(self.dtype) for n, array in self.case.arrays.items()}
            sampler = Sampler(to_model(arrays, model, layout, self.dtype))
            how = strategy, self.key, stateful
            return sampler.continue_ids(self.prompts, self.num_steps, *how)

    def _torch(self, strategy: Strategy, stateful: bool) -> Ids:
        drawn = np.asarray(draw_uniforms(self.key, self.num_steps, len(self.prompts)))
        return torch_continue(
            self.twin,
            torch.from_numpy(self.prompts).long(),
            torch.from_numpy(drawn.astype(self.dtype)),
            temperature=getattr(strategy, "temperature", None),
            top_k=getattr(strategy, "k", None),
            stateful=stateful,
        ).numpy()

    def _onnx(self, strategy: Strategy, stateful: bool) -> Ids:
        assert isinstance(strategy, Greedy)
        model, steps = onnx_model(self.case.arrays, self.case.preset), self.num_steps
        return continue_greedily(model, self.prompts, steps, stateful=stateful)


def _twin(case: Case, dtype: ParityDtype) -> TorchModel:
    preset, of_type = case.preset, getattr(torch, dtype)
    return load_model(preset.model, preset.data.dataset, case.twin_arrays, of_type).eval()
