"""Switches that every test runs under: checked shapes, no silent promotion, no network."""

import logging
import os
import sys

# Before JAX starts: two devices, so that nothing quietly depends on there being one.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
)

from jaxtyping import install_import_hook

# The modules of arrays; beartype as a function decorator does not know the Self of the others.
_ARRAYS = (
    *("gru", "initializers", "model", "losses", "optimizers", "data.datasets", "data.splits"),
    *("evaluation", "training.trainer", "threefry"),
    *("sampling.draws", "sampling.sampler", "sampling.strategies"),
)
install_import_hook([f"astra_jax.{name}" for name in _ARRAYS], "beartype.beartype")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import pytest

from astra_jax.config import Preset
from astra_jax.data import builtin_corpus, corpus
from astra_jax.data.splits import Split
from astra_jax.experiments import lifecycle
from astra_jax.machine import compile_cache
from astra_jax.runs.folder import Run
from astra_jax.training import fitting
from tests.trainings import Begin, Silent, Train

_DATA_DIR = os.environ.get(corpus.DATA_DIR_VARIABLE)


@pytest.fixture(scope="module", autouse=True)
def _strict() -> Iterator[None]:
    """In a fixture, since parity_tests may run in the same process and compile as users do."""
    # Compiling takes most of the time of models as tiny as these.
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _late_reads() -> Iterator[None]:
    """Suppresses the errors of Orbax's reads that still run when a damaged checkpoint's has failed.

    They come up in threads, or at garbage collection. Where that is while something is parsed,
    Python 3.11 fails ("AST constructor recursion depth mismatch"), as it parses the lines of the
    traceback that it is to show.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def without_late_reads(said: Any) -> None:
        if str(said.exc_value) != "Event loop is closed":
            hook(said)

    sys.unraisablehook = without_late_reads
    yield
    sys.unraisablehook = hook


@pytest.fixture
def optimized() -> Iterator[None]:
    """Compiles as users do: without optimizations, float64 is 1e-10 off from how they do."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Checks no shapes and types, as users run it: what is said of wrong ones is what they read."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def data_dir() -> Path:
    """The folder of the two published corpora; tests that need it are skipped without it."""
    if _DATA_DIR is None:
        pytest.skip(f"{corpus.DATA_DIR_VARIABLE} is not set")
    return Path(_DATA_DIR)


def _no_network(url: str, size: int) -> bytes:
    raise OSError(f"tests do not reach {url} for {size} bytes")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.delenv(corpus.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(corpus, "_fetch", _no_network)
    # So do the processes that a test starts.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # JAX has one cache a process, which would outlive the test's folder.
    monkeypatch.setattr(compile_cache, "enable", lambda: "")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A few hundred windows and words: enough to train on, quick to go through."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "text.txt").write_text(builtin_corpus.play()[:6000])
    (folder / "words.txt").write_text("\n".join(builtin_corpus.names().split()[:301]))
    return {"shakespeare": str(folder / "text.txt"), "names": str(folder / "words.txt")}


@pytest.fixture
def begin(corpora: dict[str, str], tmp_path: Path) -> Begin:
    def begin(preset: Preset, name: str = "run") -> tuple[Run, Split]:
        return lifecycle.begin(preset, corpora[preset.data.dataset], tmp_path / name)

    return begin


@pytest.fixture
def train(begin: Begin) -> Train:
    def train(preset: Preset, name: str = "run") -> Run:
        run, split = begin(preset, name)
        fitting.fit(run, split, Silent())
        return run

    return train
