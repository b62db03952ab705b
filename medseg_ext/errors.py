"""The one error users see, and how it is printed."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from tqdm import tqdm


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


def input_error_in(error: BaseException | None) -> InputError | None:
    """The input error that ``error`` is or was raised from, as MONAI's ``Compose`` and configs raise their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, InputError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks, by ``MEDSEG_TRACEBACK=1``."""
    return os.environ.get("MEDSEG_TRACEBACK", "") not in {"", "0"}


def print_error(error: BaseException) -> None:
    """Print ``error: ...`` as one line on stderr, with the traceback before it where that was asked for.

    Progress bars make way for it.
    """
    text = f"error: {' '.join(str(error).split())}"
    if wants_traceback():
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__)) + text
    if getattr(tqdm, "_instances", None) and not sys.stderr.isatty():
        # in a log the bar ends with a carriage return, behind which no program looks for the start of a line
        text = f"\n{text}"
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()
