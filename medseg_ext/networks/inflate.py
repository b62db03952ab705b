"""Start a three-dimensional network from one that was trained on thin slabs."""

from __future__ import annotations

import math

import torch
from torch import nn

from medseg_ext.networks.space_to_depth import SpaceToDepth

INFLATIONS = ("centred", "averaged")


@torch.no_grad()
def inflate_slab_network(flat: SpaceToDepth, deep: SpaceToDepth) -> SpaceToDepth:
    """Give a 3-D network the weights of its 2-D twin, which takes a slab's slices as channels.

    Where neighbouring slabs are alike, the 3-D network says of each what the 2-D one says; what differs between them
    it can learn from there. Along the slices a convolution gets its twin's weights in the middle and zeros beside
    (J. Carreira and A. Zisserman, 2017, arXiv 1705.07750, spread them evenly, which would blur), one with a stride of
    two a quarter, a half and a quarter, and a transposed one the same for all slices that it makes of one (see
    :func:`slice_taps`).

    Args:
        flat: ``spatial_dims`` 2; image channels C * factor, channel ``c * factor + s`` being slice s of sequence c (see
            :class:`~medseg_ext.training.SlabDataset`), output channels likewise.
        deep: ``spatial_dims`` 3, of the same factor, C image channels, and a backbone of the same modules; its weights
            are replaced.

    Returns:
        ``deep``.

    Raises:
        ValueError: the two are not twins.
    """
    if (flat.spatial_dims, deep.spatial_dims) != (2, 3) or flat.factor != deep.factor:
        found = f"{flat.spatial_dims}-D, factor {flat.factor}, and {deep.spatial_dims}-D, factor {deep.factor}"
        raise ValueError(f"networks: found {found}, allowed a 2-D and a 3-D one of the same factor")
    others = flat.state_dict().keys() ^ deep.state_dict().keys()
    if others:
        raise ValueError(f"networks: found {min(others)} in one of the two only, allowed the same modules in both")
    theirs = dict(flat.named_modules())
    convolutions = [
        name for name, module in deep.named_modules() if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))
    ]
    for name, module in deep.named_modules():
        own: dict[str, torch.Tensor] = dict(module.named_parameters(recurse=False))
        own |= dict(module.named_buffers(recurse=False))
        if not own:
            continue
        twin = theirs[name]
        for key, value in own.items():
            given = getattr(twin, key)
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)) and key == "weight":
                given = inflate_kernel(given, module)
            if name == convolutions[0] and key == "weight":
                given = given[:, _order(given.shape[1], deep.factor)]
            if name == convolutions[-1]:
                given = given[_order(given.shape[0], deep.factor)]
            if given.shape != value.shape:
                found = f"{name}.{key} of shapes {tuple(given.shape)} and {tuple(value.shape)}"
                raise ValueError(f"networks: found {found}, allowed the same but for the slices")
            value.copy_(given)
    return deep


def slice_taps(depth: int, stride: int = 1, transposed: bool = False, how: str = "centred") -> torch.Tensor:
    """What a two-dimensional kernel is multiplied by at each slice of a three-dimensional one.

    Where the slices of an image are alike, the result is that of the 2-D kernel, but for the zeros beyond the border:
    the taps that meet in a slice of the result sum to 1. These are all of them for a convolution; for a transposed one
    every ``stride``-th.

    Args:
        depth: slices of the 3-D kernel.
        stride: along the slices.
        transposed: for a transposed convolution.
        how: ``centred`` keeps to the middle, with binomial weights where a stride would leave slices out of account;
            ``averaged`` spreads evenly.

    Returns:
        (depth,) float64.

    Raises:
        ValueError: for another ``how``.
    """
    if how not in INFLATIONS:
        raise ValueError(f"inflation: found {how!r}, allowed {' or '.join(map(repr, INFLATIONS))}")
    taps = torch.zeros(depth, dtype=torch.float64)
    places = torch.arange(depth)
    if transposed:
        for phase in range(min(stride, depth)):
            meeting = places[phase::stride]
            if how == "centred":
                distance = (meeting - (depth - 1) / 2).abs()
                meeting = meeting[distance == distance.min()]
            taps[meeting] = 1 / len(meeting)
    elif how == "averaged":
        taps += 1 / depth
    elif stride == 1:
        taps[(depth - 1) // 2] += 0.5
        taps[depth // 2] += 0.5
    else:
        taps += torch.tensor([math.comb(depth - 1, place) for place in range(depth)]) / 2 ** (depth - 1)
    return taps


def inflate_kernel(weight: torch.Tensor, module: nn.Conv3d | nn.ConvTranspose3d, how: str = "centred") -> torch.Tensor:
    """The kernel (., ., h, w) of a 2-D convolution as one (., ., h, w, d) of a 3-D one, see :func:`slice_taps`."""
    taps = slice_taps(module.kernel_size[2], module.stride[2], isinstance(module, nn.ConvTranspose3d), how)
    return weight[..., None] * taps.to(weight)


def _order(channels: int, factor: int) -> torch.Tensor:
    """Channel of the 2-D network that each channel of the 3-D one is.

    Both count blocks of ``factor`` voxels an axis: (channel, slice, row, column) and (channel, row, column, slice).
    """
    flat = torch.arange(channels).reshape(-1, factor, factor, factor)
    return flat.permute(0, 2, 3, 1).flatten()
