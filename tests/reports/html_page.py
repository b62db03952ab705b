"""What the tests of a study's page share: a study, its page, and the page's elements."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import torch
from monai.data import MetaTensor

from medseg_ext.reports import RegionMeasures, StudyPages
from medseg_ext.reports.measures import StudyArrays

ORDER = ("t1", "t1ce", "t2", "flair")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
AFFINE = np.array([[0.0, -1.0, 0, 20], [-1.0, 0, 0, 30], [0, 0, 1.0, -10], [0, 0, 0, 1.0]])


class Elements(HTMLParser):
    """Tags with their attributes and, as ``texts``, what stands in each kind of element."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:  # void elements have no end
            pass

    def handle_data(self, text):
        for tag in set(self._open):
            self.texts[tag][-1] += text

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def placed(image, **meta):
    """An image as the bundles' loader gives it."""
    known = {"original_affine": AFFINE, "spatial_shape": np.array(image.shape[1:])} | meta
    return MetaTensor(torch.from_numpy(image), affine=torch.as_tensor(AFFINE), meta=known)


def write_page(folder, tumour, *, patient="p1", truth=True, meta=None, **options):
    """The page of a head with a tumour, and its elements."""
    image, pred, mask = tumour(shift=2)
    study = StudyArrays(patient, image, pred, mask if truth else None, None, (1.0, 1.0, 1.0))
    measures = RegionMeasures(ORDER)
    row = {"patient": patient} | measures.measure(study)
    pages = StudyPages(folder, channel_order=ORDER, **options)
    path = pages.write(study, placed(image, **(meta or {})), row, measures)
    return path, Elements(path.read_text(encoding="utf-8"))


def data_of(elements):
    """What the page's script works on."""
    scripts = [attributes.get("id") for attributes in elements.all("script")]
    return json.loads(elements.texts["script"][scripts.index("study")])
