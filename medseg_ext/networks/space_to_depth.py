"""Run any network at a fraction of the resolution without losing a voxel of its input."""

from __future__ import annotations

import torch
from torch import nn

# MONAI's pixelshuffle and pixelunshuffle do the same, but cannot be scripted


def space_to_depth(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Move (B, C, H, W, D) to (B, C * factor**3, H / factor, W / factor, D / factor)."""
    batch, channels, height, width, depth = x.shape
    h, w, d = height // factor, width // factor, depth // factor
    x = x.reshape(batch, channels, h, factor, w, factor, d, factor)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * factor * factor * factor, h, w, d)
    # convolutions in bfloat16 want channels last, and keep what the first of them is given
    return x.contiguous(memory_format=torch.channels_last_3d)


def depth_to_space(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Undo :func:`space_to_depth`."""
    batch, channels, h, w, d = x.shape
    channels = channels // (factor * factor * factor)  # a power would be a float when scripted
    x = x.reshape(batch, channels, factor, factor, factor, h, w, d)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, channels, h * factor, w * factor, d * factor)


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
        return depth_to_space(self.backbone(space_to_depth(x, self.factor)), self.factor)
