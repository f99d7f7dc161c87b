"""The samples that a run shows of its newest model."""

from astra_jax import cluster
from astra_jax.atomic import write_text
from astra_jax.experiments import restore_model
from astra_jax.model import arithmetic
from astra_jax.runs import SAMPLES, Run
from astra_jax.sampling import Greedy, Strategy, Temperature, TopK, generate
from astra_jax.training import Keys
from astra_jax.vocabulary import Vocabulary

PROMPT = "ROMEO: "
"""What the published samples begin with."""

_MODES = {
    "state carried from character to character": True,
    "stateless: the network sees one character, as in the Shakespeare notebook": False,
}


def write_samples(run: Run) -> None:
    """Writes samples.txt: every strategy, with the state carried and without."""
    model, vocabulary = restore_model(run), run.vocabulary
    key = Keys.from_seed(run.preset.train.seed).samples
    words = vocabulary.end_id is not None
    prompt = default_prompt(vocabulary)
    k = min(20, len(vocabulary))
    strategies: dict[str, Strategy] = {
        "greedy": Greedy(),
        "temperature 0.8": Temperature(0.8),
        f"top-k {k}, temperature 1.0": TopK(k),
    }
    sections = [f"{run.describe()}\n"]
    for mode, stateful in _MODES.items():
        for name, strategy in strategies.items():
            num = 20 if words and strategy != Greedy() else 1
            with arithmetic(run.preset.train.dtype):
                texts = generate(
                    model, vocabulary, prompt, strategy, key, num=num, stateful=stateful
                )
            sections.append("\n".join([f"## {name}, {mode}\n", *texts, ""]))
    if cluster.is_primary():
        write_text(run.folder / SAMPLES, "\n".join(sections))


def default_prompt(vocabulary: Vocabulary) -> str:
    """Returns the published prompt, or what comes nearest to a beginning in the vocabulary."""
    if vocabulary.start_id is not None:
        return ""
    if vocabulary.is_bytes or set(PROMPT) <= set(vocabulary.tokens):
        return PROMPT
    return "\n" if "\n" in vocabulary.tokens else vocabulary.tokens[0]
