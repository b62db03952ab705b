"""The one error users see, and the collection of a batch's failures."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path


class InputError(ValueError):
    """Bad input, named by its file.

    Args:
        path: the file or folder at fault.
        found: what is there.
        allowed: what would have been right.
    """

    def __init__(self, path: str | os.PathLike[str], found: str, allowed: str) -> None:
        self.path, self.found, self.allowed = Path(path), found, allowed
        super().__init__(f"{path}: found {found}, allowed {allowed}")

    def __reduce__(self) -> tuple[type[InputError], tuple[Path, str, str]]:
        return type(self), (self.path, self.found, self.allowed)


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks, by ``MEDSEG_TRACEBACK=1``."""
    return os.environ.get("MEDSEG_TRACEBACK", "") not in {"", "0"}


def print_error(error: BaseException) -> None:
    """Print ``error: ...`` as one line on stderr, with the traceback before it where that was asked for."""
    if wants_traceback():
        traceback.print_exception(type(error), error, error.__traceback__)
    line = " ".join(str(error).split())
    print(f"error: {line}", file=sys.stderr, flush=True)
