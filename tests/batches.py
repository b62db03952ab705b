"""Patients for what saves, without a folder that they were found in."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_ext.layouts import Study
from medseg_ext.workflow import Failures


@dataclass(frozen=True)
class Batch:
    """Studies, and where failures go."""

    studies: tuple[Study, ...]
    failures: Failures | None


def batch(*studies: Study, failures: Failures | None = None) -> Batch:
    """A batch of these studies."""
    return Batch(studies, failures)
