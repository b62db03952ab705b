"""Start a three-dimensional network from one that was trained on thin slabs."""

from __future__ import annotations

import torch
from torch import nn

from medseg_ext.networks.space_to_depth import SpaceToDepth


@torch.no_grad()
def inflate_slab_network(flat: SpaceToDepth, deep: SpaceToDepth) -> SpaceToDepth:
    """Give a 3-D network the weights of its 2-D twin, which takes a slab's slices as channels.

    Where neighbouring slabs are alike, the 3-D network says of each what the 2-D one says; what differs between them
    it can learn from there. Along the slices a convolution gets its twin's weights in the middle and zeros beside
    (J. Carreira and A. Zisserman, 2017, arXiv 1705.07750, spread them evenly, which would blur), one with a stride of
    two a quarter, a half and a quarter, and a transposed one the same for all slices that it makes of one.

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
                given = _inflated(given, module)
            if name == convolutions[0] and key == "weight":
                given = given[:, _order(given.shape[1], deep.factor)]
            if name == convolutions[-1]:
                given = given[_order(given.shape[0], deep.factor)]
            if given.shape != value.shape:
                found = f"{name}.{key} of shapes {tuple(given.shape)} and {tuple(value.shape)}"
                raise ValueError(f"networks: found {found}, allowed the same but for the slices")
            value.copy_(given)
    return deep


def _inflated(weight: torch.Tensor, module: nn.Conv3d | nn.ConvTranspose3d) -> torch.Tensor:
    """(., ., h, w) to (., ., h, w, d)."""
    depth, stride = module.kernel_size[2], module.stride[2]
    if isinstance(module, nn.ConvTranspose3d):
        taps = torch.ones(depth)
    elif depth == 3 and stride == 2:
        taps = torch.tensor([0.25, 0.5, 0.25])
    elif depth % 2 == 1 and stride == 1:
        taps = torch.zeros(depth)
        taps[depth // 2] = 1
    else:
        raise ValueError(f"networks: found a kernel of {depth} slices with a stride of {stride}, allowed odd ones")
    return weight[..., None] * taps.to(weight)


def _order(channels: int, factor: int) -> torch.Tensor:
    """Channel of the 2-D network that each channel of the 3-D one is.

    Both count blocks of ``factor`` voxels an axis: (channel, slice, row, column) and (channel, row, column, slice).
    """
    flat = torch.arange(channels).reshape(-1, factor, factor, factor)
    return flat.permute(0, 2, 3, 1).flatten()
