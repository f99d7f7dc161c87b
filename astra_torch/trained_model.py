"""A trained model apart from its framework and its file."""

from dataclasses import dataclass

from astra_jax.config import Preset
from astra_jax.data.corpus import CorpusRecord
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.model import GRULanguageModel, parameters
from astra_jax.training.trainer import TrainState
from astra_torch.training_state import OptimizerState, to_jax
from astra_torch.weights import Arrays, Layout, find_layout, to_model


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Weights, and all that is known of where they come from.

    Attributes:
        arrays: its weights by their torch names.
        preset: its shape, and the recipe of the preset that it is or comes from.
        vocabulary: its characters.
        corpus: what is known of the text that it was trained on.
        optimizer: what its training goes on from; None where that is not known, or not wanted.
        assumed: in a sentence, what its file does not say and a published model's row stood in
            for; empty where nothing was missing.
    """

    arrays: Arrays
    preset: Preset
    vocabulary: Vocabulary
    corpus: CorpusRecord
    optimizer: OptimizerState | None = None
    assumed: str = ""

    @property
    def layout(self) -> Layout:
        """How its arrays are named."""
        return find_layout(self.preset.model, self.preset.data.dataset)

    def to_model(self) -> GRULanguageModel:
        """Returns it as a Flax module."""
        return to_model(self.arrays, self.preset.model, self.layout, self.preset.train.dtype)

    def to_state(self) -> TrainState:
        """Returns it as the state that JAX goes on training from."""
        return to_jax(parameters(self.to_model()), self.optimizer, self.preset, self.layout)
