"""Pictures of a tumour's regions on three cuts through it: axial, coronal and sagittal.

Each region has its own hue.  Truth is a light, solid line and the prediction a deep, dashed one on top, so that dashes
on a light line mean agreement.  Edema is seen on FLAIR and the core on T1 with contrast: the whole tumour is drawn on
the one, the regions inside it on the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_ext.metrics.regions import content_box
from medseg_ext.metrics.surface_distance import as_spacing
from medseg_ext.metrics.volumes import as_array, as_mask, as_mask_pair, bounding_box
from medseg_ext.reports.canvas import black_figure, pack, stretch, union, unpack, write_figure

#: (truth, prediction) by region.
COLOURS = {"wt": ("#8dffd0", "#00b46e"), "tc": ("#82ccff", "#1f74ff"), "et": ("#ffee80", "#ff9a00")}
_OTHER_COLOURS = (("#f0c2ff", "#c04df0"), ("#ffffff", "#ff4d6a"))
_PANEL_INCHES = 3.0
_HEADER_INCHES = 0.95
_GAP = 0.02  # between panels, as a fraction of one


@dataclass(frozen=True)
class Layer:
    """A line of cuts: which sequences show it best, the first that there is being taken, and the regions drawn."""

    sequences: tuple[str, ...]
    regions: tuple[str, ...]


LAYERS = (Layer(("flair", "t2", "t1", "t1ce"), ("wt",)), Layer(("t1ce", "t1", "t2", "flair"), ("tc", "et")))


@dataclass(frozen=True)
class Cut:
    """One plane through a patient, cropped to the head.

    Attributes:
        name: ``axial``, ``coronal`` or ``sagittal``.
        number: of the plane, from 0. count: of planes in the volume.
        size_mm: (height, width) of the cut as it is drawn, in mm.
        shape: (height, width) in pixels.
        image: of each layer the compressed bytes of uint8 grey values.
        pred: of each region the compressed packed bits.
        truth: likewise, or None.
    """

    name: str
    number: int
    count: int
    size_mm: tuple[float, float]
    shape: tuple[int, int]
    image: tuple[bytes, ...]
    pred: tuple[bytes, ...]
    truth: tuple[bytes, ...] | None


@dataclass(frozen=True)
class PlanesSnapshot:
    """What a picture of a patient's regions shows, small enough to keep one of every patient in memory.

    Attributes:
        patient: name.
        regions: their names.
        sequences: which one each layer shows; a line of cuts for each.
        layers: regions of each line.
        cuts: axial, coronal, sagittal.
        empty: names of what holds nothing in the whole volume, as ``tc truth``.
        caption: what stands over the picture beside the patient's name.
    """

    patient: str
    regions: tuple[str, ...]
    sequences: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    cuts: tuple[Cut, ...]
    empty: frozenset[str]
    caption: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(len(part) for cut in self.cuts for part in (*cut.image, *cut.pred, *(cut.truth or ())))


def take_planes(
    patient: str,
    image: Any,
    pred: Any,
    truth: Any | None,
    spacing: Sequence[float],
    *,
    channel_order: Sequence[str],
    regions: Sequence[str],
    caption: str = "",
    layers: Sequence[Layer] = LAYERS,
) -> PlanesSnapshot:
    """Keep what a picture of this patient needs.

    Grey values run from the 1st to the 99.8th percentile of the sequence in the head.  The crop is the head's box grown
    to hold all masks.  Where several sequences of a layer are there, its first is shown; one that holds a single value
    is not there.

    Args:
        patient: name.
        image: (C, H, W, D), original intensities or normalised ones that are 0 outside of the head; rows anterior to
            posterior, columns right to left, slices upwards.
        pred: (R, H, W, D) binary prediction.
        truth: binary truth of the same shape, or None.
        spacing: (row, column, slice) in mm.
        channel_order: names of the channels.
        regions: names of the R regions.
        caption: see :class:`PlanesSnapshot`.
        layers: what is drawn on what; regions that are in none are drawn on the last.

    Raises:
        ValueError: shapes or names that do not fit each other.
    """
    array, step = as_array(image), as_spacing(spacing)
    if truth is None:
        pred = as_mask(pred, "pred")
        either = pred
    else:
        pred, truth = as_mask_pair(pred, truth)
        either = pred | truth
    if pred.ndim != 4 or len(pred) != len(regions):
        raise ValueError(f"pred: found shape {pred.shape}, allowed ({len(regions)}, rows, columns, slices)")
    if array.shape != (len(channel_order), *pred.shape[1:]):
        wanted = ", ".join(map(str, (len(channel_order), *pred.shape[1:])))
        raise ValueError(f"image: found shape {array.shape}, allowed ({wanted})")
    head = content_box(array)
    box = head
    if either.any():
        box = tuple(union(*parts) for parts in zip(head, bounding_box(either.any(0)), strict=True))
    drawn = [tuple(region for region in layer.regions if region in regions) for layer in layers]
    drawn[-1] += tuple(region for region in regions if not any(region in line for line in drawn))
    sequences = [_sequence(array, channel_order, layer.sequences) for layer in layers]
    windows = {name: _window(array[list(channel_order).index(name)][head]) for name in sequences}

    def cut(name: str, axis: int, number: int) -> Cut:
        def plane(volume: NDArray[Any]) -> NDArray[Any]:
            return _upright(volume[box].take(number - box[axis].start, axis), axis)

        shape = plane(either[0]).shape
        height, width = ((0, 1), (2, 1), (2, 0))[("axial", "coronal", "sagittal").index(name)]
        return Cut(
            name=name,
            number=number,
            count=pred.shape[1 + axis],
            size_mm=(float(shape[0] * step[height]), float(shape[1] * step[width])),
            shape=(shape[0], shape[1]),
            image=tuple(
                zlib.compress(stretch(plane(array[list(channel_order).index(one)]), *windows[one]).tobytes(), level=3)
                for one in sequences
            ),
            pred=tuple(pack(plane(mask)) for mask in pred),
            truth=None if truth is None else tuple(pack(plane(mask)) for mask in truth),
        )

    places = choose_planes(either, head)
    masks = {"prediction": pred} if truth is None else {"truth": truth, "prediction": pred}
    return PlanesSnapshot(
        patient=patient,
        regions=tuple(regions),
        sequences=tuple(sequences),
        layers=tuple(drawn),
        cuts=(cut("axial", 2, places[2]), cut("coronal", 0, places[0]), cut("sagittal", 1, places[1])),
        empty=frozenset(
            f"{region} {source}"
            for source, mask in masks.items()
            for number, region in enumerate(regions)
            if not mask[number].any()
        ),
        caption=caption,
    )


def choose_planes(masks: Any, box: Sequence[slice] | None = None) -> tuple[int, int, int]:
    """Along each axis the plane that shows most of the regions, each counting the same however small it is.

    Args:
        masks: (R, H, W, D), whatever should be seen, as the union of prediction and truth.
        box: three slices in whose middle the planes lie where all masks are empty; the whole volume when None.
    """
    array = as_mask(masks)
    sizes = array.sum((1, 2, 3))
    if not sizes.any():
        middle = [slice(0, size) for size in array.shape[1:]] if box is None else list(box)
        row, column, number = ((part.start + part.stop) // 2 for part in middle)
        return row, column, number
    places = []
    for axis in range(3):
        others = tuple(1 + other for other in range(3) if other != axis)
        shares = array.sum(others)[sizes > 0] / sizes[sizes > 0, None]
        places.append(int(shares.sum(0).argmax()))
    return places[0], places[1], places[2]


def draw_planes(snapshot: PlanesSnapshot, path: Path) -> Path:
    """Draw a patient's three cuts, a line of them for each layer, with the outlines of its regions, as PNG.

    Args:
        snapshot: from :func:`take_planes`.
        path: the PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.lines import Line2D

    lines = len(snapshot.layers)
    widths = [cut.size_mm[1] for cut in snapshot.cuts]
    tallest = max(cut.size_mm[0] for cut in snapshot.cuts)
    scale = _PANEL_INCHES / max(*widths, tallest)  # inches a mm, the same in all panels
    size = (max(sum(widths) * scale, 7.0), lines * tallest * scale + _HEADER_INCHES)
    figure = black_figure(size)
    grid = figure.add_gridspec(
        lines,
        3,
        width_ratios=widths,
        left=0,
        right=1,
        bottom=0,
        top=1 - _HEADER_INCHES / size[1],
        wspace=0.02,
        hspace=0.02,
    )
    for line, regions in enumerate(snapshot.layers):
        for column, cut in enumerate(snapshot.cuts):
            axes = figure.add_subplot(grid[line, column])
            axes.set_axis_off()
            _draw_cut(axes, snapshot, cut, line, regions)
    handles = []
    for region in (region for regions in snapshot.layers for region in regions):
        for source in ("truth", "prediction"):
            if source == "truth" and snapshot.cuts[0].truth is None:
                continue
            empty = " (empty)" if f"{region} {source}" in snapshot.empty else ""
            colour, style, _ = _line(snapshot, region, source)
            handles.append(
                Line2D([], [], color=colour, linestyle=style, linewidth=2, label=f"{region.upper()} {source}{empty}")
            )
    return write_figure(
        figure,
        path,
        snapshot.patient,
        snapshot.caption,
        handles,
        caption_inches=0.6,
        caption_size=9,
        fontsize=8,
        handlelength=2.4,
        ncols=len(snapshot.regions),
        columnspacing=1.2,
    )


