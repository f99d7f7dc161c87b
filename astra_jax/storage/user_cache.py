"""The user's cache folder, for what can be had again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the user's own cache folder, after the XDG base directory specification.

    Raises:
        FileNotFoundError: the user has no home folder, and none was named.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:  # The specification has relative paths ignored.
        return (named if named.is_absolute() else Path.home() / ".cache") / "astra"
    except RuntimeError as error:
        raise FileNotFoundError(2, "no home folder is known, set HOME", "~/.cache") from error
