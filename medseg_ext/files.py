"""Write a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and rename it to ``path`` when the block ends well.

    The part file is removed when the block fails, and ``path`` stays as it was. The part keeps the suffixes of
    ``path``, by which libraries choose the format.
    """
    target = Path(path)
    part = target.with_name(f".part-{os.getpid()}-{target.name}")
    try:
        yield part
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
