"""What is measured of a model of names, and of the names that it generates."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from astra_jax.config import Preset
from astra_jax.data.splits import Split, words_of
from astra_jax.evaluation import word_losses
from astra_jax.model import GRULanguageModel
from astra_jax.sampling.strategies import Temperature
from astra_jax.sampling.writing import Writer
from astra_jax.training.trainer import Keys

NUM_NAMES = 5000
"""Generated names whose first letters are counted."""


@dataclass(frozen=True)
class Measured:
    """One model on the words that it was validated on; losses in nats a target.

    Attributes:
        steps_per_epoch: batches of its training words.
        later_nats: of the letters after the first and the end, which all four models learn.
        every_nats: of first letters too, the words read from token 0, as they are generated.
        first_nats: of first letters alone.
        leaked_share: of the validation words, how many are training words too.
        leaked_nats: `later_nats` of these; None where there are none.
        unseen_nats: `later_nats` of the others.
        kl_nats: of the corpus's first letters from the model's distribution after token 0.
        distance: total variation between the corpus's first letters and those of generated names.
        first_letters: share of each letter among the first of the generated names.
    """

    steps_per_epoch: int
    later_nats: float
    every_nats: float
    first_nats: float
    leaked_share: float
    leaked_nats: float | None
    unseen_nats: float
    kl_nats: float
    distance: float
    first_letters: dict[str, float]


def measure(model: GRULanguageModel, preset: Preset, split: Split, words: list[str]) -> Measured:
    """Measures one model; `words` is the whole list, each as often as it stands there."""
    seen, validation = words_of_parts(split)
    vocabulary, data = split.vocabulary, preset.data
    # A word of seq_len letters has one target more when it is read from its start.
    longer = dataclasses.replace(data, start_token=True, seq_len=data.seq_len + 1)
    generated_as = word_losses(model, validation, vocabulary, longer)
    trained_as = word_losses(model, validation, vocabulary, data)[:, int(data.start_token) :]
    leaked = np.isin(validation, list(set(seen)))
    start = -_log_probabilities(model, jnp.array([[vocabulary.start_id]], jnp.int32))[0, 0]
    corpus = first_letters(words)
    kl = sum(p * (np.log(p) + start[vocabulary.tokens.index(c)]) for c, p in corpus.items() if p)
    key = Keys.from_seed(preset.train.seed).samples
    names = Writer(model, vocabulary).generate("", Temperature(), key, num=NUM_NAMES)
    return Measured(
        steps_per_epoch=split.train.max_steps or 0,
        later_nats=_mean(trained_as),
        every_nats=_mean(generated_as),
        first_nats=_mean(generated_as[:, :1]),
        leaked_share=float(leaked.mean()),
        leaked_nats=_mean(trained_as[leaked]) if leaked.any() else None,
        unseen_nats=_mean(trained_as[~leaked]),
        kl_nats=float(kl),
        distance=distance(corpus, first_letters(names)),
        first_letters=first_letters(names),
    )


def words_of_parts(split: Split) -> tuple[list[str], list[str]]:
    """Returns the words of both parts; raises `InputError` if they are running text."""
    train, validation = (words_of(data, split.vocabulary) for data in split[:2])
    return train, validation


@nnx.jit
def _scores(model: GRULanguageModel, inputs: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(model(inputs)[0])


def _log_probabilities(model: GRULanguageModel, inputs: jax.Array) -> Float[np.ndarray, "N T V"]:
    return np.asarray(_scores(model, inputs), np.float64)


def _mean(losses: Float[np.ndarray, "N T"]) -> float:
    return float(np.nanmean(losses))


def first_letters(words: list[str]) -> dict[str, float]:
    """Returns the share of each first letter; that of words without letters under no letter."""
    letters, counts = np.unique([word[:1] for word in words], return_counts=True)
    return {str(c): n / len(words) for c, n in zip(letters, counts.tolist(), strict=True)}


def distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Returns the total variation distance: the share that would have to be moved."""
    return sum(abs(one.get(c, 0.0) - other.get(c, 0.0)) for c in one | other) / 2


def distance_by_chance(words: list[str], repetitions: int = 100) -> float:
    """Returns the mean distance of as many names drawn from the corpus itself."""
    rng = np.random.default_rng(0)
    corpus = first_letters(words)
    draws = (first_letters(rng.choice(words, NUM_NAMES).tolist()) for _ in range(repetitions))
    return sum(distance(corpus, draw) for draw in draws) / repetitions