def _draw_cut(axes: Any, snapshot: PlanesSnapshot, cut: Cut, line: int, regions: Sequence[str]) -> None:
    from matplotlib.patheffects import withStroke

    height, width = cut.size_mm
    grey = np.frombuffer(zlib.decompress(cut.image[line]), np.uint8).reshape(cut.shape)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="bilinear", extent=(0, width, height, 0))
    rows, columns = ((np.arange(-1, count + 1) + 0.5) / count for count in cut.shape)
    for source, packed in (("truth", cut.truth or ()), ("prediction", cut.pred)):
        for region in regions if packed else ():
            mask = unpack(packed[snapshot.regions.index(region)], (*cut.shape, 1))[:, :, 0]
            if mask.any():
                colour, style, weight = _line(snapshot, region, source)
                # with a rim of zeros, so that outlines close at the edge
                axes.contour(
                    columns * width, rows * height, np.pad(mask, 1), levels=[0.5], colors=[colour], linestyles=[style],
                    linewidths=[weight],
                )  # fmt: skip
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    label = f"{cut.name} {cut.number + 1} of {cut.count}"
    if cut.name == "axial":
        label = f"{_SEQUENCE_LABELS.get(snapshot.sequences[line], snapshot.sequences[line])}\n{label}"
    text: dict[str, Any] = {
        "color": "#e0e0e0",
        "fontsize": 8,
        "transform": axes.transAxes,
        "path_effects": [withStroke(linewidth=2, foreground="black")],  # readable over the head
    }
    axes.text(0.015, 0.985, label, va="top", **text)
    axes.text(0.015, 0.5, "A" if cut.name == "sagittal" else "R", va="center", **text)


