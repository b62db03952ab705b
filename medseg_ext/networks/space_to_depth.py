"""Run any network at a fraction of the resolution without losing a voxel of its input."""

from __future__ import annotations

import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import nn


class SpaceToDepth(nn.Module):
    """A space-to-depth stem and a depth-to-space head around a backbone.

    Blocks of ``factor`` voxels an axis move into channels before the backbone and its output channels move back into
    space after it, so that the backbone works on ``factor ** spatial_dims`` times fewer positions while it still sees
    and predicts every voxel (Shi et al. 2016, arXiv 1609.05158, gives the rearrangement).

    Args:
        backbone: maps (B, in_channels * factor**spatial_dims, *spatial / factor) to
            (B, out_channels * factor**spatial_dims, *spatial / factor).
        spatial_dims: 2 or 3.
        factor: voxels an axis that become channels.

    Shapes: input (B, in_channels, *spatial), each spatial size divisible by ``factor`` times whatever the backbone
    asks for; output (B, out_channels, *spatial).
    """

    def __init__(self, backbone: nn.Module, spatial_dims: int = 2, factor: int = 2) -> None:
        super().__init__()
        self.backbone = backbone
        self.spatial_dims = spatial_dims
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to logits (B, K, *spatial)."""
        if self.spatial_dims == 2:
            # torch's own kernels keep channels_last, which the convolutions after them want
            x = nn.functional.pixel_unshuffle(x, self.factor)
            return nn.functional.pixel_shuffle(self.backbone(x), self.factor)
        x = pixelunshuffle(x, self.spatial_dims, self.factor)
        return pixelshuffle(self.backbone(x), self.spatial_dims, self.factor)
