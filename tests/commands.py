"""The scripts as a person runs them, in this process."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from typing import NamedTuple, TextIO
from unittest import mock

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


class Result(NamedTuple):
    """What a script left when it ended."""

    code: int
    out: str
    err: str


def call(script: str, *arguments: object, out: TextIO | None = None) -> Result:
    """Runs a script in this process, as from a shell; what it prints goes into `out` if given."""
    told, err = io.StringIO(), io.StringIO()
    path = str(SCRIPTS / script)
    with (
        mock.patch.object(sys, "argv", [path, *map(str, arguments)]),
        contextlib.redirect_stdout(out or told),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_path(path, run_name="__main__")
    assert isinstance(end.value.code, int)
    return Result(end.value.code, told.getvalue(), err.getvalue())
