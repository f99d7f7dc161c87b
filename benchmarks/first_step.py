"""Runs a training script as a person would, and ends its process after the first step.

python -m benchmarks.first_step scripts/train.py --model alpha
"""

import importlib.abc
import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

WATCHED = "astra_jax.training.pace"


class _EndAfterFirstStep(importlib.abc.MetaPathFinder):
    """Waits for the clock of the training loop to be imported, as the script has it imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Lets the others find it, and changes it once it is there."""
        del path, target
        if fullname != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            # The first pace that is observed is that of the first call, which does one step.
            assert callable(module.Pace.observe)
            module.Pace.observe = _end

        spec.loader.exec_module = exec_module
        return spec


def _end(*arguments: object) -> NoReturn:
    del arguments
    os._exit(0)


def main(script: str, *arguments: str) -> NoReturn:
    """Runs the script; ends with 1 if it ends without a step."""
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(script)
    sys.meta_path.insert(0, _EndAfterFirstStep())
    runpy.run_path(script, run_name="__main__")
    sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
