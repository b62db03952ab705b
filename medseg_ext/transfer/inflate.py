"""Kernels of another number of dimensions: two from three and three from two."""

from __future__ import annotations

import torch
from torch import nn

from medseg_ext.networks.inflate import INFLATIONS, inflate_kernel

FLATTENINGS = ("sum", "centre")

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def flatten_kernel(weight: torch.Tensor, stride: int = 1, transposed: bool = False, how: str = "sum") -> torch.Tensor:
    """The kernel (., ., h, w, d) of a 3-D convolution as one (., ., h, w) of a 2-D one.

    Args:
        weight: the 3-D kernel.
        stride: along the slices, in the 3-D network.
        transposed: for a transposed convolution.
        how: ``sum`` says of a slice what the 3-D kernel says where all slices are alike (a transposed one on average
            over the slices it makes of one); ``centre`` keeps what stands for the slice itself, of an even kernel the
            mean of the two in the middle.
    """
    if how == "sum":
        return weight.sum(-1) / (stride if transposed else 1)
    depth = weight.shape[-1]
    return (weight[..., (depth - 1) // 2] + weight[..., depth // 2]) / 2


def other_dimension(weight: torch.Tensor, module: Convolution, inflation: str, flattening: str) -> torch.Tensor:
    """A kernel with the dimensions of a convolution: the slices are its last axis.

    Args:
        weight: kernel of the source, one dimension more or fewer, or as many.
        module: the convolution of the network.
        inflation: one of ``INFLATIONS``, see :func:`~medseg_ext.networks.slice_taps`.
        flattening: one of ``FLATTENINGS``, see :func:`flatten_kernel`.
    """
    wanted = module.weight.ndim
    if (weight.ndim, wanted) == (4, 5) and isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        return inflate_kernel(weight, module, inflation)
    if (weight.ndim, wanted) == (5, 4):
        # a network strides alike along all its axes, or its twin would not be one
        return flatten_kernel(weight, module.stride[-1], isinstance(module, nn.ConvTranspose2d), flattening)
    return weight


__all__ = ["CONVOLUTIONS", "FLATTENINGS", "INFLATIONS", "Convolution", "flatten_kernel", "other_dimension"]
