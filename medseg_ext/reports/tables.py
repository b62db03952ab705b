"""The numbers as files: ``metrics.csv``, a row a patient, and ``metrics.json``, what they come to."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_ext.files import write_atomically

DECIMALS = 6


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write rows with a header, at once or not at all.

    Floats have six decimals, so that two runs compare as text; NaN is an empty field.  Columns are those of all rows
    together, in the order in which they first appear.

    Args:
        rows: one mapping a patient.
        path: the file.

    Raises:
        InputError: the file cannot be written.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row.get(column)) for column in columns] for row in rows)
    return write_atomically(path, text.getvalue())


def write_json(content: Mapping[str, Any], path: Path) -> Path:
    """Write a mapping as strict JSON, at once or not at all: floats with six decimals, NaN and infinity as ``null``.

    Args:
        content: nested mappings and sequences of numbers and text; numpy scalars are allowed.
        path: the file.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, text + "\n")


def _field(value: Any) -> str:
    if value is None:
        return ""
    value = _scalar(value)
    if isinstance(value, float):
        return f"{value:.{DECIMALS}f}" if math.isfinite(value) else ""
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    value = _scalar(value)
    if isinstance(value, float):
        return round(value, DECIMALS) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)


def _scalar(value: Any) -> Any:
    """A numpy or torch number as Python's own."""
    return value.item() if hasattr(value, "item") else value
