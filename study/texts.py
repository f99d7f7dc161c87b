"""What a model writes with its state carried and without, and what the difference costs."""

from typing import Any

from astra_jax.data.splits import Split
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.model import GRULanguageModel, arithmetic
from astra_jax.runs.folder import Run
from astra_jax.sampling.sampler import Sampler
from astra_jax.sampling.strategies import Greedy, Strategy, Temperature, TopK
from astra_jax.sampling.writing import Writer
from astra_jax.training.trainer import Keys
from study.materials import TEXT_LENGTH, material_of

TOP_K = 30
"""Of the study's published samples."""


def strategies(vocabulary: Vocabulary) -> dict[str, Strategy]:
    """Returns how characters are picked, by name."""
    k = min(TOP_K, len(vocabulary))
    return {
        "greedy": Greedy(),
        "temperature 1.0": Temperature(1.0),
        f"top-k {k}, temperature 1.0": TopK(k, 1.0),
        f"top-k {k}, temperature 0.8": TopK(k, 0.8),
    }


def compare_samplers(
    run: Run,
    model: GRULanguageModel,
    split: Split,
    *,
    num: int | None = None,
    length: int = TEXT_LENGTH,
) -> dict[str, Any]:
    """Lets a model write with its state carried and without, and measures both.

    Running texts go on from stretches of the validation part, and are held against what stands
    there; a list of words against the validation words. Every number is a mean with its standard
    error over the texts. All follows from the run's seed.

    Args:
        run: whose model it is.
        model: what writes, and what says how likely it finds what was written.
        split: the run's data.
        num: see `material_of`, and so the next.
        length: characters of each text.

    Returns:
        A JSON-ready dictionary: `reference`, the measures of real text, and `samplers`, a list of
        those of each mode and strategy; see `Texts.measures` and `Words.measures`.

    Raises:
        InputError: the validation part is too short.
    """
    with arithmetic(run.preset.train.dtype):
        material = material_of(split, num, length)
        key = Keys.from_seed(run.preset.train.seed).samples
        real = material.measures(model, material.real) | {"text": material.shown(material.real)}
        sampler, writer = Sampler(model), Writer(model, split.vocabulary)
        samplers = []
        for stateful in (True, False):
            for name, strategy in strategies(split.vocabulary).items():
                context, length = material.context, material.length
                ids = sampler.continue_ids(context, length, strategy, key, stateful)
                measures = material.measures(model, ids)
                about = {"mode": "stateful" if stateful else "stateless", "strategy": name}
                text = {"text": material.sample(writer, ids, key, strategy, stateful)}
                samplers.append(about | measures | text)
        return material.about() | {"reference": real, "samplers": samplers}
