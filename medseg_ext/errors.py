"""The one error users see, and how it is printed."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

#: What libraries say of a file may be a page long.
_MOST_CHARACTERS = 300
# the last is all that oneDNN says
_OUT_OF_MEMORY = re.compile(
    "out of memory|allocate memory|(unable|failed|tried) to allocate|allocation failed|not enough memory|bad_alloc"
    "|alloc_failed|could not create a primitive(?! descriptor)"
)


def escaped(text: object) -> str:
    """Text of which any terminal and any encoding takes every character.

    File names may hold bytes that are no text, line breaks and a terminal's commands: their escapes stand for them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class InputError(ValueError):
    """Bad input, named by its file.

    Args:
        path: the file or folder at fault.
        found: what is there.
        allowed: what would have been right.
    """

    def __init__(self, path: str | os.PathLike[str], found: str, allowed: str) -> None:
        self.path, self.found, self.allowed = Path(path), found, allowed
        super().__init__(f"{escaped(path)}: found {found}, allowed {allowed}")

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU, on the host, or in a library underneath."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own, not imported here
        return True
    return isinstance(error, (RuntimeError, OSError)) and _OUT_OF_MEMORY.search(str(error).lower()) is not None


def as_input_error(error: BaseException, path: str | os.PathLike[str], allowed: str) -> InputError:
    """Anything that went wrong with a file as the error of that file.

    Args:
        error: an input error, or what was raised from one, gives that; of any other the first cause counts.
        path: the file or folder that was at work.
        allowed: what would have been right.
    """
    known = input_error_in(error)
    if known is not None:
        return known
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    said = escaped(" ".join(str(first).split()))[:_MOST_CHARACTERS]
    if is_out_of_memory(first):
        made = InputError(path, f"more than the memory holds ({said or 'out of memory'})", "what fits into memory")
    else:
        kind = type(first).__name__
        made = InputError(path, f"what cannot be processed ({kind}: {said})" if said else kind, allowed)
    made.__cause__ = error
    return made


@contextmanager
def blaming(path: str | os.PathLike[str], allowed: str) -> Iterator[None]:
    """Make whatever fails inside an error of one file: there is no end to what libraries raise for damaged ones.

    Args:
        path: the file or folder at work inside.
        allowed: what would have been right.

    Raises:
        InputError: see :func:`as_input_error`.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise as_input_error(error, path, allowed) from error


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks, by ``MEDSEG_TRACEBACK=1``."""
    return os.environ.get("MEDSEG_TRACEBACK", "") not in {"", "0"}


def print_error(error: BaseException) -> None:
    """Print ``error: ...`` as one line on stderr, with the traceback before it where that was asked for.

    Progress bars make way for it.
    """
    text = f"error: {escaped(' '.join(line.strip() for line in str(error).splitlines()))}"
    if wants_traceback():
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__)) + text
    if getattr(tqdm, "_instances", None) and not sys.stderr.isatty():
        # in a log the bar ends with a carriage return, behind which no program looks for the start of a line
        text = f"\n{text}"
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()
