"""Inferers that MONAI does not have."""

from medseg_ext.inferers.autocast import AutocastInferer, bfloat16_pays_in_3d
from medseg_ext.inferers.lesion_slices import LesionSliceInferer
from medseg_ext.inferers.openvino import OpenVINONetwork
from medseg_ext.inferers.slice_stack import SliceStackInferer
from medseg_ext.inferers.window import BoxWindowInferer

__all__ = [
    "AutocastInferer",
    "BoxWindowInferer",
    "LesionSliceInferer",
    "OpenVINONetwork",
    "SliceStackInferer",
    "bfloat16_pays_in_3d",
]
