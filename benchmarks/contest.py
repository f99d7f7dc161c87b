"""A training step, and the evaluation of a batch: everyone's, in turn."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from astra_jax.gru import BACKENDS
from astra_jax.training.trainer import MAX_STEPS_PER_CALL
from benchmarks.agreement import Agreement, hold_gradients, hold_losses
from benchmarks.floor import MatmulFloor
from benchmarks.jax_peers import FlaxPeer, JaxPeer, our_trainer
from benchmarks.lineup import Entry, Lineup, Rules
from benchmarks.onnx_peer import OnnxPeer
from benchmarks.peers import EVAL, NOTEBOOK_FLOAT32, OURS, PEERS, REMAT, TRAIN
from benchmarks.rounds import Timed
from benchmarks.setting import NUM_BATCHES, Setting
from benchmarks.torch_hoisted import HoistedModel
from benchmarks.torch_peers import CudnnModel, TorchPeer, compiled_model, notebook_model
from benchmarks.work import Work


def _with_backend(backend: str, setting: Setting) -> JaxPeer:
    if backend == "pallas" and jax.default_backend() == "cpu":
        raise NotImplementedError("a CPU interprets Pallas, which says nothing of its speed")
    return JaxPeer(setting, our_trainer(setting, backend))


def _notebook(setting: Setting) -> TorchPeer:
    model = notebook_model(setting)
    return TorchPeer(setting, model, model)


def _compiled(setting: Setting) -> TorchPeer:
    model = compiled_model(setting)
    return TorchPeer(setting, model, model)


def _hoisted(setting: Setting) -> TorchPeer:
    model = notebook_model(setting)
    return TorchPeer(setting, HoistedModel(model), model)


_MAKE: Mapping[str, Callable[[Setting], Any]] = {
    OURS: lambda setting: JaxPeer(setting, our_trainer(setting)),
    **{name: functools.partial(_with_backend, name) for name in BACKENDS},
    REMAT: lambda setting: JaxPeer(setting, our_trainer(setting, remat=True)),
    "notebook": _notebook,
    NOTEBOOK_FLOAT32: lambda setting: _notebook(setting.in_float32()),
    "notebook-compiled": _compiled,
    "torch-hoisted": _hoisted,
    "torch-gru": lambda setting: TorchPeer(setting, CudnnModel(setting.preset.model)),
    "nnx-rnn": FlaxPeer,
    "onnxruntime": OnnxPeer,
}


def make_peer(name: str, setting: Setting) -> Any:
    """Returns who trains and evaluates under a name of `PEERS`."""
    return _MAKE[name](setting)


def contest(what: str, setting: Setting, rules: Rules) -> dict[str, Any]:
    """Times `train`, a training step, or `eval`, the loss of a batch without dropout.

    Returns:
        The record, ready for JSON.

    Raises:
        DisagreementError: somebody does not compute what they say.
    """
    data = setting.preset.data
    work = Work(
        model=setting.preset.model,
        batch_size=data.batch_size,
        seq_len=data.seq_len,
        training=what == TRAIN,
    )
    with setting.arithmetic():
        lineup, contestants = Lineup(rules), _Contestants(setting)
        lineup.enter_all({TRAIN: contestants.training, EVAL: contestants.evaluation}[what])
        floor = None
        # No floor on an accelerator: it runs the products of several gates and layers at once, so
        # the sum of their times is no lower bound.
        if jax.default_backend() == "cpu":
            floor = MatmulFloor(work.least(), setting)
            lineup.enter([(floor, None)])
        record = lineup.run()
    return record | {
        "characters": work.characters,
        "flops": work.flops,
        "floor": None if floor is None else floor.name,
        "products": [] if floor is None else floor.describe(),
    }


class _Contestants:
    """Makes contenders by name, and holds them to the first of them."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.ours = functools.cache(lambda: make_peer(OURS, setting))

    def training(self, name: str) -> list[Entry]:
        peer = self._make(name)
        agreement = self._hold_gradients(name, peer) if self._is_held(name) else None
        return [(Timed(name, peer.train, most=MAX_STEPS_PER_CALL), agreement)]

    def evaluation(self, name: str) -> list[Entry]:
        peer = self._make(name)
        agreement = self._hold_losses(name, peer) if self._is_held(name) else None
        return [(Timed(name, peer.evaluate, NUM_BATCHES), agreement)]

    def _make(self, name: str) -> Any:
        return self.ours() if name == OURS else make_peer(name, self.setting)

    def _is_held(self, name: str) -> bool:
        return PEERS[name].same and name != OURS

    @functools.cached_property
    def _reference(self) -> Any:
        return self.ours().loss_and_gradients()

    def _hold_gradients(self, name: str, peer: Any) -> Agreement:
        theirs = peer.loss_and_gradients()
        return hold_gradients(name, self._reference, theirs, self.setting.precision)

    @functools.cached_property
    def _reference_losses(self) -> Any:
        return self.ours().evaluate(NUM_BATCHES)

    def _hold_losses(self, name: str, peer: Any) -> Agreement:
        theirs = peer.evaluate(NUM_BATCHES)
        return hold_losses(name, self._reference_losses, theirs, self.setting.precision)
