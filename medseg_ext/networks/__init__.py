"""Network parts that MONAI does not have."""

from medseg_ext.networks.fold import fold_batch_norm
from medseg_ext.networks.inflate import inflate_slab_network
from medseg_ext.networks.level_unet import LevelUNet
from medseg_ext.networks.space_to_depth import SpaceToDepth

__all__ = ["LevelUNet", "SpaceToDepth", "fold_batch_norm", "inflate_slab_network"]
