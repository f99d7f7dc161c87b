"""What a character costs in texts of different lengths."""

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks import sampling
from benchmarks.lineup import Lineup, Rules
from benchmarks.rounds import Timed, clocked
from benchmarks.setting import Setting
from benchmarks.writing import prompts

LENGTHS = (100, 1_000, 10_000, 100_000, 1_000_000)

LONGEST_SECONDS = 20.0
"""How long a text may take: longer ones, of slow models, are left out."""


def lengths_contest(
    setting: Setting, rules: Rules, lengths: Sequence[int] = LENGTHS
) -> dict[str, Any]:
    """Times our sampler on one text of each length, in turn, from prompt to last character.

    Args:
        setting: whose model writes.
        rules: how it is timed; other contenders do not take part.
        lengths: characters of the texts, rising.

    Returns:
        The record, ready for JSON; its unit is a character.
    """
    lineup, pace = Lineup(rules), 0.0
    with setting.arithmetic():
        write, prompt = sampling.ours(setting), prompts(1, setting.preset.model.vocab_size)
        for length in lengths:
            if pace * length > LONGEST_SECONDS:
                name = f"{length:,}"
                lineup.missing[name] = f"a text takes more than {LONGEST_SECONDS:g} s"
                rules.tell(f"{name} characters are left out: {lineup.missing[name]}")
                continue
            rules.tell(f"{length:,} characters")
            one = functools.partial(write, prompt, length, False)
            lineup.enter([(_timed(length, one), None)])
            pace = clocked(one) / length
        return lineup.run()


def _timed(length: int, one: Any) -> Timed:
    def texts(characters: int) -> None:
        for _ in range(characters // length):
            one()

    return Timed(f"{length:,}", texts, least=length)
