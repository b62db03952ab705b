"""Choose parameters and modules by regular expressions over their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from medseg_ext.errors import InputError


def matches(name: str, patterns: Iterable[str]) -> bool:
    r"""Whether a name begins with one of the expressions: ``backbone\.downsamples`` takes all that is below it."""
    return any(re.match(pattern, name) for pattern in patterns)


def check_patterns(what: str, patterns: Sequence[str], names: Iterable[str]) -> None:
    """Refuse an expression that is none, or that no name begins with: a misspelt one would do nothing.

    Args:
        what: the option, for the error.
        patterns: regular expressions.
        names: of all parameters.

    Raises:
        InputError: for the first such expression.
    """
    listed = list(names)
    for pattern in patterns:
        try:
            hit = any(re.match(pattern, name) for name in listed)
        except re.error as error:
            raise InputError(what, f"{pattern!r} ({error})", "regular expressions") from error
        if not hit:
            blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in listed)
            raise InputError(what, f"{pattern!r}, with which no name begins", f"one of {', '.join(blocks)}")
