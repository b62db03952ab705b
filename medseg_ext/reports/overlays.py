"""Pictures of what was predicted, drawn over the slices: outlines, so that the image below stays visible.

Truth and prediction differ in hue, in lightness and in line style, so that they can be told apart without colour vision
and in a grey print.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_ext.metrics.volumes import Mask, as_array, as_mask, as_mask_pair, bounding_box, head_box
from medseg_ext.reports.canvas import black_figure, pack, stretch, union, unpack, write_figure

TRUTH_COLOUR = "#5ff0b4"  # light bluish green, drawn as a solid line
PREDICTION_COLOUR = "#ff6a1f"  # orange red, drawn dashed on top
ROLES = ("worst", "median", "best")
_GAP = 3  # black pixels between two slices of a montage
_PANEL_INCHES = 2.2


@dataclass(frozen=True)
class Snapshot:
    """The few slices of a patient that a picture shows, small enough to keep one of every patient in memory.

    Attributes:
        patient: name.
        slices: numbers of the slices shown, from 0, rising.
        depth: how many slices the study has.
        shape: (rows, columns, slices) of the crop kept.
        image: compressed bytes of uint8 grey values, ``shape``.
        pred: compressed packed bits of the prediction, ``shape``.
        truth: the same of the truth; None where there is none.
        aspect: height of a pixel as a multiple of its width.
        caption: what stands over the picture beside the patient's name.
    """

    patient: str
    slices: tuple[int, ...]
    depth: int
    shape: tuple[int, int, int]
    image: bytes
    pred: bytes
    truth: bytes | None = None
    aspect: float = 1.0
    caption: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self.image) + len(self.pred) + len(self.truth or b"")


def take_snapshot(
    patient: str,
    image: Any,
    pred: Any,
    truth: Any | None = None,
    *,
    channel: int = 1,
    spacing: Sequence[float] | None = None,
    caption: str = "",
    max_slices: int = 12,
) -> Snapshot:
    """Keep what a picture of this patient needs.

    Grey values run from the 1st to the 99.8th percentile of the head, the volume as a whole, so that slices compare.
    The crop is the head's box grown to hold both masks.

    Args:
        patient: name.
        image: (C, H, W, D) original intensities.
        pred: (H, W, D) binary prediction.
        truth: binary truth of the same shape, or None.
        channel: which one is shown, as a rule FLAIR.
        spacing: (row, column, slice) in mm, for the shape of a pixel; square when None.
        caption: see :class:`Snapshot`.
        max_slices: as many at the most, see :func:`choose_slices`.

    Raises:
        ValueError: shapes that do not fit each other, or no such channel.
    """
    image = as_array(image)
    if truth is None:
        pred = as_mask(pred, "pred")
        either = pred
    else:
        pred, truth = as_mask_pair(pred, truth)
        either = pred | truth
    if image.ndim != 4 or image.shape[1:] != pred.shape:
        raise ValueError(f"image: found shape {image.shape}, allowed (channels, {', '.join(map(str, pred.shape))})")
    if not 0 <= channel < image.shape[0]:
        raise ValueError(f"channel: found {channel}, allowed 0 to {image.shape[0] - 1}")
    slices = choose_slices(either, max_slices)
    box = head_box(image)
    crop = tuple(union(head, mask) for head, mask in zip(box[:2], bounding_box(either)[:2], strict=True))
    if not either.any():
        crop = box[:2]
    grey = _as_grey(image[channel], box)[crop][:, :, slices]
    return Snapshot(
        patient=patient,
        slices=tuple(slices),
        depth=int(pred.shape[2]),
        shape=(grey.shape[0], grey.shape[1], grey.shape[2]),
        image=zlib.compress(grey.tobytes(), level=3),
        pred=pack(pred[crop][:, :, slices]),
        truth=None if truth is None else pack(truth[crop][:, :, slices]),
        aspect=1.0 if spacing is None else float(spacing[0] / spacing[1]),
        caption=caption,
    )


def choose_slices(mask: Any, count: int = 12) -> list[int]:
    """Numbers of the slices worth showing: those with lesion and their neighbours, thinned out evenly to ``count``.

    Args:
        mask: (H, W, D), whatever should be seen, as the union of prediction and truth; where it is empty, slices from
            the whole volume are taken.
        count: as many at the most.
    """
    occupied = np.flatnonzero(as_mask(mask).any((0, 1)))
    depth = np.shape(mask)[2]
    if occupied.size == 0:
        occupied = np.arange(depth)
    # with the slices beside them, to show how the lesion begins and ends
    candidates = np.unique(np.clip(np.concatenate([occupied - 1, occupied, occupied + 1]), 0, depth - 1))
    chosen = np.linspace(0, candidates.size - 1, min(count, candidates.size)).round().astype(int)
    numbers: list[int] = candidates[chosen].tolist()
    return numbers


def draw_overlay(snapshot: Snapshot, path: Path) -> Path:
    """Draw a montage of a patient's slices with the outlines of prediction and truth, as PNG.

    Args:
        snapshot: from :func:`take_snapshot`.
        path: the PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.lines import Line2D

    height, width, count = snapshot.shape
    columns = _columns(count, height * snapshot.aspect / width)
    grey = np.frombuffer(zlib.decompress(snapshot.image), np.uint8).reshape(snapshot.shape)
    montage = _montage(grey, columns)
    rows = -(-count // columns)

    panel_height = _PANEL_INCHES * height * snapshot.aspect / width
    size = (max(columns * _PANEL_INCHES, 5.2), rows * panel_height + 0.75)
    figure = black_figure(size)
    top = 1 - 0.75 / size[1]
    axes = figure.add_axes((0, 0, 1, top))
    axes.set_axis_off()
    axes.imshow(montage, cmap="gray", vmin=0, vmax=255, aspect=snapshot.aspect, interpolation="bilinear")

    handles = []
    lines: tuple[tuple[str, bytes | None, str, Literal["-", "--"], float], ...] = (
        ("truth", snapshot.truth, TRUTH_COLOUR, "-", 1.5),
        ("prediction", snapshot.pred, PREDICTION_COLOUR, "--", 1.3),
    )
    for label, packed, colour, style, weight in lines:
        if packed is None:
            continue
        mask = _montage(unpack(packed, snapshot.shape), columns)
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=[weight])
        empty = "" if mask.any() else " (empty)"
        handle = Line2D([], [], color=colour, linestyle=style, linewidth=1.8, label=label + empty)
        handles.append(handle)
    for position, number in enumerate(snapshot.slices):
        row, column = divmod(position, columns)
        axes.text(
            column * (width + _GAP) + 0.02 * width,
            row * (height + _GAP) + 0.02 * height,
            f"slice {number + 1}" if position == 0 else str(number + 1),
            color="#c8c8c8",
            fontsize=8,
            va="top",
        )
    return write_figure(
        figure,
        path,
        snapshot.patient,
        snapshot.caption,
        handles,
        caption_inches=0.4,
        caption_size=10,
        fontsize=9,
        handlelength=2.6,
    )


