import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from medseg_ext.errors import InputError
from medseg_ext.metrics import summarise
from medseg_ext.reports import Picture, write_summary
from medseg_ext.reports import summary as summary_module
from medseg_ext.reports.summary import DISCLAIMER, format_value

ROWS = [
    {"patient": "<b>eve</b>", "dice": 0.9, "hd95_px": float("nan"), "area_px": 12345, "predicted_area_px": 12000},
    {"patient": "p2", "dice": 0.5, "hd95_px": 3.0, "area_px": 10, "predicted_area_px": 20},
]


class Balance(HTMLParser):
    """Fails on tags that do not close each other."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(tmp_path, **changes):
    arguments = {"title": "T & <t>", "rows": ROWS, "aggregate": summarise(ROWS)} | changes
    page = write_summary(tmp_path / "summary.html", **arguments).read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    return page


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "overlays").mkdir()
    path = tmp_path / "overlays" / "worst_a#b.png"
    Image.new("RGB", (4, 4)).save(path)
    return Picture(path, 'worst "a"')


def test_everything_is_there_and_escaped(tmp_path, picture):
    error = InputError("/d/<x>.tif", "nothing\nat all", "an image")
    page = page_of(
        tmp_path,
        pictures=[picture],
        provenance={"weights_sha256": "ab12", "command": 'run --x "<y>"'},
        errors=[error, "p7: <bad>"],
        note="5 < 6",
    )
    assert "T &amp; &lt;t&gt;" in page
    assert "&lt;b&gt;eve&lt;/b&gt;" in page
    assert "/d/&lt;x&gt;.tif: found nothing at all, allowed an image" in page
    assert "p7: &lt;bad&gt;" in page
    assert "2 failed" in page
    assert "run --x &quot;&lt;y&gt;&quot;" in page
    assert "5 &lt; 6" in page
    assert "0.700" in page
    assert DISCLAIMER in page
    assert not re.search(r"<b>|<y>|<x>|<bad>|<t>", page)


def test_complete_in_one_file(tmp_path, picture):
    page = page_of(tmp_path, pictures=[picture])
    assert 'src="data:image/png;base64,iVBOR' in page
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|url\(", page)


def test_many_pictures_are_linked(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(summary_module, "_EMBED_BYTES", 10)
    assert 'src="overlays/worst_a%23b.png"' in page_of(tmp_path, pictures=[picture])


def test_without_truth(tmp_path):
    rows = [{"patient": "p", "predicted_area_px": 20, "predicted_volume_ml": 1.5, "n_slices": 3}]
    page = page_of(tmp_path, rows=rows, aggregate=summarise(rows))
    assert "Predicted volume [ml]" in page
    assert "Dice" not in page
    assert "1 patient " in page


def test_nothing_but_failures(tmp_path):
    page = page_of(tmp_path, rows=[], aggregate=summarise([]), errors=["a.tif: found nothing"])
    assert "0 patients" in page
    assert "a.tif" in page


def test_values():
    assert format_value("dice", 0.91234) == "0.912"
    assert format_value("hd95_px", float("nan")) == "–"
    assert format_value("area_px", 12345) == "12\N{NARROW NO-BREAK SPACE}345"
    assert format_value("n_slices", None) == "–"
