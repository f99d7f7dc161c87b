#!/usr/bin/env python
"""Generate text with a trained model.

Examples:
  python scripts/sample.py runs/shakespeare-gamma-1 --prompt "ROMEO: " --temperature 0.8
  python scripts/sample.py runs/names-alpha-1 --num 20
  python scripts/sample.py Astra_gamma_latest.pth --prompt "ROMEO: " --greedy --stateless
  head -n 3 play.txt | python scripts/sample.py runs/shakespeare-gamma-1 --prompt -
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from astra_jax import cli
from astra_jax.cli import default
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.experiments.samples import default_prompt
from astra_jax.machine import compile_cache, placement
from astra_jax.sampling.draws import sample_key
from astra_jax.sampling.prompts import OnUnknown, fit_prompt, read_prompt
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature, TopK
from astra_jax.sampling.writing import NUM_WORDS, Writer
from astra_torch import conversion

SEPARATOR = "-" * 20


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to generate with, what to begin with, and how characters are picked."""

    source: Positional[Path]
    """A run folder, or a file named .pth or .safetensors."""
    prompt: Annotated[str | None, default("'ROMEO: ', or nothing for words")] = None
    """What every text begins with; - reads it from standard input, less one line end at its end."""
    on_unknown: OnUnknown = "error"
    """Unknown characters of a prompt: error, skip (left out), or replace (by the nearest known)."""
    length: Annotated[int | None, default("200; 20 for words, which may end sooner")] = None
    """New characters, at most."""
    num: Annotated[int | None, default("1; 20 for words")] = None
    """Number of texts; running texts are parted by a line of dashes."""
    greedy: bool = False
    """Take the most likely character at every step."""
    temperature: float = 1.0
    """Draw from softmax(logits / temperature); above 0."""
    top_k: Annotated[int | None, default("all")] = None
    """Draw from the k most likely characters only."""
    stateless: bool = False
    """Show the network one character at a time, from a zero state, as the Shakespeare notebook."""
    seed: int = 0
    """Decides the draws."""
    corpus: Annotated[str | None, default("the study's")] = None
    """The text whose characters are the model's, where a file holds none."""
    best: bool = False
    """Of a run, take the checkpoint of the lowest validation loss, not the newest."""
    trust_shapes: bool = False
    """Go by the arrays' shapes where a label of the file contradicts them."""
    quiet: bool = False
    """Print the text and errors only."""
    no_compile_cache: bool = False
    """Compile everything anew, and keep nothing of it."""


def main(arguments: Arguments) -> None:
    """Loads the model and prints the texts, a word a line, running text between separators."""
    placement.split_cpu()
    strategy = _strategy(arguments)
    tell = cli.teller(arguments.quiet)
    if not arguments.no_compile_cache:
        tell(compile_cache.enable())
    trained = conversion.read(
        arguments.source,
        corpus=arguments.corpus,
        trust_shapes=arguments.trust_shapes,
        weights_only=True,
        best=arguments.best,
    )
    vocabulary = trained.vocabulary
    words = vocabulary.end_id is not None
    prompt, changes = _prompt(arguments, vocabulary)
    tell(changes and f"prompt: {changes}")
    pieces = Writer(trained.to_model(), vocabulary).stream(
        prompt,
        strategy,
        sample_key(arguments.seed),
        num=(NUM_WORDS if words else 1) if arguments.num is None else arguments.num,
        length=arguments.length,
        stateful=not arguments.stateless,
    )
    with contextlib.closing(pieces):
        _print(pieces, "\n" if words else f"\n{SEPARATOR}\n")


def _prompt(arguments: Arguments, vocabulary: Vocabulary) -> tuple[str, str]:
    if arguments.prompt is None:
        return default_prompt(vocabulary), ""
    prompt, changes = fit_prompt(
        read_prompt(arguments.prompt, vocabulary), vocabulary, arguments.on_unknown
    )
    try:
        vocabulary.encode(prompt)
    except InputError as error:
        raise InputError(f"{error}; --on-unknown replace or skip takes it all the same") from error
    return prompt, changes


def _print(pieces: Iterable[list[str]], separator: str) -> None:
    """Prints the first text as it comes, and then the others, which came along with it."""
    others: list[list[str]] = []
    for first, *rest in pieces:
        print(first, end="", flush=True)
        others.append(rest)
    texts = ("".join(parts) for parts in zip(*others, strict=True))
    print("".join(separator + text for text in texts))


def _strategy(arguments: Arguments) -> Strategy:
    if arguments.greedy:
        if arguments.top_k is not None or arguments.temperature != 1.0:
            raise InputError("--greedy excludes --temperature and --top-k: leave one out")
        return Greedy()
    if arguments.top_k is not None:
        return TopK(arguments.top_k, arguments.temperature)
    return Temperature(arguments.temperature)


if __name__ == "__main__":
    cli.run(main, Arguments, __doc__)
