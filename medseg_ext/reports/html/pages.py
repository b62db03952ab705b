"""The page of a study, written as soon as it is segmented."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_ext.files import write_atomically
from medseg_ext.layouts.grid import Grid
from medseg_ext.layouts.study import Study
from medseg_ext.metrics.patient import Row
from medseg_ext.metrics.regions import content_box
from medseg_ext.metrics.volumes import as_mask, bounding_box
from medseg_ext.reports.canvas import union
from medseg_ext.reports.html.facts import (
    SEQUENCES,
    headline,
    input_facts,
    measure_table,
    present_sequences,
    volume_table,
    warnings,
)
from medseg_ext.reports.html.template import BASE_BYTES, PageContent, View, render
from medseg_ext.reports.html.volumes import PageVolume, grey_volume, label_volume, made_grid
from medseg_ext.reports.measures import StudyArrays, StudyMeasures
from medseg_ext.reports.overlays import FileNames
from medseg_ext.reports.planes import choose_planes

FOLDER = "reports"
#: Sequences in the order in which they are put in while there is room: the first one shows the whole tumour best.
SHOWN_FIRST = ("flair", "t1ce", "t2", "t1")
#: What the words of a page and its structure take at the most.
_WORDS = 300_000
#: Edge in voxels of the blocks that are averaged at the most, for want of room.
_LARGEST_BLOCK = 6


class StudyPages:
    """Write a page for each study: pictures, a 3-D view, volumes, measures, provenance.

    A page is one file, ``reports/PATIENT.html``, that a browser opens from anywhere and that asks no network for
    anything.  It holds the head in 8 bits, FLAIR first; a sequence for which there is not room enough is averaged over
    blocks of voxels.

    Args:
        output_dir: the folder in which ``reports`` is made.
        channel_order: names of the image's channels.
        title: what was segmented, above the patient's name.
        settings: options of the run by name.
        provenance: text by name, see :func:`medseg_ext.reports.provenance`.
        studies: files of the patients of the run, for names of files; another patient's page lacks them.
        most_bytes: of a page.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        channel_order: Sequence[str],
        title: str = "Segmentation report",
        settings: Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        studies: Iterable[Study] = (),
        most_bytes: int = 10_000_000,
    ) -> None:
        self.folder = Path(output_dir) / FOLDER
        self.channel_order = tuple(channel_order)
        self.title, self.settings, self.provenance = title, dict(settings or {}), dict(provenance or {})
        self.most_bytes = most_bytes
        self._studies = {study.patient: study for study in studies}
        self._names = FileNames()
        for patient in self._studies:  # in their order, so that every process gives a patient the same file
            self._names(patient)

    def path(self, patient: str) -> Path:
        """Where a patient's page lies."""
        return self.folder / f"{self._names(patient)}.html"

    def write(self, study: StudyArrays, image: Any, row: Row, measures: StudyMeasures) -> Path:
        """Write the page of a study.

        Args:
            study: its arrays.
            image: what ``study.image`` was made of: the affine and the ``meta`` of a ``MetaTensor`` are looked at.
            row: its measures.
            measures: what they stand for.

        Raises:
            InputError: the page cannot be written.
            ValueError: shapes or names that do not fit each other.
        """
        if len(study.image) != len(self.channel_order):
            raise ValueError(f"image: found {len(study.image)} channels, allowed {', '.join(self.channel_order)}")
        meta = getattr(image, "meta", {})
        files = self._studies.get(study.patient)
        picture = _picture(study, row, measures)
        names = present_sequences(study, meta, files, self.channel_order)
        view = self._view(study, image, names, measures, self.most_bytes - BASE_BYTES - _WORDS - len(picture))
        said = warnings(study, meta, files)
        left_out = [SEQUENCES.get(name, name) for name in names if name not in {one.key for one in view.backgrounds}]
        if left_out:
            said.append(f"For want of room the 3-D view does not show {', '.join(left_out)}.")
        content = PageContent(
            title=self.title,
            patient=study.patient,
            headline=headline(row, measures),
            warnings=said,
            picture=picture,
            caption=measures.caption(row),
            view=view,
            volumes=volume_table(study, measures),
            measures=measure_table(row, measures),
            input=input_facts(study, meta, files, self.channel_order),
            settings={name: str(value) for name, value in self.settings.items()},
            provenance=self.provenance,
        )
        return write_atomically(self.path(study.patient), render(content))

    def _view(self, study: StudyArrays, image: Any, names: Sequence[str], measures: StudyMeasures, room: int) -> View:
        masks = {"prediction": study.pred} if study.truth is None else {"prediction": study.pred, "truth": study.truth}
        either = np.logical_or.reduce([as_mask(mask) for mask in masks.values()])
        either = either if either.ndim == 4 else either[None]
        head = content_box(study.image)
        box = tuple(union(*parts) for parts in zip(head, bounding_box(either.any(0)), strict=True))
        box = box if either.any() else head
        whole = _grid(study, image)
        grid = whole.crop(box)
        overlays = {name: label_volume(measures.label_map(mask)[box], grid) for name, mask in masks.items()}
        room -= sum(len(overlay.data) for overlay in overlays.values())
        backgrounds = []
        for name in sorted(names, key=lambda name: (*SHOWN_FIRST, name).index(name)):
            channel = study.image[self.channel_order.index(name)][box]
            volume = _fitting(channel, grid, room)
            if volume is not None:
                blocks = f", blocks of {volume.coarsened} voxels" if volume.coarsened > 1 else ""
                backgrounds.append(View.Background(name, f"{SEQUENCES.get(name, name)}{blocks}", volume))
                room -= len(volume.data)
        place = whole.affine @ [*choose_planes(either, head), 1]
        return View(
            backgrounds=backgrounds,
            overlays=overlays,
            tissues=measures.tissues,
            place=[round(float(part), 3) for part in place[:3]],
        )


def _fitting(channel: NDArray[Any], grid: Grid, room: int) -> PageVolume | None:
    """A sequence as fine as there is room for; None where blocks of several voxels are still too many."""
    edge = 1
    while edge <= _LARGEST_BLOCK:
        volume = grey_volume(channel, grid, edge)
        if len(volume.data) <= room:
            return volume
        # as many bytes as voxels, roughly
        edge = max(edge + 1, math.floor(edge * (len(volume.data) / max(room, 1)) ** (1 / 3)))
    return None


def _grid(study: StudyArrays, image: Any) -> Grid:
    """Where the voxels lie; a made place where the files did not say."""
    rows, columns, slices = study.image.shape[1:]
    if "original_affine" not in getattr(image, "meta", {}):
        return made_grid((rows, columns, slices), study.spacing)
    return Grid((rows, columns, slices), np.asarray(image.affine, float))


def _picture(study: StudyArrays, row: Row, measures: StudyMeasures) -> str:
    """The patient's picture as base64 of a PNG file."""
    with tempfile.TemporaryDirectory() as folder:
        path = measures.draw(measures.snapshot(study, measures.caption(row)), Path(folder) / "picture.png")
        return base64.b64encode(path.read_bytes()).decode("ascii")
