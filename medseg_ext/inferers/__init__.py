"""Inferers that MONAI does not have."""

from medseg_ext.inferers.autocast import AutocastInferer
from medseg_ext.inferers.slice_stack import SliceStackInferer

__all__ = ["AutocastInferer", "SliceStackInferer"]