_SEQUENCE_LABELS = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2"}


def _line(snapshot: PlanesSnapshot, region: str, source: str) -> tuple[str, Literal["-", "--"], float]:
    """Colour, style and weight of an outline."""
    others = [name for name in snapshot.regions if name not in COLOURS]
    light, deep = COLOURS[region] if region in COLOURS else _OTHER_COLOURS[others.index(region) % len(_OTHER_COLOURS)]
    # regions inside each other share much of their outline: the outer one shows on both sides of the inner one
    layer = next(layer for layer in snapshot.layers if region in layer)
    wider = 1.2 * (len(layer) - 1 - layer.index(region))
    return (light, "-", 1.6 + wider) if source == "truth" else (deep, "--", 1.3 + wider)


def _upright(plane: NDArray[Any], axis: int) -> NDArray[Any]:
    """A plane as radiologists look at it: axial from below with anterior up, the others with superior up."""
    return plane if axis == 2 else plane.T[::-1]


def _sequence(image: NDArray[Any], channel_order: Sequence[str], wanted: Sequence[str]) -> str:
    """The first wanted sequence that is there and holds more than one value."""
    names = [name for name in wanted if name in channel_order] or list(channel_order)
    there = (name for name in names if np.ptp(image[list(channel_order).index(name)]) > 0)
    return next(there, names[0])


def _window(values: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(values[::2, ::2, ::2], (1, 99.8))
    return float(low), float(high)
