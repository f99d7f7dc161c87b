"""The notebooks' four model classes, with their class and state-dict names.

They are the reference that the JAX models are held to, so they say each equation once, plainly,
and loop over time in Python. Shapes are batch-first; dropout's survivors can be given, so that
both frameworks can be made to drop the same.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astra_jax.config import DatasetName, ModelConfig


class GRUCell(nn.Module):
    """One step of the single-bias GRU; equations in `astra_jax.gru.gru`.

    r and z have a second additive bias each, `bias_r` and `bias_z`. Only the sums count in the
    forward pass, but both are trained, so every checkpoint has both.
    """

    def __init__(self, embd_dim: int, hidden_dim: int):
        """Draws torch's default weights; the second biases are zero."""
        super().__init__()
        self.bias_z = nn.Parameter(torch.zeros(hidden_dim))
        self.bias_r = nn.Parameter(torch.zeros(hidden_dim))
        self.Wx = nn.Linear(embd_dim, hidden_dim)
        self.Wh = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.Wzx = nn.Linear(embd_dim, hidden_dim)
        self.Wzh = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.Wrx = nn.Linear(embd_dim, hidden_dim)
        self.Wrh = nn.Linear(hidden_dim, hidden_dim, bias=False)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Returns the state `[B, H]` after input `x [B, E]` in state `h [B, H]`."""
        r = torch.sigmoid(self.Wrx(x) + self.Wrh(h) + self.bias_r)
        z = torch.sigmoid(self.Wzx(x) + self.Wzh(h) + self.bias_z)
        n = torch.tanh(self.Wx(x) + self.Wh(r * h))
        return (1 - z) * h + z * n


class GRULayer(nn.Module):
    """A cell run over time, with dropout on the state that it carries."""

    def __init__(self, embd_dim: int, hidden_dim: int, dropout: float):
        """Makes the cell."""
        super().__init__()
        self.grucell = GRUCell(embd_dim, hidden_dim)
        self.dropout = dropout

    def forward(
        self, inputs: Tensor, h_0: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the states after every step `[B, T, H]`, and the last one `[B, H]`.

        Args:
            inputs: `[B, T, E]`.
            h_0: the state before the first step, `[B, H]`.
            keep: bool `[T, B, H]`, what survives dropout. None draws it in training mode, and
                drops nothing in evaluation mode.
        """
        h, outputs = h_0, []
        for t in range(inputs.shape[1]):
            h = self.grucell(inputs[:, t], h)
            if keep is None:
                h = functional.dropout(h, self.dropout, self.training)
            else:
                h = torch.where(keep[t], h / (1 - self.dropout), 0.0)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h


