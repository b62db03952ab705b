"""Measures of a segmentation, patient by patient, each with its protocol and its convention for empty masks."""

from medseg_ext.metrics.bootstrap import bootstrap_mean, paired_difference
from medseg_ext.metrics.calibration import expected_calibration_error
from medseg_ext.metrics.lesionwise import LesionwiseScores, lesionwise_scores
from medseg_ext.metrics.overlap import dice, iou, precision, recall
from medseg_ext.metrics.patient import MEASURES, Measure, patient_areas, patient_metrics, summarise
from medseg_ext.metrics.reference_protocol import dice_reference_protocol
from medseg_ext.metrics.regions import (
    REGION_MEASURES,
    REGIONS,
    region_measures,
    region_metrics,
    region_volumes,
    summarise_regions,
)
from medseg_ext.metrics.surface import hd95_of_slices, hd95_px
from medseg_ext.metrics.surface_distance import (
    SurfaceDistances,
    hd95_mm,
    normalised_surface_dice,
    surface_distances,
)

__all__ = [
    "MEASURES",
    "REGIONS",
    "REGION_MEASURES",
    "LesionwiseScores",
    "Measure",
    "SurfaceDistances",
    "bootstrap_mean",
    "dice",
    "dice_reference_protocol",
    "expected_calibration_error",
    "hd95_mm",
    "hd95_of_slices",
    "hd95_px",
    "iou",
    "lesionwise_scores",
    "normalised_surface_dice",
    "paired_difference",
    "patient_areas",
    "patient_metrics",
    "precision",
    "recall",
    "region_measures",
    "region_metrics",
    "region_volumes",
    "summarise",
    "summarise_regions",
    "surface_distances",
]
