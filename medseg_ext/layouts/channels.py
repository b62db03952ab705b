"""From the sequences a study has to the channels asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from medseg_ext.errors import InputError, escaped

#: Sequences that FLAIR may stand in for, as it does in about ten patients of the Kaggle set itself.
REPLACEABLE = frozenset({"t1", "t1ce"})


def print_note(text: str) -> None:
    """Say on stderr what was done to the input that its owner may not expect."""
    _collect(text)
    print(f"note: {escaped(text)}", file=sys.stderr, flush=True)


_SAID: set[str] = set()


def print_note_once(text: str) -> None:
    """Say a thing about a file the first time the file is read, not every epoch."""
    if text in _SAID:
        _collect(text)
    else:
        _SAID.add(text)
        print_note(text)


_NOTES: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Give a list to which the notes of the block are added, also those that were said before and are not repeated."""
    notes: list[str] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def _collect(text: str) -> None:
    notes = _NOTES.get()
    if notes is not None:
        notes.append(text)


def check_required(sequences: Sequence[str], path: Path, required: Sequence[str] = ("flair",)) -> None:
    """Refuse a study without a sequence that it cannot do without.

    Raises:
        InputError: naming the sequences there are.
    """
    for name in required:
        if name not in sequences:
            raise InputError(path, f"no {name} (only {', '.join(sequences)})", f"a {name} file in every study")


def select_channels(image: np.ndarray, sources: Sequence[str], wanted: Sequence[str], path: Path) -> np.ndarray:
    """Bring channels into the order asked for; a missing T1 with or without contrast becomes a copy of FLAIR.

    Args:
        image: shape (C, H, W, D), channels as in `sources`.
        sources: canonical names of the channels there are.
        wanted: canonical names of the channels to return.
        path: file or folder for messages.

    Returns:
        Shape (len(wanted), H, W, D); the input itself where nothing has to change.

    Raises:
        InputError: where FLAIR is missing, is the same everywhere, or another sequence is missing that it cannot
            stand in for.
    """
    check_required(sources, path)
    flair = image[sources.index("flair")]
    low, high = flair.min(), flair.max()
    if low == high:
        kind = "an all-black volume" if low == 0 else "a constant volume"
        raise InputError(path, f"{kind} (flair is {low:g} everywhere)", "slices that show a head")
    missing = [name for name in wanted if name not in sources]
    lost = [name for name in missing if name not in REPLACEABLE]
    if lost:
        raise InputError(path, f"no {' and no '.join(lost)} (only {', '.join(sources)})", ", ".join(wanted))
    if missing:
        print_note(f"{path}: no {' and no '.join(missing)}; a copy of flair takes the place, masks may be worse")
    if tuple(wanted) == tuple(sources):
        return image
    return image[[sources.index(name if name in sources else "flair") for name in wanted]]
