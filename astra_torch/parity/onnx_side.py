"""What ONNX Runtime computes from a case: kernels that nobody here wrote."""

from astra_jax.config import Preset
from astra_jax.data.vocabulary import Vocabulary
from astra_torch.onnx_models import to_onnx
from astra_torch.onnx_runtime import OnnxModel
from astra_torch.parity.cases import Case
from astra_torch.parity.checks import float32_bounds, measure_float32
from astra_torch.parity.comparison import ParityReport, compare
from astra_torch.parity.quantities import Name, Results
from astra_torch.parity.torch_side import TorchSide
from astra_torch.weights import Arrays, find_layout

QUANTITIES = (Name("last states"), Name("logits"))


def check_onnx(case: Case) -> ParityReport:
    """Holds the exported model's forward pass against PyTorch, in float32, without dropout."""
    inputs = case.draw_twin(0)._replace(keep=None)
    oracle, reference = (
        {name: TorchSide(case, dtype).logits(inputs)[name] for name in QUANTITIES}
        for dtype in ("float64", "float32")
    )
    last, logits = reversed(onnx_model(case.arrays, case.preset)(inputs.inputs))
    ours: Results = dict(zip(QUANTITIES, (last, logits), strict=True))
    errors = measure_float32(reference, oracle, {})
    bounds = float32_bounds(errors, {one.name.quantity: one.relative for one in errors})
    found = compare(ours, oracle, bounds, dtype="float32")
    return ParityReport(
        dtype="float32",
        comparisons=tuple(found),
        num_steps=1,
        largest={one.name.quantity: one.largest for one in found},
        num_values=sum(one.size for one in found),
        drift={},
        reference_drift={},
        num_clipped=0,
        num_rates=0,
        gaps=(),
    )


def onnx_model(arrays: Arrays, preset: Preset, num_threads: int | None = None) -> OnnxModel:
    """Exports weights of a preset's model and loads them into ONNX Runtime.

    Its vocabulary is made up: it is given ids, and what they stand for does not matter.
    """
    model = preset.model
    vocabulary = Vocabulary(tokens=tuple(map(str, range(model.vocab_size))))
    metadata = {"preset": preset.to_dict(), "vocabulary": vocabulary.to_dict()}
    graph = to_onnx(arrays, model, find_layout(model, preset.data.dataset), metadata)
    return OnnxModel(graph.SerializeToString(), num_threads=num_threads)
