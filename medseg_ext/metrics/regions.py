"""The row of numbers of a patient whose tumour has several regions, and what a set of rows comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_ext.layouts.labels import REGIONS
from medseg_ext.metrics.bootstrap import bootstrap_mean
from medseg_ext.metrics.calibration import expected_calibration_error
from medseg_ext.metrics.lesionwise import lesionwise_scores
from medseg_ext.metrics.overlap import dice, recall
from medseg_ext.metrics.patient import Measure
from medseg_ext.metrics.surface_distance import as_spacing, surface_distances
from medseg_ext.metrics.volumes import Mask, as_array, as_mask, as_mask_pair, bounding_box, head_box

#: What is measured a region; the column of a measure and a region is ``MEASURE_REGION``, as ``dice_tc``.
REGION_MEASURES: dict[str, Measure] = {
    "dice": Measure("Dice", "", "voxels of the whole volume; both masks empty 1, one empty 0", share=True),
    "lesionwise_dice": Measure(
        "Lesion-wise Dice",
        "",
        "BraTS 2023: truth dilated three times (18-connectivity), components 26-connected; a lesion against all "
        "predicted components that touch its dilation; lesions of 50 mm3 or less ignored, false positives of any size "
        "0; mean over a patient's lesions first; 1 where there is nothing to count",
        share=True,
    ),
    "lesionwise_hd95_mm": Measure(
        "Lesion-wise HD95", "mm", "as lesion-wise Dice; missed lesions and false positives 374", decimals=2
    ),
    "hd95_mm": Measure(
        "HD95",
        "mm",
        "the larger of the two directed 95th percentiles of surface distances, weighted by area, as in the package "
        "surface-distance; one mask empty 374, both 0",
        decimals=2,
    ),
    "sensitivity": Measure("Sensitivity", "", "voxels; of an empty truth 1 where the prediction is empty too, else 0"),
    "ece": Measure(
        "ECE",
        "",
        "expected calibration error of the region's probability, 15 equal bins, over the voxels of the head's box and "
        "of both masks",
    ),
    "volume_ml": Measure("Volume", "ml", "truth voxels times the voxel size", decimals=2),
    "predicted_volume_ml": Measure("Predicted volume", "ml", "predicted voxels times the voxel size", decimals=2),
    "lesions": Measure("Lesions", "", "truth lesions above 50 mm3, counted as for lesion-wise Dice", decimals=2),
    "missed_lesions": Measure("Missed lesions", "", "those of them that no predicted component touches", decimals=2),
    "false_lesions": Measure(
        "False lesions", "", "predicted components that touch no dilated truth lesion", decimals=2
    ),
    "largest_false_lesion_ml": Measure("Largest false lesion", "ml", "volume; 0 where there is none", decimals=2),
}
MEAN_DICE = Measure("Mean Dice", "", "mean over the regions of a patient, then over patients", share=True)


def surface_dice_name(tolerance: float, lesionwise: bool = False) -> str:
    """The measure's name, as ``nsd_1mm`` and ``lesionwise_nsd_0.5mm``."""
    return f"{'lesionwise_' * lesionwise}nsd_{tolerance:g}mm"


def region_measures(tolerances: Sequence[float] = (1.0,)) -> dict[str, Measure]:
    """What is measured a region, in the order of the table.

    Args:
        tolerances: of the normalised surface Dice, in mm.
    """
    measures: dict[str, Measure] = {}
    for name, measure in REGION_MEASURES.items():
        measures[name] = measure
        if name not in {"hd95_mm", "lesionwise_hd95_mm"}:
            continue
        for tolerance in tolerances:
            lesionwise = name != "hd95_mm"
            protocol = f"the part of both surfaces, by area, within {tolerance:g} mm of the other; both masks empty 1"
            measures[surface_dice_name(tolerance, lesionwise)] = Measure(
                f"{'Lesion-wise surface' if lesionwise else 'Surface'} Dice at {tolerance:g} mm",
                "",
                "as lesion-wise Dice, of the normalised surface Dice" if lesionwise else protocol,
                share=True,
            )
    return measures


