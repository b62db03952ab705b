"""A report of headings, text, tables and pictures, written as Markdown and as one page of HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg_ext.errors import InputError
from medseg_ext.files import write_atomically, write_beside

if TYPE_CHECKING:  # it takes a second, and most of what a sweep does draws nothing
    from matplotlib.figure import Figure

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "div{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;white-space:nowrap}img{max-width:100%}"
)


class Document:
    """Collect blocks in order, then write both files.

    Args:
        title: heading of the whole.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._markdown = [f"# {title}"]
        self._html = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """A heading below the title."""
        self._markdown.append(f"## {text}")
        self._html.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._markdown.append(text)
        self._html.append(f"<p>{html.escape(text)}</p>")

    def items(self, lines: Sequence[str]) -> None:
        """A list."""
        if lines:
            self._markdown.append("\n".join(f"- {line}" for line in lines))
            self._html.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table."""
        lines = [head, ["---"] * len(head), *rows]
        self._markdown.append(
            "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        )
        cells = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
        cells += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        self._html.append("<div><table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table></div>")

    def picture(self, path: Path, caption: str, folder: Path) -> None:
        """A PNG: linked to from the Markdown in ``folder``, embedded in the page."""
        self._markdown.append(f"![{caption}]({path.relative_to(folder).as_posix()})")
        data = base64.b64encode(path.read_bytes()).decode()
        self._html.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, stem: Path) -> tuple[Path, Path]:
        """Write ``STEM.md`` and ``STEM.html``.

        Raises:
            InputError: they cannot be written.
        """
        page = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><body>'
            + "\n".join(self._html)
            + "</body></html>\n"
        )
        markdown = write_atomically(stem.with_suffix(".md"), "\n\n".join(self._markdown) + "\n")
        return markdown, write_atomically(stem.with_suffix(".html"), page)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure for :meth:`Document.picture`; its folder is made when missing.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as part:
            figure.savefig(part, dpi=110)
    except OSError as error:
        raise InputError(path, error.strerror or str(error), "a writable folder") from error
    return path
