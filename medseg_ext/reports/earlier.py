"""Remove the report of an earlier run, so that a folder tells of one run only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.files import read_json

STEMS = ("metrics", "measurements")
OVERLAYS = "overlays"
PAGE = "summary.html"


def remove_report(folder: Path) -> None:
    """Remove tables, page and pictures that a report left in a folder; other files stay, and so do masks.

    Of the pictures those go that the report's own table names.

    Raises:
        InputError: one of them cannot be removed.
    """
    for stem in STEMS:
        report = _read(folder / f"{stem}.json")
        if "protocols" not in report:  # none of ours
            continue
        listed = report.get("pictures")
        names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        pictures = [folder / OVERLAYS / Path(name).name for name in names if name.endswith(".png")]
        for path in (*pictures, folder / PAGE, folder / f"{stem}.csv", folder / f"{stem}.json"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(path, error.strerror or str(error), "a report that can be replaced") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, "a report's table")
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