def region_metrics(
    pred: Any,
    truth: Any,
    probability: Any,
    spacing: Sequence[float],
    image: Any | None = None,
    *,
    regions: Sequence[str] = REGIONS,
    tolerances: Sequence[float] = (1.0,),
) -> dict[str, float]:
    """Everything measured of one patient, region by region.  :data:`REGION_MEASURES` says by which protocol.

    Args:
        pred: (R, H, W, D) binary prediction of each region, numpy or torch; regions may overlap.
        truth: binary truth of the same shape.
        probability: (R, H, W, D) probability of each region in [0, 1]; None leaves the calibration NaN.
        spacing: (row, column, slice) in mm.
        image: (C, H, W, D), original intensities, or normalised ones that are 0 outside of the head: calibration is
            taken over the head's box; over the whole volume where None.
        regions: names of the R regions, in their order.
        tolerances: of the normalised surface Dice, in mm.

    Returns:
        ``mean_dice`` over the regions, then for each measure a value a region, ``dice_tc``, ``dice_wt``, ...

    Raises:
        ValueError: shapes that do not fit each other, a mask that is not binary, a probability outside [0, 1], or a
            spacing that is not three positive numbers.
    """
    pred, truth = as_mask_pair(pred, truth)
    _check_regions(pred, regions)
    voxel_ml = _voxel_ml(spacing)
    by_region: dict[str, dict[str, float]] = {}
    errors = _calibration(pred, truth, probability, image, regions)
    for number, region in enumerate(regions):
        # three voxels around both masks change none of the numbers and save most of the work
        box = bounding_box(pred[number] | truth[number], margin=3)
        claimed, real = pred[number][box], truth[number][box]
        surfaces = surface_distances(claimed, real, spacing)
        lesionwise = lesionwise_scores(claimed, real, spacing, tolerances)
        by_region[region] = {
            "dice": dice(claimed, real),
            "lesionwise_dice": lesionwise.dice,
            "lesionwise_hd95_mm": lesionwise.hd95_mm,
            "hd95_mm": surfaces.hausdorff(),
            "sensitivity": recall(claimed, real),
            "ece": errors[region],
            "volume_ml": float(np.count_nonzero(real) * voxel_ml),
            "predicted_volume_ml": float(np.count_nonzero(claimed) * voxel_ml),
            "lesions": lesionwise.lesions,
            "missed_lesions": lesionwise.missed,
            "false_lesions": lesionwise.false_positives,
            "largest_false_lesion_ml": lesionwise.largest_false_mm3 / 1000.0,
        }
        for tolerance in tolerances:
            by_region[region][surface_dice_name(tolerance)] = surfaces.overlap(tolerance)
            by_region[region][surface_dice_name(tolerance, True)] = lesionwise.surface_dice[tolerance]
    row = {"mean_dice": float(np.mean([by_region[region]["dice"] for region in regions]))}
    for name in region_measures(tolerances):
        row |= {f"{name}_{region}": by_region[region][name] for region in regions}
    return row


def region_volumes(pred: Any, spacing: Sequence[float], *, regions: Sequence[str] = REGIONS) -> dict[str, float]:
    """What can be said of a patient without a truth: ``predicted_volume_ml_tc`` and so on.

    Args:
        pred: (R, H, W, D) binary prediction of each region, numpy or torch.
        spacing: (row, column, slice) in mm.
        regions: names of the R regions, in their order.

    Raises:
        ValueError: as in :func:`region_metrics`.
    """
    pred = as_mask(pred, "pred")
    _check_regions(pred, regions)
    voxel_ml = _voxel_ml(spacing)
    return {
        f"predicted_volume_ml_{region}": float(np.count_nonzero(pred[number]) * voxel_ml)
        for number, region in enumerate(regions)
    }


