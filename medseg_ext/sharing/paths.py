"""Names of files that mean the same on every system, and on none a place outside the bundle."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

#: Names that Windows keeps for devices, whatever their suffix.
_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|COM[0-9¹²³]|LPT[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\\]')
_MOST_CHARACTERS = 200
_MOST_LEVELS = 12


def fault_of(path: str) -> str | None:
    """Why a path, as an archive or folder has it, is not taken; None for one that is.

    Args:
        path: relative, with ``/`` between its parts.
    """
    if len(path) > _MOST_CHARACTERS or path.count("/") > _MOST_LEVELS:
        return "a path that is too long"
    if not path.isprintable() or any(0xD800 <= ord(character) < 0xE000 for character in path):
        return "a path with control characters"
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        return "an absolute path"
    for part in path.split("/"):
        if part == "..":
            return "a path that leads upwards"
        if part in {"", "."}:
            return "a path with an empty part"
        if _FORBIDDEN.search(part):
            return "a path with a character that Windows does not allow"
        if part[-1] in ". " or part[0] == " ":
            return "a name that ends in a point or space"
        if _DEVICES.fullmatch(part):
            return "the name of a device"
        if part.startswith("."):
            return "a hidden file"
        if part.startswith("~"):
            return "a name that begins with ~"
    return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def collisions(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of files that are one on some system: equal, equal but for case or composition, or file and folder."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[_folded(path)].append(path)
    pairs = [(same[0], other) for same in found.values() for other in same[1:]]
    for folded, same in found.items():
        parts = folded.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            if folder in found:
                pairs.append((found[folder][0], same[0]))
    # two spellings of one folder
    spellings: dict[str, set[str]] = defaultdict(set)
    for same in found.values():
        parts = same[0].split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            spellings[_folded(folder)].add(folder)
    pairs += [(min(names), max(names)) for names in spellings.values() if len(names) > 1]
    return pairs
