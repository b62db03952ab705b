"""The row of numbers a patient gets, and what a set of rows comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_ext.metrics.bootstrap import bootstrap_mean
from medseg_ext.metrics.calibration import expected_calibration_error
from medseg_ext.metrics.overlap import dice, iou, precision, recall
from medseg_ext.metrics.reference_protocol import dice_reference_protocol
from medseg_ext.metrics.surface import hd95_px
from medseg_ext.metrics.volumes import Mask, as_array, as_mask, as_mask_pair, head_box

Row = dict[str, Any]


class Measure(NamedTuple):
    """A column of the table: what it is called in print, in what unit, and by which protocol it came about.

    Attributes:
        label: its name.
        unit: empty for a plain number.
        protocol: a sentence, see the module that takes it.
        decimals: how many are printed; files have six.
        share: whether it is a share from 0 to 1, of which 1 is best.
        region: what it is taken of, where a patient has several regions.
    """

    label: str
    unit: str
    protocol: str
    decimals: int = 3
    share: bool = False
    region: str = ""


MEASURES: dict[str, Measure] = {
    "dice": Measure(
        "Dice", "", "whole patient volume, all slices, the mask as it is; both masks empty 1, one empty 0", share=True
    ),
    "dice_reference_protocol": Measure(
        "Dice, reference protocol",
        "",
        "as brain-segmentation-pytorch scores: first and last slice dropped, on its cropped and resized grid, of the "
        "prediction only the largest 3-D component; empty masks as for Dice; left out below three slices",
        share=True,
    ),
    "iou": Measure("IoU", "", "whole patient volume; both masks empty 1, one empty 0"),
    "hd95_px": Measure(
        "HD95",
        "px",
        "in-plane symmetric 95th percentile Hausdorff distance of outlines, mean over the slices where both masks hold "
        "something; left out where no slice has both",
        decimals=2,
    ),
    "precision": Measure("Precision", "", "voxels; of an empty prediction 1 where the truth is empty too, else 0"),
    "recall": Measure("Recall", "", "voxels; of an empty truth 1 where the prediction is empty too, else 0"),
    "ece": Measure(
        "ECE",
        "",
        "expected calibration error of the foreground probability, 15 equal bins, over the voxels of the head's box "
        "and of both masks",
    ),
    "area_px": Measure("Lesion area", "px", "truth pixels, total over the patient's slices", decimals=0),
    "predicted_area_px": Measure(
        "Predicted area", "px", "predicted pixels, total over the patient's slices", decimals=0
    ),
    "volume_ml": Measure("Lesion volume", "ml", "truth voxels times the voxel size", decimals=2),
    "predicted_volume_ml": Measure("Predicted volume", "ml", "predicted voxels times the voxel size", decimals=2),
    "n_slices": Measure("Slices", "", "slices in the study", decimals=0),
}


def patient_metrics(
    pred: Any, truth: Any, probability: Any, image: Any, spacing: Sequence[float] | None = None
) -> dict[str, float]:
    """Everything measured of one patient.  :data:`MEASURES` says by which protocol.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch.
        truth: binary truth of the same shape.
        probability: (H, W, D) foreground probability in [0, 1]; None leaves ``ece`` NaN.
        image: (C, H, W, D) original intensities, not normalised: the reference protocol and the head's box need them.
        spacing: (row, column, slice) in mm; None, where the format stores none, leaves the volumes out.

    Returns:
        A value for each of ``dice``, ``dice_reference_protocol`` (NaN where the protocol has no grid: fewer than three
        slices, or nothing bright between the first and the last), ``iou``, ``hd95_px`` (NaN where no slice has both
        masks), ``precision``, ``recall``, ``ece``, ``area_px``, ``predicted_area_px``, ``n_slices``, and, with a
        spacing, ``volume_ml`` and ``predicted_volume_ml``.

    Raises:
        ValueError: shapes that do not fit each other, a mask that is not binary, a probability outside [0, 1].
    """
    pred, truth = as_mask_pair(pred, truth)
    image = as_array(image)
    if image.ndim != 4 or image.shape[1:] != pred.shape:
        raise ValueError(f"image: found shape {image.shape}, allowed (channels, {', '.join(map(str, pred.shape))})")
    row: dict[str, float] = {
        "dice": dice(pred, truth),
        "dice_reference_protocol": _reference_dice(pred, truth, image),
        "iou": iou(pred, truth),
        "hd95_px": hd95_px(pred, truth),
        "precision": precision(pred, truth),
        "recall": recall(pred, truth),
        "ece": float("nan"),
        "area_px": int(np.count_nonzero(truth)),
    }
    if probability is not None:
        # lesion that was claimed or missed outside the box has to count as well
        region = pred | truth
        region[head_box(image)] = True
        row["ece"] = expected_calibration_error(probability, truth, region)
    areas = patient_areas(pred, spacing)
    if spacing is not None:
        row["volume_ml"] = _volume_ml(row["area_px"], spacing)
    return row | areas


def patient_areas(pred: Any, spacing: Sequence[float] | None = None) -> dict[str, float]:
    """What can be said of a patient without a truth: ``predicted_area_px``, ``predicted_volume_ml``, ``n_slices``.

    Args:
        pred: (H, W, D) binary prediction, numpy or torch.
        spacing: (row, column, slice) in mm; None leaves the volume out.
    """
    pred = as_mask(pred, "pred")
    area = int(np.count_nonzero(pred))
    row: dict[str, float] = {"predicted_area_px": area, "n_slices": pred.shape[-1]}
    if spacing is not None:
        row["predicted_volume_ml"] = _volume_ml(area, spacing)
    return row


def summarise(rows: Sequence[Mapping[str, Any]], draws: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Rows of patients, put together.

    Args:
        rows: from :func:`patient_metrics` or :func:`patient_areas`; other keys, such as ``patient``, do no harm.
        draws: of the bootstrap over patients.
        seed: of the bootstrap.

    Returns:
        ``{"patients": N, "dice": {"mean", "median", "ci95": [low, high], "n"}, ...}`` with an entry for every measure
        some row has; ``n`` counts the patients whose value is defined.  ``scored`` counts the patients with a truth,
        ``empty_truth`` and ``empty_prediction`` those whose mask holds nothing: under the conventions above these
        count 1 or 0 and can carry a mean.
    """
    summary: dict[str, Any] = {
        "patients": len(rows),
        "scored": sum("dice" in row for row in rows),
        "empty_truth": sum(row.get("area_px") == 0 for row in rows),
        "empty_prediction": sum(row.get("predicted_area_px") == 0 for row in rows),
    }
    for name in MEASURES:
        values = [row[name] for row in rows if name in row]
        if values:
            summary[name] = bootstrap_mean(values, draws=draws, seed=seed)
    return summary


def _reference_dice(pred: Mask, truth: Mask, image: NDArray[Any]) -> float:
    try:
        return float(dice_reference_protocol(pred, truth, image))
    except ValueError:  # shapes were checked before, so what is left is a volume without a reference grid
        return float("nan")


def _volume_ml(voxels: float, spacing: Sequence[float]) -> float:
    return float(voxels * np.prod(spacing) / 1000.0)
