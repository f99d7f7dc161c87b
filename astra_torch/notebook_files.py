"""The checkpoints that the notebooks write: `{base_name}_v{n}.pth` and a copy, `_latest`."""

import errno
import itertools
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from astra_jax.errors import InputError
from astra_jax.storage.atomic import replacing
from astra_torch import files, sidecars
from astra_torch.files import WeightFile
from astra_torch.trained_model import TrainedModel
from astra_torch.weights import ASTRA_CLASS


def write(trained: TrainedModel, folder: Path) -> list[Path]:
    """Writes `{base_name}_v{n}.pth`, n one above the largest there, and its `_latest` copy.

    They hold the weights and no optimizer's state, as the notebooks' own do. The hash of the
    numbered one stands beside it; the copy has none, as the notebook writes over it at its next
    save, and would leave a hash there that is not its file's. Of several processes each takes a
    number of its own, and the copy is of one of their files.

    Raises:
        InputError: the folder cannot be written.
    """
    base = trained.preset.base_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [
            int(match[1])
            for path in folder.iterdir()
            if (match := re.fullmatch(rf"{base}_v(\d+)\.pth", path.name))
        ]
        latest = folder / f"{base}_latest.pth"
        if latest.is_dir():  # Found out before a version is taken.
            raise IsADirectoryError(errno.EISDIR, f"{latest} is a directory")
        path = _write_next(trained, folder / base, 1 + max(taken, default=0))
        sidecars.path_of(latest).unlink(missing_ok=True)  # Somebody's, of the file before.
        with replacing(latest) as temporary:
            shutil.copyfile(path, temporary)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return [path, latest]


def caveats(trained: TrainedModel) -> list[str]:
    """Returns what is to be known of what the notebooks make of such a model."""
    if trained.layout.class_name == ASTRA_CLASS and trained.layout.layer_norm:
        return [
            f"the notebook's {ASTRA_CLASS} has no LayerNorm, and will not load norm.weight and "
            "norm.bias"
        ]
    return []


def _write_next(trained: TrainedModel, base: Path, version: int) -> Path:
    """Writes the first version from `version` on that no other export has taken meanwhile."""
    for number in itertools.count(version):
        path = base.with_name(f"{base.name}_v{number}.pth")
        try:
            files.write_pth(path, checkpoint(trained, number))
        except FileExistsError:
            continue
        return path
    raise AssertionError("itertools.count never ends")


def checkpoint(trained: TrainedModel, version: int) -> WeightFile:
    """Returns the checkpoint as the notebook of the model's study writes it."""
    model = trained.preset.model
    sizes = dict(
        n_classes=model.vocab_size, embd_dim=model.embedding_dim, hidden_dim=model.hidden_dim
    )
    metadata: dict[str, Any] = {"model_class": trained.layout.class_name, **sizes}
    if trained.layout.class_name == ASTRA_CLASS:
        metadata = {
            "model_class": ASTRA_CLASS,
            "model_name": trained.preset.title,
            **sizes,
            "dropout": model.dropout,
            "vocab_size": model.vocab_size,
            "num_layers": model.num_layers,
        }
    metadata |= {"timestamp": datetime.now().strftime("%Y-%m-%d %H:%M:%S"), "version": version}
    return WeightFile(trained.arrays, metadata)