class LinearProjection(nn.Module):
    """The head, one level deeper than it needs to be, as the notebooks have it."""

    def __init__(self, hidden_dim: int, n_classes: int):
        """Makes the linear map."""
        super().__init__()
        self.linear_projection = nn.Linear(hidden_dim, n_classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the logits `[..., V]`."""
        return self.linear_projection(hidden)


class GRULanguageModel(nn.Module):
    """What the four classes share: they differ in the names of their parts only.

    Each makes its parts in the order of the data's way through them. An optimizer's state has no
    names of its own, and goes by that order.
    """

    embedding: nn.Embedding

    @property
    def stack(self) -> list[GRULayer]:
        """The recurrent layers, first to last."""
        raise NotImplementedError

    @property
    def head(self) -> LinearProjection:
        """The linear head."""
        raise NotImplementedError

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """The LayerNorm before the head, if the model has one."""
        return None

    def forward(
        self, tokens: Tensor, h_0: Tensor | None = None, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the logits `[B, T, V]` and the layers' last states `[L, B, H]`.

        Args:
            tokens: ids `[B, T]`.
            h_0: the layers' first states `[L, B, H]`; None is zeros.
            keep: bool `[L, T, B, H]`, what survives dropout; see `GRULayer`.
        """
        hiddens, last = self.hidden_states(tokens, h_0, keep)
        outputs = hiddens[-1] if self.final_norm is None else self.final_norm(hiddens[-1])
        return self.head(outputs), last

    def hidden_states(
        self, tokens: Tensor, h_0: Tensor | None = None, keep: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Returns each layer's outputs `[B, T, H]`, and the last states `[L, B, H]`."""
        hidden = self.embedding(tokens)
        if h_0 is None:
            h_0 = self.initial_state(tokens.shape[0])
        hiddens, last = [], []
        for index, layer in enumerate(self.stack):
            hidden, h_n = layer(hidden, h_0[index], None if keep is None else keep[index])
            hiddens.append(hidden)
            last.append(h_n)
        return hiddens, torch.stack(last)

    def initial_state(self, batch_size: int) -> Tensor:
        """Returns the zero states `[L, B, H]` that every sequence begins with."""
        hidden_dim = self.head.linear_projection.in_features
        return self.embedding.weight.new_zeros(len(self.stack), batch_size, hidden_dim)


class MyGRUModel(GRULanguageModel):
    """Astra-α, -β and -γ, and every shape that the notebooks have no class for.

    `layer_norm` is ours: with it, the state dict has `norm.*` and the notebook's class, which
    has no norm, does not take it.
    """

    def __init__(
        self,
        n_classes: int,
        embd_dim: int,
        hidden_dim: int,
        num_layers: int,
        dropout: float = 0.1,
        layer_norm: bool = False,
    ):
        """Draws a new model."""
        super().__init__()
        self.embedding = nn.Embedding(n_classes, embd_dim)
        widths = [embd_dim] + [hidden_dim] * (num_layers - 1)
        self.layers = nn.ModuleList(GRULayer(width, hidden_dim, dropout) for width in widths)
        self.norm = nn.LayerNorm(hidden_dim) if layer_norm else None
        self.fc = LinearProjection(hidden_dim, n_classes)

    @property
    def stack(self) -> list[GRULayer]:
        """The recurrent layers, first to last."""
        return list(self.layers)  # pyright: ignore[reportReturnType]

    @property
    def head(self) -> LinearProjection:
        """The linear head."""
        return self.fc

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """The LayerNorm before the head, if the model has one."""
        return self.norm


class GRU_SmallModel(GRULanguageModel):
    """The small names model: one layer."""

    def __init__(self, n_classes: int, embd_dim: int, hidden_dim: int, dropout: float = 0.0):
        """Draws a new model."""
        super().__init__()
        self.embedding = nn.Embedding(n_classes, embd_dim)
        self.gru = GRULayer(embd_dim, hidden_dim, dropout)
        self.linear = LinearProjection(hidden_dim, n_classes)

    @property
    def stack(self) -> list[GRULayer]:
        """The recurrent layers, first to last."""
        return [self.gru]

    @property
    def head(self) -> LinearProjection:
        """The linear head."""
        return self.linear


class GRU_MediumModel(GRULanguageModel):
    """The medium names model: two layers."""

    def __init__(self, n_classes: int, embd_dim: int, hidden_dim: int, dropout: float = 0.1):
        """Draws a new model."""
        super().__init__()
        self.embedding = nn.Embedding(n_classes, embd_dim)
        self.gru_layer_1 = GRULayer(embd_dim, hidden_dim, dropout)
        self.gru_layer_2 = GRULayer(hidden_dim, hidden_dim, dropout)
        self.linear = LinearProjection(hidden_dim, n_classes)

    @property
    def stack(self) -> list[GRULayer]:
        """The recurrent layers, first to last."""
        return [self.gru_layer_1, self.gru_layer_2]

    @property
    def head(self) -> LinearProjection:
        """The linear head."""
        return self.linear


class GRU_LargeModel(GRULanguageModel):
    """The large names model: three layers and a LayerNorm before the head."""

    def __init__(self, n_classes: int, embd_dim: int, hidden_dim: int, dropout: float = 0.2):
        """Draws a new model."""
        super().__init__()
        self.embedding = nn.Embedding(n_classes, embd_dim)
        self.gru_layer_1 = GRULayer(embd_dim, hidden_dim, dropout)
        self.gru_layer_2 = GRULayer(hidden_dim, hidden_dim, dropout)
        self.gru_layer_3 = GRULayer(hidden_dim, hidden_dim, dropout)
        self.norm = nn.LayerNorm(hidden_dim)
        self.linear = LinearProjection(hidden_dim, n_classes)

    @property
    def stack(self) -> list[GRULayer]:
        """The recurrent layers, first to last."""
        return [self.gru_layer_1, self.gru_layer_2, self.gru_layer_3]

    @property
    def head(self) -> LinearProjection:
        """The linear head."""
        return self.linear

    @property
    def final_norm(self) -> nn.LayerNorm:
        """The LayerNorm before the head."""
        return self.norm


NOTEBOOK_CLASSES: dict[tuple[DatasetName, int, bool], type[GRULanguageModel]] = {
    ("names", 1, False): GRU_SmallModel,
    ("names", 2, False): GRU_MediumModel,
    ("names", 3, True): GRU_LargeModel,
}
"""The names study's classes by dataset, number of layers and norm; all else is `MyGRUModel`."""


def build_model(config: ModelConfig, dataset: DatasetName) -> GRULanguageModel:
    """Returns a new model of the notebooks' class for a shape, with torch's default weights."""
    sizes = (config.vocab_size, config.embedding_dim, config.hidden_dim)
    fixed = NOTEBOOK_CLASSES.get((dataset, config.num_layers, config.layer_norm))
    if fixed is not None:
        return fixed(*sizes, dropout=config.dropout)
    return MyGRUModel(*sizes, config.num_layers, config.dropout, config.layer_norm)


def load_model(
    config: ModelConfig,
    dataset: DatasetName,
    arrays: Mapping[str, np.ndarray],
    dtype: torch.dtype | None = None,
) -> GRULanguageModel:
    """Returns a model of the notebooks' class with given weights, all of them and no others.

    Args:
        config: its shape.
        dataset: whose class it is.
        arrays: its weights, by their names in the state dict.
        dtype: of the model; None is that of the weights.
    """
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    model = build_model(config, dataset).to(dtype or next(iter(state.values())).dtype)
    model.load_state_dict(state, strict=True)
    return model
