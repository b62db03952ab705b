"""Measures of a segmentation, patient by patient, each with its protocol and its convention for empty masks."""

from medseg_ext.metrics.bootstrap import bootstrap_mean, paired_difference
from medseg_ext.metrics.calibration import expected_calibration_error
from medseg_ext.metrics.comparison import Comparison, compare_with_baseline, holm, signed_rank_p
from medseg_ext.metrics.discrepancy import Discrepancy, maximum_mean_discrepancy, principal_components
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
    "Comparison",
    "Discrepancy",
    "LesionwiseScores",
    "Measure",
    "SurfaceDistances",
    "bootstrap_mean",
    "compare_with_baseline",
    "dice",
    "dice_reference_protocol",
    "expected_calibration_error",
    "hd95_mm",
    "hd95_of_slices",
    "hd95_px",
    "holm",
    "iou",
    "lesionwise_scores",
    "maximum_mean_discrepancy",
    "normalised_surface_dice",
    "paired_difference",
    "patient_areas",
    "patient_metrics",
    "precision",
    "principal_components",
    "recall",
    "region_measures",
    "region_metrics",
    "region_volumes",
    "signed_rank_p",
    "summarise",
    "summarise_regions",
    "surface_distances",
]
