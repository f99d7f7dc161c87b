"""Who can be asked to take part, in what, and what is to be known about each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from astra_jax.errors import InputError
from astra_jax.gru import BACKENDS

OURS, REMAT, NOTEBOOK_FLOAT32 = "ours", "remat", "notebook-float32"

TRAIN, EVAL, SAMPLE, MEMORY = "train", "eval", "sample", "memory"


@dataclass(frozen=True)
class Peer:
    """A contender.

    Attributes:
        about: what it is, in a line.
        takes_part: in which measurements.
        framework: whose arrays it computes with.
        same: whether it computes the same function as ours, and so is held to it.
        optional: whether it may fail on this machine, or take too long to begin with; the tables
            then say why it is missing.
        precision: of the only measurements that it takes part in; None is all.
    """

    about: str
    takes_part: tuple[str, ...] = (TRAIN, MEMORY, EVAL)
    framework: Literal["jax", "torch", "onnx"] = "jax"
    same: bool = True
    optional: bool = False
    precision: str | None = None


PEERS: Mapping[str, Peer] = {
    OURS: Peer("what `scripts/train.py` and `sample.py` run", (TRAIN, MEMORY, EVAL, SAMPLE)),
    **{
        name: Peer(f"ours with the backend `{name}`", optional=name not in ("scan", "fused"))
        for name in BACKENDS
    },
    REMAT: Peer("ours with `--remat`, which computes states anew to save memory", (TRAIN, MEMORY)),
    "notebook": Peer(
        "the notebooks' PyTorch loop; its sampler begins each character from a zero state",
        (TRAIN, MEMORY, EVAL, SAMPLE),
        framework="torch",
    ),
    NOTEBOOK_FLOAT32: Peer(
        "the same in float32, as the studies ran it",
        (TRAIN, EVAL),
        framework="torch",
        precision="bf16",
    ),
    "notebook-compiled": Peer(
        "the notebooks' loop with `torch.compile` on the cell", framework="torch", optional=True
    ),
    "torch-hoisted": Peer(
        "PyTorch with all that has no recurrence in it outside the loop", framework="torch"
    ),
    "torch-stateful": Peer(
        "the notebooks' model in a PyTorch loop that carries the state",
        (SAMPLE,),
        framework="torch",
    ),
    "torch-gru": Peer("`torch.nn.GRU`, whose equations are easier", framework="torch", same=False),
    "nnx-rnn": Peer("Flax's `nnx.RNN(nnx.GRUCell)`, whose equations are easier", same=False),
    "onnxruntime": Peer(
        "the exported model in ONNX Runtime, on the CPU", (EVAL, SAMPLE), framework="onnx"
    ),
}
"""All of them, in the order in which they take turns."""


def choose(names: str | None, whats: Sequence[str], precision: str) -> dict[str, list[str]]:
    """Returns who is to take part in each measurement, ours always and first.

    Args:
        names: parted by commas; None is everyone. Who cannot take part in one is left out there.
        whats: names of `records.MEASUREMENTS`. In some nobody else takes part.
        precision: of the products, see `Setting`.

    Raises:
        InputError: somebody is not known, or can take part in none of these.
    """
    wanted = None if names is None else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted or () if name not in PEERS]
    if unknown:
        raise InputError(f"unknown peers {', '.join(unknown)}: choose from {', '.join(PEERS)}")
    able = {
        what: [
            name
            for name, peer in PEERS.items()
            if name == OURS or (what in peer.takes_part and peer.precision in (None, precision))
        ]
        for what in whats
    }
    idle = set(wanted or ()).difference(*able.values())
    if idle:
        others = dict.fromkeys(name for names in able.values() for name in names if name != OURS)
        raise InputError(
            f"{', '.join(sorted(idle))} cannot take part in --what {', '.join(whats)} with "
            f"--precision {precision}: choose from {', '.join(others) or OURS}"
        )
    chosen = PEERS if wanted is None else {OURS, *wanted}
    return {what: [name for name in names if name in chosen] for what, names in able.items()}
