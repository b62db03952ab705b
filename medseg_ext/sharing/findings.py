"""What an audit finds, with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medseg_ext.errors import escaped

#: What of a bundle's own text is repeated in a finding: it may be as long as it likes.
_MOST_CHARACTERS = 120


def quoted(text: object) -> str:
    """A bundle's own text, made printable and cut to a line."""
    shown = escaped(text)
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[:_MOST_CHARACTERS]}..."


@dataclass(frozen=True, order=True)
class Finding:
    """One reason to refuse a bundle.

    Args:
        file: path inside the bundle, ``""`` for the bundle as a whole.
        line: line in that file, from 1; 0 where there are no lines.
        rule: short name of the rule that is broken.
        found: what is there.
        allowed: what would have been right.
    """

    file: str
    line: int
    rule: str
    found: str
    allowed: str

    def __str__(self) -> str:
        place = quoted(self.file or "bundle") + (f":{self.line}" if self.line else "")
        return f"{place}: [{self.rule}] found {self.found}, allowed {self.allowed}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of an audit.

    Args:
        bundle: name of the folder or archive.
        files: how many files were looked at.
        findings: why it is refused; none for a bundle that passes.
    """

    bundle: str
    files: int
    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """The verdict for machines."""
        return {
            "bundle": self.bundle,
            "verdict": "passed" if self.passed else "refused",
            "files": self.files,
            "findings": [asdict(finding) for finding in self.findings],
        }
