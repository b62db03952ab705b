"""Network parts that MONAI does not have."""

from medseg_ext.networks.space_to_depth import SpaceToDepth

__all__ = ["SpaceToDepth"]
