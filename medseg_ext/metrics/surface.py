"""Distances between the outlines of two masks, slice by slice and in pixels.

Slices of these stacks are 2.5 to 8 mm thick and their pixel size is often not stored, so a distance across slices would
mix units; in the plane a pixel is a pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg_ext.metrics.volumes import Mask, as_mask_pair, bounding_box


def hd95_of_slices(pred: Any, truth: Any, percentile: float = 95.0) -> NDArray[np.float64]:
    """Symmetric percentile Hausdorff distance of every slice, in pixels.

    The outline of a mask is its pixels that have a 4-neighbour outside the mask; beyond the edge of the slice is
    outside.  From every outline pixel of one mask the Euclidean distance to the nearest outline pixel of the other is
    taken; the 95th percentile of these (interpolated linearly), in each direction; the larger of the two counts.
    This is ``monai.metrics.compute_hausdorff_distance(..., percentile=95)`` of a slice.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch.
        truth: binary truth of the same shape.
        percentile: 100 for the plain Hausdorff distance.

    Returns:
        (D,) distances, NaN for a slice where either mask is empty.

    Raises:
        ValueError: the shapes differ, a mask is not binary, or there are not three axes.

    Source: Huttenlocher, Klanderman and Rucklidge 1993, https://doi.org/10.1109/34.232073.
    """
    pred, truth = as_mask_pair(pred, truth)
    if pred.ndim != 3:
        raise ValueError(f"pred: found shape {pred.shape}, allowed (rows, columns, slices)")
    distances = np.full(pred.shape[2], np.nan)
    for index in np.flatnonzero(pred.any((0, 1)) & truth.any((0, 1))):
        distances[index] = _distance(pred[:, :, index], truth[:, :, index], percentile)
    return distances


def hd95_px(pred: Any, truth: Any) -> float:
    """Mean of :func:`hd95_of_slices` over the slices where both masks hold something; NaN where no slice has both.

    A lesion missed altogether therefore costs nothing here: read it beside recall.  Args and errors as there.
    """
    distances = hd95_of_slices(pred, truth)
    found = distances[~np.isnan(distances)]
    return float(found.mean()) if found.size else float("nan")


def _distance(pred: Mask, truth: Mask, percentile: float) -> float:
    # nothing beyond the box is set, so the crop changes no outline and saves most of the transform's work
    box = bounding_box(pred | truth)
    pred, truth = _outline(pred[box]), _outline(truth[box])
    to_truth = ndimage.distance_transform_edt(~truth)[pred]
    to_pred = ndimage.distance_transform_edt(~pred)[truth]
    return float(max(np.percentile(to_truth, percentile), np.percentile(to_pred, percentile)))


def _outline(mask: Mask) -> Mask:
    outline: Mask = mask & ~ndimage.binary_erosion(mask)
    return outline
