"""nnU-Net's network with each level's own kernel on the way up too."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetUpBlock
from monai.networks.nets.dynunet import DynUNet
from torch import nn


class LevelUNet(DynUNet):
    """MONAI's ``DynUNet`` whose decoder convolves a level with that level's kernel.

    ``DynUNet`` takes the kernel of the level below. The difference counts where the first level is to be pointwise:
    behind a space-to-depth stem its convolutions are the dearest of all, and neighbours are seen one level down.

    Args, shapes: those of ``DynUNet``.
    """

    def get_upsamples(self) -> nn.ModuleList:
        """The decoder, from the bottom up."""
        filters = list(self.filters)
        return self.get_module_list(
            filters[:0:-1],
            filters[-2::-1],
            self.kernel_size[-2::-1],
            self.strides[:0:-1],
            UnetUpBlock,  # type: ignore[arg-type]  # DynUNet annotates an instance and takes a class
            self.upsample_kernel_size[::-1],
            trans_bias=self.trans_bias,
        )
