"""Measures of a segmentation, patient by patient, each with its protocol and its convention for empty masks."""

from medseg_ext.metrics.bootstrap import bootstrap_mean, paired_difference
from medseg_ext.metrics.calibration import expected_calibration_error
from medseg_ext.metrics.overlap import dice, iou, precision, recall
from medseg_ext.metrics.patient import MEASURES, Measure, patient_areas, patient_metrics, summarise
from medseg_ext.metrics.reference_protocol import dice_reference_protocol
from medseg_ext.metrics.surface import hd95_of_slices, hd95_px

__all__ = [
    "MEASURES",
    "Measure",
    "bootstrap_mean",
    "dice",
    "dice_reference_protocol",
    "expected_calibration_error",
    "hd95_of_slices",
    "hd95_px",
    "iou",
    "paired_difference",
    "patient_areas",
    "patient_metrics",
    "precision",
    "recall",
    "summarise",
]
