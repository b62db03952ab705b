"""Network parts that MONAI does not have."""

from medseg_ext.networks.first_output import FirstOutput
from medseg_ext.networks.fold import fold_batch_norm
from medseg_ext.networks.inflate import INFLATIONS, inflate_kernel, inflate_slab_network, slice_taps
from medseg_ext.networks.level_unet import LevelUNet
from medseg_ext.networks.space_to_depth import SpaceToDepth

__all__ = [
    "INFLATIONS",
    "FirstOutput",
    "LevelUNet",
    "SpaceToDepth",
    "fold_batch_norm",
    "inflate_kernel",
    "inflate_slab_network",
    "slice_taps",
]
