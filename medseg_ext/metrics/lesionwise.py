"""Scores lesion by lesion, as BraTS takes them since 2023: a small lesion counts as much as a large one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg_ext.metrics.surface_distance import ONE_SIDE_EMPTY_MM, as_spacing, surface_distances
from medseg_ext.metrics.volumes import Mask, as_mask_pair, bounding_box

_TOUCHING = np.ones((3, 3, 3), bool)  # voxels joined by faces, edges and corners
_DILATION = ndimage.generate_binary_structure(3, 2)  # grown by faces and edges
_NEAR = 3  # dilations that join truth lesions and reach for predicted ones
_SMALLEST_MM3 = 50.0


@dataclass(frozen=True)
class LesionwiseScores:
    """A patient's scores over lesions.

    Attributes:
        dice: mean over lesions and false positives, which count 0; 1 where there are neither.
        hd95_mm: likewise, a missed lesion and a false positive counting 374 each; 0 where there are neither.
        surface_dice: normalised surface Dice by tolerance in mm, averaged as ``dice``.
        lesions: truth lesions that count.
        missed: those of them that no prediction touches.
        false_positives: predicted components that touch no truth lesion, be it one that does not count.
        largest_false_mm3: volume of the largest of these, 0 where there is none.
    """

    dice: float
    hd95_mm: float
    surface_dice: Mapping[float, float]
    lesions: int
    missed: int
    false_positives: int
    largest_false_mm3: float


def lesionwise_scores(
    pred: Any, truth: Any, spacing: Sequence[float], tolerances: Sequence[float] = ()
) -> LesionwiseScores:
    """Dice and HD95 lesion by lesion, with the numbers that BraTS uses for adult glioma.

    The truth is dilated three times with 18-connectivity; what is then one component, by 26-connectivity, is one
    lesion, made of the truth voxels in it.  Predicted components, by 26-connectivity, belong to every lesion whose
    dilation they touch.  A lesion's scores are those of all predicted components that belong to it, whole, against the
    lesion as it is, not dilated.  Lesions of 50 mm3 or less are ignored, and so are predictions that belong to them
    alone; a predicted component that belongs to no lesion counts, however small it is.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch.
        truth: binary truth of the same shape.
        spacing: (row, column, slice) in mm.  Dilation is in voxels: the numbers are meant for voxels of 1 mm.
        tolerances: in mm, for the normalised surface Dice; BraTS 2025 takes 0.5 and 1.

    Raises:
        ValueError: the shapes differ, a mask is not binary or has not three axes, or the spacing is not three
            positive numbers.

    Source: BraTS 2023, https://github.com/rachitsaluja/BraTS-2023-Metrics.
    """
    pred, truth = as_mask_pair(pred, truth)
    if pred.ndim != 3:
        raise ValueError(f"pred: found shape {pred.shape}, allowed (rows, columns, slices)")
    voxel = float(np.prod(as_spacing(spacing)))
    # dilation reaches three voxels: with that margin, or the volume's own edge, the crop changes nothing
    box = bounding_box(pred | truth, margin=_NEAR)
    pred, truth = pred[box], truth[box]

    lesions, count = _lesions(truth)
    components, found = ndimage.label(pred, _TOUCHING)
    belongs = _belongs(lesions, count, components, found)
    sizes = np.bincount(components.ravel(), minlength=found + 1)
    lesion_sizes = np.bincount(lesions[truth], minlength=count + 1)
    hits = np.bincount(lesions[truth & pred], minlength=count + 1)
    boxes = ndimage.find_objects(lesions), ndimage.find_objects(components)

    dices, distances = [], []
    overlaps: dict[float, list[float]] = {tolerance: [] for tolerance in tolerances}
    missed = 0
    for lesion in range(1, count + 1):
        if lesion_sizes[lesion] * voxel <= _SMALLEST_MM3:
            continue
        mine = belongs[lesion]
        missed += int(not mine.any())
        dices.append(2.0 * hits[lesion] / (lesion_sizes[lesion] + sizes[mine].sum()))
        around = _union([boxes[0][lesion - 1], *(boxes[1][number - 1] for number in np.flatnonzero(mine))])
        between = surface_distances(mine[components[around]], (lesions[around] == lesion) & truth[around], spacing)
        distances.append(between.hausdorff())
        for tolerance, values in overlaps.items():
            values.append(between.overlap(tolerance))
    false = np.flatnonzero(~belongs.any(0))[1:]  # without number 0, which is no component
    wrong = len(false)
    return LesionwiseScores(
        dice=_mean([*dices, *[0.0] * wrong], nothing=1.0),
        hd95_mm=_mean([*distances, *[ONE_SIDE_EMPTY_MM] * wrong], nothing=0.0),
        surface_dice={
            tolerance: _mean([*values, *[0.0] * wrong], nothing=1.0) for tolerance, values in overlaps.items()
        },
        lesions=len(dices),
        missed=missed,
        false_positives=wrong,
        largest_false_mm3=float(sizes[false].max() * voxel) if wrong else 0.0,
    )


def _lesions(truth: Mask) -> tuple[NDArray[np.int32], int]:
    """The number of the lesion that each voxel's neighbourhood holds, 0 where there is none near, and how many."""
    dilated = np.zeros(truth.shape, np.int32)
    if not truth.any():
        return dilated, 0
    box = bounding_box(truth, margin=_NEAR)
    grown = ndimage.binary_dilation(truth[box], _DILATION, iterations=_NEAR)
    dilated[box], count = ndimage.label(grown, _TOUCHING)
    return dilated, count


def _belongs(lesions: NDArray[np.int32], count: int, components: NDArray[np.int32], found: int) -> Mask:
    """(count + 1, found + 1): whether a predicted component touches a dilated lesion; number 0 is neither."""
    both = (lesions > 0) & (components > 0)
    table = np.zeros((count + 1, found + 1), bool)
    table[lesions[both], components[both]] = True
    return table


def _union(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )


def _mean(values: Sequence[float], nothing: float) -> float:
    return float(np.mean(values)) if values else nothing
