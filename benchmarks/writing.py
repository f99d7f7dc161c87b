"""Sampling: characters a second of one text, and of many at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from astra_jax.sampling.sampler import CHUNK
from benchmarks import sampling
from benchmarks.agreement import require_same_texts
from benchmarks.floor import PRODUCTS_FLOOR, MatmulFloor, MemoryFloor
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

PROMPT = 3
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
    model, reference = setting.preset.model, dict[int, np.ndarray]()
    size = bytes_read_per_character(model, 2 if setting.precision == "bf16" else 4)
    products = products_of_a_character(model, MANY)
    with setting.arithmetic():
        lineup = Lineup(rules)
        lineup.enter_all(lambda name: _entries(name, setting, reference))
        floor = MemoryFloor(size, setting)
        floor_of_many = MatmulFloor(products, setting, many(PRODUCTS_FLOOR))
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


def _entries(name: str, setting: Setting, reference: dict[int, np.ndarray]) -> list[Entry]:
    write, vocab_size = _MAKE[name](setting), setting.preset.model.vocab_size

    def entry(name: str, num: int) -> Entry:
        least = CHUNK if name.startswith(OURS) else 16
        prompt = prompts(num, vocab_size)
        return Timed(name, lambda length: write(prompt, length, False), least), None

    if name == "notebook":
        _hold_notebook(write, setting)
        return [entry(name, 1)]
    for num in (1, MANY):
        texts = write(prompts(num, vocab_size), CHECKED, True)
        require_same_texts(name, reference.setdefault(num, texts), texts)
    return [entry(name, 1), entry(many(name), MANY)]


def _hold_notebook(write: Write, setting: Setting) -> None:
    """Holds the notebook's sampler, which reads something else, to ours that reads the same.

    Of text that is the newest character alone; of names all of the name, which is as good as the
    state.
    """
    of_text = setting.preset.data.dataset == "shakespeare"
    start = prompts(MANY, setting.preset.model.vocab_size)[:, -1:]
    length = CHECKED if of_text else sampling.NAME_LENGTH
    same = sampling.ours(setting, stateful=not of_text)
    require_same_texts("notebook", same(start, length, True), write(start, length, True))


def many(name: str) -> str:
    """Returns what a sampler of many texts at once is called."""
    return f"{name}, {MANY} texts"


def prompts(num: int, vocab_size: int) -> np.ndarray:
    """Returns what so many texts begin with; each prompt is unlike those beside it."""
    ids = np.arange(PROMPT) + np.arange(num)[:, None]
    return (1 + ids % (vocab_size - 1)).astype(np.int32)
