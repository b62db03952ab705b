"""Canonical names of MRI sequences, their aliases, and how file names carry them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg_ext.errors import InputError

CANONICAL = ("t1", "t1ce", "t2", "flair")

ALIASES: dict[str, tuple[str, ...]] = {
    "t1": ("t1", "t1n", "t1w", "t1pre", "t1wpre", "pre"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post", "t1wce", "t1wc", "t1wgd", "t1wpost", "post"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "fla", "t2flair", "t2wflair"),
}
_NAMES = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
# "pre" and "post" are everyday words: alone in a file's name they count only when nothing clearer is there.
_WEAK = frozenset({"pre", "post"})
_ALLOWED = "; ".join(f"{name} ({', '.join(a for a in aliases if a != name)})" for name, aliases in ALIASES.items())

# BIDS: ``sub-01_ce-gd_T1w`` is a T1 with that contrast agent.
_AGENT = re.compile(r"(?:(?<=_)|^)ce-([A-Za-z0-9]+)(?=_)", re.IGNORECASE)
_NO_AGENT = frozenset({"no", "none", "without", "pre", "native"})

#: Words by which a file is an outline of something or a map made from images, and no image.
_MASK_WORD = re.compile(
    r"(mask|brainmask|seg|segm|segmentation|label|lesion|gt|groundtruth|truth|roi|contour|annotation|pred|prediction"
    r"|prob|probability)s?\d*"
)
_MASK_FOLDER = re.compile(
    r"(.+[_-])?masks?|segs?|segmentations?|labels?|annotations?|gt|ground[_ -]?truths?|truth", re.IGNORECASE
)

NIFTI_SUFFIXES = (".nii.gz", ".nii")
PICTURE_SUFFIXES = (".tif", ".tiff", ".png")
_SUFFIXES = (*NIFTI_SUFFIXES, *PICTURE_SUFFIXES)


def canonical_sequence(name: str) -> str:
    """The canonical name of a sequence.

    Args:
        name: any name in use, upper or lower case, with or without separators: ``T1Gd``, ``t2f``, ``T1-post``.

    Raises:
        InputError: for a name that is none of them.
    """
    key = re.sub(r"[^a-z0-9]", "", str(name).lower())
    if key not in _NAMES:
        raise InputError("sequence name", repr(name), _ALLOWED)
    return _NAMES[key]


def canonical_channels(channels: Iterable[str], what: str = "channel order") -> tuple[str, ...]:
    """A channel order in canonical names, each at most once.

    Args:
        channels: names in any spelling; one text may hold several separated by commas.
        what: how the error names the value.

    Raises:
        InputError: for an unknown name, a name that occurs twice, or no name.
    """
    listed = channels.split(",") if isinstance(channels, str) else list(channels)
    names = tuple(canonical_sequence(name) for name in listed)
    if not names or len(set(names)) < len(names):
        raise InputError(what, ", ".join(names) or "no names", f"each of {', '.join(CANONICAL)} at most once")
    return names


def split_suffix(name: str) -> tuple[str, str]:
    """File name without its suffix, and the suffix in lower case (``.nii.gz`` is one); '' for other kinds of file."""
    lower = name.lower()
    for suffix in _SUFFIXES:
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def _scan(stem: str) -> list[tuple[str, int, int]]:
    """Sequences that a stem names, as (alias, start, end); neighbours such as ``t2_flair`` are one name."""
    agent = _AGENT.search(stem)
    tokens = list(re.finditer(r"[A-Za-z0-9]+", stem))
    if agent:
        tokens = [token for token in tokens if token.end() <= agent.start() or token.start() >= agent.end()]
    hits: list[tuple[str, int, int]] = []
    i = 0
    while i < len(tokens):
        single = tokens[i].group().lower()
        pair = single + tokens[i + 1].group().lower() if i + 1 < len(tokens) else ""
        # A pair counts only behind a sequence of its own, or "t" + "1" in a patient's name would make one.
        if single in _NAMES and pair in _NAMES:
            hits.append((pair, tokens[i].start(), tokens[i + 1].end()))
            i += 2
            continue
        if single in _NAMES:
            hits.append((single, tokens[i].start(), tokens[i].end()))
        i += 1
    if any(alias not in _WEAK for alias, _, _ in hits):
        hits = [hit for hit in hits if hit[0] not in _WEAK]
    if agent and hits:
        contrast = agent.group(1).lower() not in _NO_AGENT
        hits = [("t1ce" if contrast and _NAMES[hit[0]] == "t1" else hit[0], hit[1], hit[2]) for hit in hits]
        hits = sorted([*hits, (hits[0][0], *agent.span())], key=lambda hit: hit[1])
    return hits


def sequences_in(stem: str) -> set[str]:
    """Canonical names of the sequences that a file's stem mentions."""
    return {_NAMES[alias] for alias, _, _ in _scan(stem)}


def names_mask(stem: str) -> bool:
    """Whether a file's stem says that it is a mask, or may be one: ``p_seg_flair``, ``p_flair_gt``, ``mask_t1``.

    A patient may be called ``lesion_12``: that word in front of a number says nothing.
    """
    words = re.findall(r"[A-Za-z0-9]+", stem.lower())
    if len(words) > 1 and words[0] in {"lesion", "lesions"} and words[1].isdigit():
        words = words[1:]
    return any(_MASK_WORD.fullmatch(word) for word in words)


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that masks lie in it: ``masks``, ``p1_masks``, ``labels``, ``gt``."""
    return _MASK_FOLDER.fullmatch(name) is not None


def without_sequence(stem: str) -> str:
    """A file's stem without the parts that name a sequence: what the files of one study or slice have in common."""
    for _, start, end in reversed(_scan(stem)):
        before, after = stem[:start], stem[end:]
        stem = before.rstrip("_-. ") + after if before else after.lstrip("_-. ")
    return stem


def file_of_each(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Files by their sequence, in the canonical order.

    Args:
        named: canonical names with their files.

    Raises:
        InputError: where a sequence is there twice.
    """
    by_sequence: dict[str, Path] = {}
    for sequence, path in named:
        if sequence in by_sequence:
            raise InputError(path, f"a second {sequence} file (also {by_sequence[sequence].name})", "one a sequence")
        by_sequence[sequence] = path
    return {name: by_sequence[name] for name in CANONICAL if name in by_sequence}


def sequence_of_file(path: str | os.PathLike[str], siblings: Sequence[str] = ()) -> str:
    """The sequence that a file's name says it holds.

    Args:
        path: such as ``case_flair.nii.gz``, ``case-t2f.nii.gz``, ``x_T1Gd.nii``.
        siblings: names of the files beside it, listed in the error.

    Raises:
        InputError: when the name says nothing, or several things.
    """
    names = sequences_in(split_suffix(Path(path).name)[0])
    if len(names) == 1:
        return names.pop()
    found = f"{' and '.join(sorted(names))} in the name" if names else "no sequence in the name"
    if siblings:
        found += f" (files: {', '.join(siblings)})"
    raise InputError(path, found, f"one of {_ALLOWED}")
