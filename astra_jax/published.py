"""The losses that the two studies printed: mean training loss, and one-batch validation."""

from astra_jax.config import DatasetName, Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.presets import PRESETS, override

# fmt: off
PUBLISHED_LOSSES: dict[tuple[DatasetName, str], dict[int, tuple[float, float | None]]] = {
    ("shakespeare", "alpha"): dict(enumerate([
        (2.2413, 1.8872), (1.8197, 1.7809), (1.7299, 1.7230), (1.6936, 1.7377), (1.6695, 1.7098),
        (1.6551, 1.7342), (1.6400, 1.6682), (1.6335, 1.7225), (1.6333, 1.6444), (1.6276, 1.7015),
    ], 1)),
    ("shakespeare", "beta"): dict(enumerate([
        (1.9937, 1.7333), (1.5697, 1.5621), (1.4924, 1.5406), (1.4523, 1.5091), (1.4289, 1.4914),
        (1.4132, 1.5214), (1.3990, 1.4700), (1.3888, 1.4897), (1.3757, 1.5065), (1.3715, 1.5307),
        (1.3662, 1.4877), (1.3592, 1.4248), (1.3570, 1.4566), (1.3577, 1.4752), (1.3542, 1.4872),
    ], 1)),
    # The source is cut off in epoch 18, after its training loss.
    ("shakespeare", "gamma"): dict(enumerate([
        (1.7853, 1.5455), (1.3947, 1.4850), (1.3209, 1.5106), (1.2778, 1.4768), (1.2474, 1.5260),
        (1.2280, 1.4513), (1.2071, 1.4515), (1.1916, 1.4510), (1.1784, 1.4465), (1.1645, 1.4823),
        (1.1529, 1.4410), (1.1424, 1.4385), (1.1323, 1.4708), (1.1218, 1.3928), (1.1154, 1.4082),
        (1.1099, 1.4137), (1.1043, 1.4891), (1.1023, None),
    ], 1)),
    ("names", "alpha"): {10: (1.7499, 1.8252), 20: (1.6492, 1.8151), 30: (1.5909, 1.8292)},
}
# fmt: on
"""(train, validation) in nats by dataset and model, then by epoch; None, and whatever is not
here, was not printed."""


def is_published_setup(preset: Preset, corpus: CorpusRecord) -> bool:
    """Whether model, recipe and corpus are the studies' own; the seed may be another."""
    published = PRESETS.get((preset.data.dataset, preset.name))
    if published is None or not corpus.is_published:
        return False
    return override(published, seed=preset.train.seed) == preset


def published_losses(preset: Preset, corpus: CorpusRecord) -> dict[int, tuple[float, float | None]]:
    """Returns what of `PUBLISHED_LOSSES` a training may be held against; {} if it is not theirs."""
    if not is_published_setup(preset, corpus):
        return {}
    return PUBLISHED_LOSSES.get((preset.data.dataset, preset.name), {})
