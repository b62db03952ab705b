"""Blocks as Markdown and as a page."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from medseg_ext.experiments.document import Document


def test_both(tmp_path: Path) -> None:
    picture = tmp_path / "figures" / "a.png"
    picture.parent.mkdir()
    Image.new("L", (2, 2)).save(picture)
    document = Document("A < B")
    document.heading("Part")
    document.text("5 < 6")
    document.items(["x", "y"])
    document.items([])
    document.table(["a", "b"], [["1|2", "<3>"]])
    document.picture(picture, "what", tmp_path)
    markdown, page = document.write(tmp_path / "report")
    assert markdown.read_text() == (
        "# A < B\n\n## Part\n\n5 < 6\n\n- x\n- y\n\n"
        "| a | b |\n| --- | --- |\n| 1\\|2 | <3> |\n\n![what](figures/a.png)\n"
    )
    html = page.read_text()
    assert "<td>1|2</td><td>&lt;3&gt;</td>" in html
    assert "<h1>A &lt; B</h1>" in html
    assert 'src="data:image/png;base64,' in html
