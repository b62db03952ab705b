"""Write a file whole or not at all: a kill or a full disk leaves the old one or none, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg_ext.errors import InputError


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


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write ready content by :func:`write_beside`.

    Args:
        path: where the file goes; missing folders are made.
        content: bytes, or text, which is written as UTF-8 with the line ends it has.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(path, error.strerror or str(error), "a writable folder with room left") from error
    return path