def summarise_regions(
    rows: Sequence[Mapping[str, Any]],
    *,
    regions: Sequence[str] = REGIONS,
    tolerances: Sequence[float] = (1.0,),
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Rows of patients, put together.

    Args:
        rows: from :func:`region_metrics` or :func:`region_volumes`; other keys, such as ``patient``, do no harm.
        regions: those of the rows.
        tolerances: those of the rows.
        draws: of the bootstrap over patients.
        seed: of the bootstrap.

    Returns:
        ``{"patients": N, "scored": N, "mean_dice": ESTIMATE, "dice": {"tc": ESTIMATE, ...}, ...}`` with an entry for
        every measure some row has, and ``ESTIMATE = {"mean", "median", "ci95": [low, high], "n"}``.  ``scored`` counts
        the patients with a truth.  By region, ``empty_truth``, ``empty_prediction`` and ``both_empty`` count the
        patients whose masks hold nothing, among those with a truth: under the conventions these count 0 or 1 and can
        carry a mean.  So ``dice_where_present`` is Dice over the patients whose truth holds the region, and
        ``predicted_volume_ml_where_absent`` what was claimed of it in the others.
    """
    scored = [row for row in rows if "mean_dice" in row]
    absent = {region: [row[f"volume_ml_{region}"] == 0 for row in scored] for region in regions}
    silent = {region: [row[f"predicted_volume_ml_{region}"] == 0 for row in scored] for region in regions}
    summary: dict[str, Any] = {
        "patients": len(rows),
        "scored": len(scored),
        "empty_truth": {region: sum(absent[region]) for region in regions},
        "empty_prediction": {region: sum(silent[region]) for region in regions},
        "both_empty": {
            region: sum(a and s for a, s in zip(absent[region], silent[region], strict=True)) for region in regions
        },
    }
    if scored:
        summary["mean_dice"] = bootstrap_mean([row["mean_dice"] for row in scored], draws, seed)
    for name in region_measures(tolerances):
        estimates = {
            region: bootstrap_mean([row[f"{name}_{region}"] for row in rows if f"{name}_{region}" in row], draws, seed)
            for region in regions
            if any(f"{name}_{region}" in row for row in rows)
        }
        if estimates:
            summary[name] = estimates
    if scored:
        for name, measure, wanted in (
            ("dice_where_present", "dice", False),
            ("predicted_volume_ml_where_absent", "predicted_volume_ml", True),
        ):
            summary[name] = {
                region: bootstrap_mean(
                    [
                        row[f"{measure}_{region}"]
                        for row, empty in zip(scored, absent[region], strict=True)
                        if empty == wanted
                    ],
                    draws,
                    seed,
                )
                for region in regions
            }
    return summary


def content_box(image: Any) -> tuple[slice, ...]:
    """The box around the head in an image of original intensities, or of normalised ones that are 0 outside of it.

    Args:
        image: (C, H, W, D).

    Returns:
        Three slices, over H, W and D.
    """
    array = as_array(image)
    if array.ndim == 4 and array.min() < 0:
        return bounding_box((array != 0).any(0))
    return head_box(array)


def _calibration(
    pred: Mask, truth: Mask, probability: Any | None, image: Any | None, regions: Sequence[str]
) -> dict[str, float]:
    if probability is None:
        return dict.fromkeys(regions, float("nan"))
    values = as_array(probability)
    if values.shape != pred.shape:
        raise ValueError(f"probability: found shape {values.shape}, allowed that of pred, {pred.shape}")
    head: tuple[slice, ...] = tuple(slice(0, size) for size in pred.shape[1:])
    if image is not None:
        array = as_array(image)
        if array.ndim != 4 or array.shape[1:] != pred.shape[1:]:
            shape = ", ".join(map(str, pred.shape[1:]))
            raise ValueError(f"image: found shape {array.shape}, allowed (channels, {shape})")
        head = content_box(array)
    errors = {}
    for number, region in enumerate(regions):
        # lesion that was claimed or missed outside the box has to count as well
        counted: NDArray[np.bool_] = pred[number] | truth[number]
        counted[head] = True
        errors[region] = expected_calibration_error(values[number], truth[number], counted)
    return errors


def _check_regions(mask: Mask, regions: Sequence[str]) -> None:
    if mask.ndim != 4 or len(mask) != len(regions):
        raise ValueError(f"pred: found shape {mask.shape}, allowed ({len(regions)}, rows, columns, slices)")


def _voxel_ml(spacing: Sequence[float]) -> float:
    return float(np.prod(as_spacing(spacing)) / 1000.0)
