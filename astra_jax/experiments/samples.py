"""The samples that a run shows of its newest model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from astra_jax.data.vocabulary import Vocabulary
from astra_jax.experiments.restoring import restore_model
from astra_jax.machine import processes
from astra_jax.runs.folder import SAMPLES, Run
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature, TopK
from astra_jax.sampling.writing import NUM_WORDS, Writer
from astra_jax.storage.atomic import write_text
from astra_jax.training.trainer import Keys

PROMPT = "ROMEO: "
"""What the published samples begin with."""

_MODES = {
    True: "state carried from character to character",
    False: "stateless: the network sees one character, as in the Shakespeare notebook",
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model writes under one strategy.

    Attributes:
        strategy: its name.
        mode: what the network sees.
        prompt: what every text begins with.
        texts: one, or several words.
    """

    strategy: str
    mode: str
    prompt: str
    texts: list[str]


def draw_samples(
    run: Run,
    writer: Writer,
    strategies: Mapping[str, Strategy],
    *,
    stateful: bool,
    length: int | None = None,
) -> Iterator[Sample]:
    """Yields a sample of each strategy, by the draws of the run's seed.

    Args:
        run: whose seed and vocabulary it is.
        writer: its model.
        strategies: by name.
        stateful: whether the state is carried from character to character.
        length: most new characters; see `Writer.stream`.
    """
    vocabulary = run.vocabulary
    prompt = default_prompt(vocabulary)
    key = Keys.from_seed(run.preset.train.seed).samples
    for name, strategy in strategies.items():
        num = NUM_WORDS if vocabulary.end_id is not None and strategy != Greedy() else 1
        texts = writer.generate(prompt, strategy, key, num=num, length=length, stateful=stateful)
        yield Sample(strategy=name, mode=_MODES[stateful], prompt=prompt, texts=texts)


def write_samples(run: Run) -> None:
    """Writes samples.txt: every strategy, with the state carried and without."""
    writer = Writer(restore_model(run), run.vocabulary)
    k = min(TopK().k, len(run.vocabulary))
    strategies: dict[str, Strategy] = {
        "greedy": Greedy(),
        "temperature 0.8": Temperature(0.8),
        f"top-k {k}, temperature 1.0": TopK(k),
    }
    sections = [f"{run.describe()}\n"]
    for stateful in (True, False):
        for sample in draw_samples(run, writer, strategies, stateful=stateful):
            title = f"## {sample.strategy}, {sample.mode}\n"
            sections.append("\n".join([title, *sample.texts, ""]))
    if processes.is_primary():
        write_text(run.folder / SAMPLES, "\n".join(sections))


def default_prompt(vocabulary: Vocabulary) -> str:
    """Returns the published prompt, or what comes nearest to a beginning in the vocabulary."""
    if vocabulary.start_id is not None:
        return ""
    if vocabulary.is_bytes or set(PROMPT) <= set(vocabulary.tokens):
        return PROMPT
    return "\n" if "\n" in vocabulary.tokens else vocabulary.tokens[0]