def worst_median_best(scores: Sequence[float]) -> dict[str, int]:
    """Which entry is the worst, the (lower) median and the best; of ties the first counts as the worse.

    Args:
        scores: higher is better; NaN is left out.

    Returns:
        Index by role.  A role that falls on an entry already taken is left out: one patient is ``worst`` alone, two are
        ``worst`` and ``best``.
    """
    order = sorted((score, index) for index, score in enumerate(scores) if not np.isnan(score))
    roles: dict[str, int] = {}
    if order:
        for role, place in (("worst", 0), ("best", len(order) - 1), ("median", (len(order) - 1) // 2)):
            if order[place][1] not in roles.values():
                roles[role] = order[place][1]
    return {role: roles[role] for role in ROLES if role in roles}


def file_name(patient: str) -> str:
    """A patient's name as part of a file's name, on any file system."""
    return re.sub(r"[^\w.-]+", "_", patient).strip(".") or "patient"


class FileNames:
    """A file name for each patient, no two alike: of "a b" and "a_b" the later one becomes ``a_b_2``.

    Names that differ only in case are alike to some file systems.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def __call__(self, patient: str, role: str = "") -> str:
        """The name, after the role where there is one; the same whenever it is asked for."""
        key = (role, patient)
        if key not in self._names:
            stem = f"{role}_{file_name(patient)}" if role else file_name(patient)
            numbered = (f"{stem}_{number}" for number in itertools.count(2))
            self._names[key] = next(x for x in itertools.chain([stem], numbered) if x.casefold() not in self._taken)
            self._taken.add(self._names[key].casefold())
        return self._names[key]


def example_overlay(image: Any, label: Any | None, pred: Any) -> NDArray[np.uint8]:
    """One slice with outlines, as RGB, to be logged while training.

    Truth is drawn just outside the lesion, the prediction just inside, so both show where they agree.

    Args:
        image: (H, W), or (C, H, W) of which the first channel is shown; any scale; with a last axis of slices too, of
            which the one with most lesion is shown.
        label: truth of the image's spatial shape, a leading channel of 1 allowed, above 0.5 is lesion; or None.
        pred: prediction or probability, likewise.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    from skimage.segmentation import find_boundaries

    predicted = _binary(pred)
    truth = None if label is None else _binary(label)
    grey = as_array(image).astype(np.float32, copy=False)
    if truth is not None and truth.shape != predicted.shape:
        raise ValueError(f"pred: found shape {predicted.shape}, allowed that of label, {truth.shape}")
    if grey.ndim == predicted.ndim + 1:
        grey = grey[0]
    if grey.shape != predicted.shape or grey.ndim not in {2, 3}:
        raise ValueError(
            f"image: found shape {np.shape(image)}, allowed that of pred, {predicted.shape}, with channels"
        )
    if grey.ndim == 3:
        shown = truth if truth is not None and truth.any() else predicted
        index = int(shown.sum((0, 1)).argmax()) if shown.any() else grey.shape[2] // 2
        grey, predicted = grey[:, :, index], predicted[:, :, index]
        truth = None if truth is None else truth[:, :, index]
    low, high = np.percentile(grey, (1, 99.8))
    rgb = np.repeat(stretch(grey, float(low), float(high))[..., None], 3, axis=2)
    if truth is not None:
        rgb[find_boundaries(truth, mode="outer")] = _rgb(TRUTH_COLOUR)
    rgb[find_boundaries(predicted, mode="inner")] = _rgb(PREDICTION_COLOUR)
    return rgb


def _binary(mask: Any) -> Mask:
    array = as_array(mask) > 0.5
    # a channel axis leads, and is 1; a volume of one row is none
    return array[0] if array.ndim in {3, 4} and array.shape[0] == 1 else array


def _as_grey(channel: NDArray[Any], box: tuple[slice, ...]) -> NDArray[np.uint8]:
    low, high = np.percentile(channel[box][::2, ::2], (1, 99.8))
    return stretch(channel, float(low), float(high))


def _columns(count: int, tallness: float) -> int:
    """Columns that make the montage about 4:3."""
    return int(np.clip(round((count * tallness * 4 / 3) ** 0.5), 1, count))


def _montage(stack: NDArray[Any], columns: int) -> NDArray[Any]:
    """Slices of an (H, W, N) stack side by side, with gaps, which also close outlines at a slice's edge."""
    height, width, count = stack.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + _GAP), columns * (width + _GAP)), dtype=stack.dtype)
    for position in range(count):
        row, column = divmod(position, columns)
        top, left = row * (height + _GAP) + _GAP // 2, column * (width + _GAP) + _GAP // 2
        sheet[top : top + height, left : left + width] = stack[:, :, position]
    return sheet


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
