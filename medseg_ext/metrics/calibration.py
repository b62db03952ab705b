"""How far the foreground probability can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_ext.metrics.volumes import as_array, as_mask


def expected_calibration_error(probability: Any, truth: Any, region: Any | None = None, bins: int = 15) -> float:
    """Expected calibration error of the foreground probability, over voxels.

    Voxels are sorted into equal bins of probability ([0, 1/15), ..., [14/15, 1]).  In each bin the mean probability is
    compared with the fraction of voxels that are lesion; the absolute differences are averaged, weighted by the
    number of voxels.  Reliability of the one foreground class, not of the winning class.

    Most of a volume is air, where any network is right and sure: over all voxels the error looks small.  So give a
    ``region``, such as the head's box, and name it with the number.

    Args:
        probability: (H, W, D) foreground probability in [0, 1], numpy or torch.
        truth: binary truth of the same shape.
        region: binary mask of the voxels to count; all where None.
        bins: how many.

    Returns:
        A value in [0, 1]; NaN where the region is empty.

    Raises:
        ValueError: shapes differ, or a probability is NaN or outside [0, 1].

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599; binary form: Naeini et al. 2015,
    https://doi.org/10.1609/aaai.v29i1.9602.
    """
    values, labels = as_array(probability), as_mask(truth, "truth")
    if values.shape != labels.shape:
        raise ValueError(f"probability: found shape {values.shape}, allowed that of truth, {labels.shape}")
    if region is not None:
        inside = as_mask(region, "region")
        if inside.shape != labels.shape:
            raise ValueError(f"region: found shape {inside.shape}, allowed that of truth, {labels.shape}")
        values, labels = values[inside], labels[inside]
    values, labels = values.ravel().astype(np.float32, copy=False), labels.ravel()
    if not values.size:
        return float("nan")
    if not (values.min() >= 0 and values.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"probability: found values from {values.min()} to {values.max()}, allowed 0 to 1")
    which = np.minimum((values * bins).astype(np.intp), bins - 1)
    probability_sum = np.bincount(which, weights=values, minlength=bins)
    lesion_sum = np.bincount(which, weights=labels, minlength=bins)
    return float(np.abs(probability_sum - lesion_sum).sum() / values.size)
