"""Distances in mm between the surfaces of two masks, as the package ``surface-distance`` defines them.

BraTS scores with that package.  It is not called here, since its release fails under NumPy 2 where a mask is empty and
reaches into names that SciPy is about to drop; the tests compare with it.  A surface point lies at each corner between
eight voxels that are neither all inside nor all outside; what it weighs is the area, in mm2, of the triangles that
marching cubes puts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.metrics.utils import _get_neighbour_code_to_normals_table  # the public table holds areas in float32 alone
from numpy.typing import NDArray
from scipy.spatial import KDTree

from medseg_ext.metrics.volumes import Mask, as_mask_pair, bounding_box

#: HD95 where one of the masks is empty, as BraTS counts it: about the diagonal of its volumes, in mm.
ONE_SIDE_EMPTY_MM = 374.0
_INSIDE = 255  # all eight voxels around a corner are set


@dataclass(frozen=True)
class SurfaceDistances:
    """From each surface point of one mask the distance to the nearest surface point of the other.

    Attributes:
        pred_to_truth: (P,) mm, rising; infinite where the truth is empty.
        truth_to_pred: (T,) mm, rising; infinite where the prediction is empty.
        pred_areas: (P,) mm2, in the order of ``pred_to_truth``.
        truth_areas: (T,) mm2, in the order of ``truth_to_pred``.
    """

    pred_to_truth: NDArray[np.float64]
    truth_to_pred: NDArray[np.float64]
    pred_areas: NDArray[np.float64]
    truth_areas: NDArray[np.float64]

    def hausdorff(self, percentile: float = 95.0) -> float:
        """The larger of the two directed percentiles, by area, in mm: 0 where both masks are empty, else 374 for one.

        Args:
            percentile: in percent; 100 for the plain Hausdorff distance.
        """
        if not self.pred_areas.size or not self.truth_areas.size:
            return ONE_SIDE_EMPTY_MM if self.pred_areas.size or self.truth_areas.size else 0.0
        return max(
            _percentile(self.truth_to_pred, self.truth_areas, percentile),
            _percentile(self.pred_to_truth, self.pred_areas, percentile),
        )

    def overlap(self, tolerance: float) -> float:
        """The part of both surfaces, by area, that lies within ``tolerance`` mm of the other; 1 where both are empty.

        Args:
            tolerance: in mm; a distance of just as much is within.
        """
        total = self.pred_areas.sum() + self.truth_areas.sum()
        if not total:
            return 1.0
        within = self.truth_areas[self.truth_to_pred <= tolerance].sum()
        within += self.pred_areas[self.pred_to_truth <= tolerance].sum()
        return float(within / total)


def surface_distances(pred: Any, truth: Any, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks, both ways.

    Beyond the edge of the volume is outside, so that a mask cut off there has a surface there.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch.
        truth: binary truth of the same shape.
        spacing: (row, column, slice) in mm.

    Raises:
        ValueError: the shapes differ, a mask is not binary or has not three axes, or the spacing is not three
            positive numbers.

    Source: Nikolov et al. 2021, https://doi.org/10.2196/26151, and the package published with it.
    """
    pred, truth = as_mask_pair(pred, truth)
    if pred.ndim != 3:
        raise ValueError(f"pred: found shape {pred.shape}, allowed (rows, columns, slices)")
    step = as_spacing(spacing)
    pred_points, pred_areas = _surface(pred, step)
    truth_points, truth_areas = _surface(truth, step)
    from_pred, pred_areas = _directed(pred_points, pred_areas, truth_points, step)
    from_truth, truth_areas = _directed(truth_points, truth_areas, pred_points, step)
    return SurfaceDistances(from_pred, from_truth, pred_areas, truth_areas)


def hd95_mm(pred: Any, truth: Any, spacing: Sequence[float]) -> float:
    """95th percentile Hausdorff distance in mm, as BraTS takes it: 374 where one mask is empty, 0 where both are.

    From every surface point of one mask to the nearest of the other, the distance below which 95 % of the surface's
    area lies, for each direction; the larger counts.  Args and errors as in :func:`surface_distances`.
    """
    return surface_distances(pred, truth, spacing).hausdorff(95.0)


def normalised_surface_dice(pred: Any, truth: Any, spacing: Sequence[float], tolerance: float = 1.0) -> float:
    """The part of both surfaces that lies within a tolerance of the other: 1 where both are empty, 0 where one is.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch.
        truth: binary truth of the same shape.
        spacing: (row, column, slice) in mm.
        tolerance: in mm; BraTS takes 1 and 0.5.

    Raises:
        ValueError: as in :func:`surface_distances`.
    """
    return surface_distances(pred, truth, spacing).overlap(tolerance)


def as_spacing(spacing: Any) -> NDArray[np.float64]:
    """The size of a voxel as three numbers in mm.

    Raises:
        ValueError: there are not three, or they are not positive and finite.
    """
    step = np.asarray([] if spacing is None else spacing, dtype=np.float64)
    if step.shape != (3,) or not (np.isfinite(step) & (step > 0)).all():
        raise ValueError(f"spacing: found {spacing}, allowed three positive numbers (row, column, slice) in mm")
    return step


def _surface(mask: Mask, step: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Numbers (N, 3) of the corners on a mask's surface, and the area at each."""
    # a corner away from the box has no voxel of the mask around it, so that the crop leaves out nothing
    box = bounding_box(mask)
    codes = _neighbour_codes(mask[box])
    on_surface = (codes != 0) & (codes != _INSIDE)
    points = np.argwhere(on_surface) + [part.start for part in box]
    return points, _areas(step)[codes[on_surface]]


def _neighbour_codes(mask: Mask) -> NDArray[np.uint8]:
    """For each corner of the grid, one more an axis than voxels, which of the eight voxels around it are set."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([size + 1 for size in mask.shape], np.uint8)
    for bit, (row, column, number) in enumerate(np.ndindex(2, 2, 2)):
        corner = padded[row : row + codes.shape[0], column : column + codes.shape[1], number : number + codes.shape[2]]
        codes |= corner << np.uint8(7 - bit)
    return codes


def _areas(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(256,) area in mm2 at a corner, by its neighbour code."""
    normals = _get_neighbour_code_to_normals_table().numpy().astype(np.float64)  # in voxels; multiples of 1/8
    scale = np.array([step[1] * step[2], step[0] * step[2], step[0] * step[1]])
    areas: NDArray[np.float64] = np.sqrt(((normals * scale) ** 2).sum(-1)).sum(-1)
    return areas


def _directed(
    points: NDArray[np.intp], areas: NDArray[np.float64], others: NDArray[np.intp], step: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From each point the distance to the nearest of the others in mm, rising, and the areas in that order."""
    distances = np.full(len(points), np.inf)
    if len(points) and len(others):
        # surfaces are sparse: a tree takes a fraction of the time and memory of a distance map of the volume
        tree = KDTree(others * step, compact_nodes=False, balanced_tree=False)
        nearest = tree.query(points * step)[1]
        # of whole numbers first, so that rounding does not put what is 1 mm away just beyond a tolerance of 1 mm
        distances = np.sqrt((((others[nearest] - points) * step) ** 2).sum(1))
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64], percentile: float) -> float:
    share = np.cumsum(areas) / np.sum(areas)
    index = int(np.searchsorted(share, percentile / 100.0))
    return float(distances[min(index, distances.size - 1)])
