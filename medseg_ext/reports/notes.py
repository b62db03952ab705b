"""What handlers ask of the notes of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class CaseNotes(Protocol):
    """Notes of cases that outlive a run, as :class:`medseg_ext.workflow.CaseRecords` keeps them."""

    def path(self, part: str, patient: str, suffix: str = ".json") -> Path:
        """Where a part of a case is noted, or what belongs to it."""

    def write(self, part: str, patient: str, content: Any) -> None:
        """Note a part of a case."""

    def read(self, part: str, patients: Sequence[str]) -> dict[str, Any]:
        """A part of those cases that have it noted, by case."""
