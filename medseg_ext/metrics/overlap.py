"""Overlap of two masks.  Every function states what it gives where a mask is empty; none gives NaN.

All take whole patient volumes: averaged over slices instead, the many empty slices would each count as 1 and hide
what happens at the lesion.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_ext.metrics.volumes import Mask, as_mask_pair


def dice(pred: Any, truth: Any) -> float:
    """Dice coefficient, ``2 |P and T| / (|P| + |T|)``.

    Empty masks: 1 where both are empty, 0 where only one is.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch; any shape will do.
        truth: binary truth of the same shape.

    Raises:
        ValueError: the shapes differ, or a mask is not binary.

    Source: Dice 1945, https://doi.org/10.2307/1932409.
    """
    pred, truth = as_mask_pair(pred, truth)
    total = np.count_nonzero(pred) + np.count_nonzero(truth)
    return float(2.0 * np.count_nonzero(pred & truth) / total) if total else 1.0


def iou(pred: Any, truth: Any) -> float:
    """Intersection over union (Jaccard index), ``|P and T| / |P or T|``.

    Empty masks: 1 where both are empty, 0 where only one is.  Args and errors as in :func:`dice`.
    """
    pred, truth = as_mask_pair(pred, truth)
    union = np.count_nonzero(pred | truth)
    return float(np.count_nonzero(pred & truth) / union) if union else 1.0


def precision(pred: Any, truth: Any) -> float:
    """The part of the prediction that is right, ``|P and T| / |P|``.

    Empty masks: an empty prediction has 1 where the truth is empty too (nothing was there, nothing was claimed) and 0
    where it is not, so that predicting nothing never pays.  An empty truth under a prediction gives 0.
    Args and errors as in :func:`dice`.
    """
    pred, truth = as_mask_pair(pred, truth)
    return _fraction(pred & truth, of=pred, other=truth)


def recall(pred: Any, truth: Any) -> float:
    """The part of the truth that was found, ``|P and T| / |T|`` (sensitivity).

    Empty masks: an empty truth has 1 where the prediction is empty too and 0 where it is not, the mirror image of
    :func:`precision`.  An empty prediction over a lesion gives 0.  Args and errors as in :func:`dice`.
    """
    pred, truth = as_mask_pair(pred, truth)
    return _fraction(pred & truth, of=truth, other=pred)


def _fraction(hits: Mask, of: Mask, other: Mask) -> float:
    """``|hits| / |of|``; where ``of`` is empty 1 when the ``other`` is empty too, else 0."""
    size = np.count_nonzero(of)
    if size:
        return float(np.count_nonzero(hits) / size)
    return 0.0 if other.any() else 1.0
