"""Network parts that MONAI does not have."""

from medseg_ext.networks.fold import fold_batch_norm
from medseg_ext.networks.space_to_depth import SpaceToDepth

__all__ = ["SpaceToDepth", "fold_batch_norm"]
