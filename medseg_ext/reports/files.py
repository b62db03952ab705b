"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from medseg_ext.errors import InputError


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write beside ``path`` and rename: a kill or a full disk leaves the old file or none, never half of one.

    Args:
        path: where the file goes; missing folders are made.
        content: bytes, or text, which is written as UTF-8 with the line ends it has.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(path, error.strerror or str(error), "a folder that can be written, with room left") from error
    return path
