"""Read a file that may be anything; write one whole or not at all: a kill or a full disk leaves the old one or none."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError, escaped


def check_name(name: str, folder: str | os.PathLike[str]) -> str:
    """Refuse what would lead out of a folder as the name of a file in it.

    Args:
        name: of a patient or a case, which files are named by.
        folder: where they go, for the error.

    Returns:
        The name.

    Raises:
        InputError: for a name with folders, a drive or NUL, and for none.
    """
    if name != Path(name).name or name in {"", ".."} or "\0" in name:
        raise InputError(folder, f"the name {escaped(repr(name))}", "names without folders")
    return name


def check_regular(path: str | os.PathLike[str], allowed: str) -> None:
    """Refuse what is there and is no file: opening a pipe would wait for ever.

    Args:
        path: what is about to be opened; a path that leads nowhere is left to whoever opens it.
        allowed: what it should be, for the error.

    Raises:
        InputError: for a folder, pipe, socket or device.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        raise InputError(path, "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device", allowed)


def read_json(path: str | os.PathLike[str], allowed: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file, in UTF-8.
        allowed: what it should hold, for the error.

    Raises:
        InputError: for a file that is missing, unreadable, no JSON, or nested deeper than Python goes.
    """
    check_regular(path, allowed)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows' editors put a mark in front
    except FileNotFoundError as error:
        raise InputError(path, "no such file", allowed) from error
    except OSError as error:
        raise InputError(path, f"an unreadable file ({error.strerror or error})", allowed) from error
    except RecursionError as error:
        raise InputError(path, "JSON nested too deeply", allowed) from error
    except ValueError as error:
        raise InputError(path, f"no readable JSON ({error})", allowed) from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


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
        content: bytes, or text, which is written as UTF-8 with the line ends it has; of what UTF-8 cannot hold, the
            bytes of odd file names, as escapes.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as part:
            part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(path, error.strerror or str(error), "a writable folder with room left") from error
    return path
