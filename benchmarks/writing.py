"""Sampling: characters a second of one text, and of many at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from astra_jax.sampling.sampler import CHUNK
from benchmarks import sampling
from benchmarks.agreement import require_same_text
from benchmarks.floor import MATMULS, MatmulFloor, MemoryFloor
from benchmarks.lineup import Entry, Lineup, Rules
from benchmarks.peers import OURS
from benchmarks.rounds import Timed
from benchmarks.sampling import Write
from benchmarks.setting import Setting
from benchmarks.work import bytes_read_per_character, products_of_a_character

MANY = 256
"""Texts that are written at once, where many are."""

CHECKED = 48
"""Characters of greedy text that samplers are held to."""

PROMPT = (1, 2, 3)
"""Ids that every text begins with."""

_MAKE: dict[str, Callable[[Setting], Write]] = {
    OURS: sampling.ours,
    "notebook": sampling.notebook,
    "torch-stateful": sampling.torch_stateful,
    "onnxruntime": sampling.onnx_stateful,
}


def writing_contest(setting: Setting, rules: Rules) -> dict[str, Any]:
    """Times samplers that draw one text, and many at once, in turn.

    Returns:
        The record, ready for JSON; its unit is a character of each text.

    Raises:
        DisagreementError: somebody writes another text than ours, where no draw decides.
    """
    model, reference = setting.preset.model, list[np.ndarray]()
    size = bytes_read_per_character(model, 2 if setting.precision == "bf16" else 4)
    products = products_of_a_character(model, MANY)
    with setting.arithmetic():
        lineup = Lineup(rules)
        lineup.enter_all(lambda name: _entries(name, setting, reference))
        floor = MemoryFloor(size, setting)
        floor_of_many = MatmulFloor(products, setting, many(MATMULS))
        lineup.enter([(floor, None), (floor_of_many, None)])
        record = lineup.run()
    return record | {
        "many": MANY,
        "bytes": size,
        "flops": sum(product.flops * count for product, count in products.items()),
        "floor": floor.name,
        "floor_of_many": floor_of_many.name,
        "products": floor_of_many.describe(),
    }


def _entries(name: str, setting: Setting, reference: list[np.ndarray]) -> list[Entry]:
    write = _MAKE[name](setting)
    if name == "notebook":  # It reads something else, so its text is another.
        return [(_timed(name, write, 1), None)]
    text = write(prompts(1), CHECKED, True)
    reference.append(text)
    require_same_text(name, reference[0], text)
    return [(_timed(name, write, 1), None), (_timed(many(name), write, MANY), None)]


def many(name: str) -> str:
    """Returns what a sampler of many texts at once is called."""
    return f"{name}, {MANY} texts"


def prompts(num: int) -> np.ndarray:
    """Returns what so many texts begin with."""
    return np.tile(np.array(PROMPT, np.int32), (num, 1))


def _timed(name: str, write: Write, num: int) -> Timed:
    least = CHUNK if name.startswith(OURS) else 16
    return Timed(name, lambda length: write(prompts(num), length, False), least)
