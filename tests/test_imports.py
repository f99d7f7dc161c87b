"""Imports run one way, each side without the other's framework, and the package's own is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import astra_jax

ROOT = Path(__file__).parent.parent
JAX_MODULES = [
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in sorted((ROOT / "astra_jax").rglob("*.py"))
]
ROOMS = (
    *("units", "errors", "console", "storage", "config", "presets", "machine"),
    *("losses", "data", "published"),
    *(
        "initializers",
        "threefry",
        "dropout",
        "optimizers",
        "gru",
        "model",
        "sampling",
        "runs",
        "training",
    ),
    *("evaluation", "experiments", "report", "cli"),
)
"""From the ground up: a module imports from its own room and from those before it."""
TORCH_MODULES = [f"astra_torch.{name}" for name in ("models", "data", "training", "sampling")]

_BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import importlib
for name in {modules!r}:
    importlib.import_module(name)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("blocked", "modules"),
    [
        (["torch", "astra_torch"], JAX_MODULES),
        (["jax", "jaxlib", "flax", "optax", "orbax"], TORCH_MODULES),
    ],
    ids=["jax", "torch"],
)
def test_each_side_imports_alone(blocked: list[str], modules: list[str]):
    if modules is TORCH_MODULES:
        pytest.importorskip("torch")
    result = run(_BLOCKED.format(blocked=blocked, modules=modules))
    assert result.returncode == 0, result.stderr


def _imported(path: Path) -> Iterator[str]:
    """Yields the rooms that a module of `astra_jax` imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            top, *rooms = (node.module or "").split(".")
            if top == "astra_jax":
                yield from rooms[:1] or [name.name for name in node.names]


def test_imports_run_one_way():
    package = ROOT / "astra_jax"
    told = 0
    for path in package.rglob("*.py"):
        room = path.relative_to(package).with_suffix("").parts[0]
        if room == "__init__":
            continue
        for other in set(_imported(path)) - {"__version__"}:
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports from {other}"
            told += 1
    assert told > 100


def test_the_public_names_are_the_same_to_everybody():
    everything: dict[str, object] = {}
    exec("from astra_jax import *", everything)
    assert {*everything} - {"__builtins__"} == {*astra_jax.__all__} == {*dir(astra_jax)}


def test_the_package_loads_nothing_before_it_is_used():
    result = run(
        "import sys, astra_jax; assert 'jax' not in sys.modules\n"
        "for name in dir(astra_jax): getattr(astra_jax, name)\n"
        "assert 'torch' not in sys.modules"
    )
    assert result.returncode == 0, result.stderr


def test_training_begins_without_what_only_its_end_needs(tmp_path: Path):
    result = run(
        "import runpy, sys\n"
        "from pathlib import Path\n"
        "runpy.run_path('scripts/train.py', run_name='train')\n"
        "from astra_jax.runs.checkpoints import Checkpoints\n"
        f"with Checkpoints(Path({str(tmp_path / 'new')!r}), keep=1) as new:\n"
        "    assert new.latest_step is None\n"
        "    new.remove_after(0)\n"
        "assert 'jax' in sys.modules\n"
        "late = {'matplotlib', 'orbax', 'tensorboardX', 'onnx'} & set(sys.modules)\n"
        "assert not late, late"
    )
    assert result.returncode == 0, result.stderr
