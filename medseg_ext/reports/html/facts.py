"""What a page says of a study in words and numbers: its input, its volumes, its measures."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from medseg_ext.layouts.study import Study
from medseg_ext.metrics.patient import Row
from medseg_ext.reports.measures import StudyArrays, StudyMeasures, format_value, label_of

_SIZE = re.compile("(predicted_)?(volume_ml|area_px)|n_slices")
#: How sequences are called in print.
SEQUENCES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2"}


class Line(NamedTuple):
    """A line of a table: its name, the cells beside it, or one for all, a remark, and the colour that stands for it."""

    name: str
    cells: Sequence[str]
    remark: str = ""
    colour: str = ""


class Table(NamedTuple):
    """A table: the headings beside the first, empty one, and the lines."""

    headings: Sequence[str]
    lines: Sequence[Line]


def volume_table(study: StudyArrays, measures: StudyMeasures) -> Table:
    """Volumes of the regions, which may hold each other, and of the tissues of the label map, in ml.

    Where the size of a voxel is not known they are counts of voxels.
    """
    sides = [study.pred] if study.truth is None else [study.pred, study.truth]
    unit = "voxels" if study.spacing is None else "ml"
    voxel = None if study.spacing is None else float(np.prod(study.spacing)) / 1000

    def cells(counts: Sequence[int]) -> list[str]:
        if voxel is None:
            return [f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") for count in counts]
        return [f"{count * voxel:.2f}" for count in counts]

    masks = [side if side.ndim == 4 else side[None] for side in sides]
    lines = [
        Line(name, cells([int(np.count_nonzero(mask[number])) for mask in masks]))
        for number, name in enumerate(measures.masks)
    ]
    if len(measures.masks) == 1:
        (line,) = lines
        lines = [line._replace(colour=measures.tissues[0].colour)]
    else:
        maps = [measures.label_map(side) for side in sides]
        for tissue in measures.tissues:
            counts = [int(np.count_nonzero(labels == tissue.value)) for labels in maps]
            if any(counts):
                lines.append(Line(tissue.name, cells(counts), f"label {tissue.value}", tissue.colour))
    headings = ["Predicted", "Truth"] if study.truth is not None else ["Predicted"]
    return Table([f"{heading} [{unit}]" for heading in headings], lines)


def measure_table(row: Row, measures: StudyMeasures) -> Table | None:
    """The measures that compare with a truth, a column a region; None of a patient without one."""
    columns = measures.columns
    # sizes stand in the table of volumes
    names = [name for name in columns if name in row and not _SIZE.match(name)]
    if not any(columns[name].share for name in names):
        return None
    regions = list(dict.fromkeys(columns[name].region for name in names if columns[name].region))
    lines = []
    for measure, together in groupby(names, lambda name: columns[name]._replace(region="")):
        group = list(together)
        by_region = {columns[name].region: format_value(name, row[name], columns) for name in group}
        cells = [by_region.get(region, "") for region in regions] if "" not in by_region else [by_region[""]]
        lines.append(Line(label_of(group[0], {group[0]: measure}), cells, measure.protocol))
    return Table(regions or ["Value"], lines)


def headline(row: Row, measures: StudyMeasures) -> list[tuple[str, str]]:
    """What is shown in large print: label and value."""
    groups = ([name for name in group if name in row] for group in measures.headlines)
    names: list[str] = next(filter(None, groups), [])
    return [(label_of(name, measures.columns), format_value(name, row[name], measures.columns)) for name in names]


def input_facts(
    study: StudyArrays, meta: Mapping[str, Any], files: Study | None, channel_order: Sequence[str]
) -> dict[str, str]:
    """Files without their folders, sequences, grid and orientation.

    Args:
        study: the arrays.
        meta: of its image, from the bundles' loaders; empty where it is none of theirs.
        files: of the study; None where they are not known.
        channel_order: names of the image's channels.
    """
    facts = {}
    if files is not None:
        facts["Images"] = _listed([path.name for path in files.images])
        if study.truth is not None and files.masks:
            facts["Truth"] = _listed([path.name for path in files.masks])
    there = present_sequences(study, meta, files, channel_order)
    facts["Sequences"] = ", ".join(SEQUENCES.get(name, name) for name in there)
    missing = [SEQUENCES.get(name, name) for name in channel_order if name not in there]
    if missing:
        facts["Missing sequences"] = ", ".join(missing)
    rows, columns, slices = study.image.shape[1:]
    if "original_affine" in meta:
        affine = np.asarray(meta["original_affine"], float)
        size = " × ".join(str(int(edge)) for edge in np.asarray(meta["spatial_shape"]))
        edges = " × ".join(f"{edge:.3g}" for edge in voxel_sizes(affine))
        facts["Grid of the files"] = f"{size} voxels of {edges} mm, orientation {''.join(aff2axcodes(affine))}"
    if study.spacing is None:
        facts["Grid"] = f"{rows} × {columns} × {slices} voxels; the files hold no voxel size"
    else:
        edges = " × ".join(f"{edge:.3g}" for edge in study.spacing)
        facts["Working grid"] = f"{rows} × {columns} × {slices} voxels of {edges} mm, orientation PLS"
    if "skull_stripped" in meta:
        facts["Skull-stripped"] = "yes" if bool(meta["skull_stripped"]) else "no"
    return facts


def present_sequences(
    study: StudyArrays, meta: Mapping[str, Any], files: Study | None, channel_order: Sequence[str]
) -> list[str]:
    """Names of the sequences that the study has: another one's copy in a channel is none, nor is a constant."""
    known = files.sequences if files is not None and files.sequences else channel_order
    there = [name for name, channel in zip(channel_order, study.image, strict=True) if np.ptp(channel) > 0]
    return [name for name in there if name in known]


def warnings(study: StudyArrays, meta: Mapping[str, Any], files: Study | None) -> list[str]:
    """What a reader has to know of this study: what was noted when it was read, and what the arrays show."""
    said = [line for line in str(meta.get("notes", "")).split("\n") if line]
    if files is not None:
        for folder in (*(path.parent for path in files.images), files.folder):
            said = [line.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name) for line in said]
    if study.spacing is None:
        said.append("The files hold no voxel size: the 3-D view draws voxels of 1 mm, volumes are counts of voxels.")
    if not study.pred.any():
        said.append("Nothing was found: the prediction is empty.")
    if study.truth is not None and not study.truth.any():
        said.append("The truth is empty.")
    return said


def _listed(names: Sequence[str]) -> str:
    """File names, those of many slices by the first and the last."""
    if len(names) > 8:
        return f"{len(names)} files, {names[0]} to {names[-1]}"
    return ", ".join(names)
