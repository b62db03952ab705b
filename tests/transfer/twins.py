"""Pairs of networks of two and three dimensions, with normalisations that do something."""

from __future__ import annotations

import torch
from torch import nn

from medseg_ext.networks import LevelUNet, SpaceToDepth

FILTERS = (4, 6, 8)


def unet(
    dims: int, sequences: int, regions: int, factor: int = 2, filters: tuple[int, ...] = FILTERS, seed: int = 0
) -> SpaceToDepth:
    """As the bundles build it, with random statistics, in evaluation mode."""
    torch.manual_seed(seed)
    levels = len(filters) - 1
    backbone = LevelUNet(
        spatial_dims=dims,
        in_channels=factor**dims * sequences,
        out_channels=factor**dims * regions,
        kernel_size=[1] + [3] * levels,
        strides=[1] + [2] * levels,
        upsample_kernel_size=[2] * levels,
        filters=filters,
        norm_name="batch",
        res_block=False,
    )
    return with_statistics(SpaceToDepth(backbone, dims, factor))


def with_statistics(network: nn.Module) -> nn.Module:
    """Normalisations and biases that do something: as new they are the identity."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.bias is not None:
            nn.init.normal_(module.bias)
    return network.eval()
