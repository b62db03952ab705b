"""Remove the report of an earlier run, so that a folder tells of one run only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.files import read_json
from medseg_ext.reports.html.pages import FOLDER as PAGES

STEMS = ("metrics", "measurements")
OVERLAYS = "overlays"
PAGE = "summary.html"


def remove_report(folder: Path, kept_pages: Collection[str | None] = ()) -> None:
    """Remove tables, pages and pictures that a report left in a folder; other files stay, and so do masks.

    Of the pictures and the pages of studies those go that the report's own table names.

    Args:
        folder: of the report.
        kept_pages: names of pages of studies that stay.

    Raises:
        InputError: one of them cannot be removed.
    """
    for stem in STEMS:
        report = _read(folder / f"{stem}.json")
        if "protocols" not in report:  # none of ours
            continue
        pictures = [folder / OVERLAYS / name for name in _names(report, "pictures", ".png")]
        pages = [folder / PAGES / name for name in _names(report, "pages", ".html") if name not in kept_pages]
        for path in (*pictures, *pages, folder / PAGE, folder / f"{stem}.csv", folder / f"{stem}.json"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(path, error.strerror or str(error), "a report that can be replaced") from error


def _names(report: dict[str, Any], key: str, suffix: str) -> list[str]:
    """File names in a list of a report, which may be any JSON."""
    listed = report.get(key)
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [Path(name).name for name in names if name.endswith(suffix)]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, "a report's table")
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
