"""The allow-list: exact public names, looked up in a file so that nothing has to be imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from medseg_ext.errors import InputError
from medseg_ext.sharing.audit.rules import RESTRICTED, restricted_of

NAMES_FILE = Path(__file__).with_name("names.txt")

#: What MONAI puts into every expression's globals.
DEFAULT_GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}

_ARGUMENT = re.compile(r"\w+")
_PLACE = re.compile(r"\w+:(-1|\d+)")
_NAME = re.compile(r"~?[A-Za-z]\w*(\.\w+)*")


@dataclass(frozen=True)
class AllowedNames:
    """Names that configs may use.

    Args:
        values: those that may stand anywhere.
        components: those that may be a ``_target_`` only, for one of their arguments is restricted, with the arguments
            that have to be given.
        writers: those that may be called, no more, for some of their arguments say where they write, with these
            arguments' places: name and position, -1 for one that is given by name alone. They may be a ``_target_``
            where these names are restricted everywhere, for a config merged over it may set any of them.
    """

    values: frozenset[str]
    components: Mapping[str, tuple[str, ...]]
    writers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def modules(self) -> frozenset[str]:
        """Modules that may be imported: those with an allowed name in or below them."""
        parts = (name.split(".") for name in (*self.values, *self.components, *self.writers))
        return frozenset(".".join(split[:end]) for split in parts for end in range(1, len(split))) | {"os"}

    def is_target(self, name: str) -> bool:
        """Whether a component may be made of it."""
        if name in self.writers:
            return self.writers[name].keys() <= RESTRICTED.keys() | restricted_of(name).keys()
        return name in self.values or name in self.components


def read_names(extra: Iterable[Path] = ()) -> AllowedNames:
    """Read the list that ships with the package.

    Args:
        extra: files with further names, one a line, ``#`` for comments; ``~`` marks one for components alone, behind
            which stand arguments that have to be given; behind others stand arguments that say where they write, as
            ``output_dir:2`` (the third).

    Raises:
        InputError: for a file that is missing or a line that is no name.
    """
    values: set[str] = set()
    components: dict[str, tuple[str, ...]] = {}
    writers: dict[str, dict[str, int]] = {}
    for path in (NAMES_FILE, *extra):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(path, f"an unreadable file ({error})", "names, one a line") from error
        for number, line in enumerate(lines, start=1):
            name, *arguments = line.split("#")[0].split() or [""]
            if not name:
                continue
            component = name.startswith("~")
            wording = _ARGUMENT if component else _PLACE
            if not _NAME.fullmatch(name) or not all(wording.fullmatch(argument) for argument in arguments):
                raise InputError(path, f"{line.strip()!r} in line {number}", "full names, one a line")
            if component:
                components[name[1:]] = tuple(arguments)
            elif arguments:
                places = (argument.split(":") for argument in arguments)
                writers[name] = {argument: int(place) for argument, place in places}
            else:
                values.add(name)
    writers = {name: places for name, places in writers.items() if name not in components}
    return AllowedNames(frozenset(values - components.keys() - writers.keys()), components, writers)
