"""Find the state dict in a checkpoint, and the tensor of it that each tensor of a network is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg_ext.errors import InputError

#: Names under which checkpoints keep a state dict, the likeliest first.
KEYS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights")


def find_state_dict(content: Any, path: Path, key: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that are its network's.

    Args:
        content: what the file held: a state dict, or dictionaries in dictionaries of which one or more are state
            dicts, beside an epoch, an optimizer or whatever else.
        path: for errors.
        key: names on the way to it, joined by points; empty looks under :data:`KEYS`, then takes the only one.

    Raises:
        InputError: there is none, or nothing says which.
    """
    if not isinstance(content, Mapping):
        raise InputError(path, f"a {type(content).__name__}", "a state dict, alone or in a checkpoint")
    found = {".".join(where): part for where, part in _state_dicts(content, ())}
    if key:
        if key not in found:
            raise InputError(path, f"no state dict under {key!r}", _listed(found))
        return found[key]
    if "" in found:
        return found[""]
    usual = [name for name in KEYS if name in found]
    if not usual and len(found) != 1:
        raise InputError(path, f"{len(found)} state dicts", f"one, or the key of one: {_listed(found)}")
    return found[usual[0]] if usual else next(iter(found.values()))


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(sorted(found)[:8]) or "a file of weights"


def _state_dicts(content: Mapping[Any, Any], where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict]]:
    named = [(name, value) for name, value in content.items() if isinstance(name, str)]
    inner = [
        found for name, value in named if isinstance(value, Mapping) for found in _state_dicts(value, (*where, name))
    ]
    own = {name: value for name, value in named if isinstance(value, torch.Tensor)}
    if own and not inner:  # beside a state dict a tensor is something else, such as the state of a generator
        yield where, own
    yield from inner


def match_names(
    source: Collection[str], target: Collection[str], rename: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which name of a source each name of a network is.

    First the rules rename, in their order. Then a prefix that the two sides do not share (``module.``, ``model.``, a
    wrapper's attribute) is taken off or put in front, whichever brings the most names together.

    Args:
        source: names in the source.
        target: names in the network.
        rename: replacements by regular expression, as ``re.sub`` takes them.

    Returns:
        names of the source by name of the network.

    Raises:
        InputError: a rule is no regular expression, changes nothing, or makes one name of two.
    """
    renamed = {name: name for name in source}
    for pattern, replacement in (rename or {}).items():
        try:
            changed = {name: re.sub(pattern, replacement, new) for name, new in renamed.items()}
        except (re.error, IndexError) as error:
            raise InputError("rename", f"{pattern!r}: {replacement!r} ({error})", "regular expressions") from error
        if changed == renamed:
            example = min(renamed.values(), default="nothing")
            raise InputError(
                "rename", f"{pattern!r}: {replacement!r}, which changes no name", f"one that does, e.g. {example}"
            )
        renamed = changed
    by_new: dict[str, str] = {}
    for name, new in renamed.items():
        if new in by_new:
            raise InputError("rename", f"{by_new[new]} and {name} becoming {new}", "a name for each")
        by_new[new] = name
    wanted = set(target)
    off, front = max(
        ((off, front) for off in _prefixes(by_new) for front in _prefixes(wanted)),
        key=lambda pair: (
            sum(_moved(name, *pair) in wanted for name in by_new),
            -len(pair[0]) - len(pair[1]),
        ),
    )
    moved = {_moved(new, off, front): name for new, name in by_new.items()}
    return {name: moved[name] for name in target if name in moved}


def _moved(name: str, off: str, front: str) -> str | None:
    return front + name[len(off) :] if name.startswith(off) else None


def _prefixes(names: Collection[str]) -> list[str]:
    """Beginnings that at least half of the names have, up to a point each; the empty one first."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return ["", *(prefix for prefix, count in counts.items() if 2 * count >= len(names))]
