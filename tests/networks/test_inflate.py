"""A 3-D network that starts as its 2-D twin: the same answer where all slabs are alike, weight by weight."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from medseg_ext.networks import LevelUNet, SpaceToDepth, inflate_slab_network, slice_taps
from medseg_ext.training.slabs import as_channels

SEQUENCES, REGIONS = 2, 3


def network(
    dimensions: int, filters: tuple[int, ...] = (4, 6, 8), kernel: int = 3, factor: int = 2, res_block: bool = False
) -> SpaceToDepth:
    """As the bundle builds it: the 2-D one has the slices of a slab as channels."""
    levels = len(filters) - 1
    backbone = LevelUNet(
        spatial_dims=dimensions,
        in_channels=factor**3 * SEQUENCES,
        out_channels=factor**3 * REGIONS,
        kernel_size=[1] + [kernel] * levels,
        strides=[1] + [2] * levels,
        upsample_kernel_size=[2] * levels,
        filters=filters,
        norm_name="batch",
        res_block=res_block,
    )
    return SpaceToDepth(backbone, dimensions, factor)


def with_statistics(network: nn.Module) -> nn.Module:
    """Normalisations and biases that do something: as new they are the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize("factor", [1, 2])
def test_the_same_answer_where_all_slabs_are_alike(factor: int) -> None:
    flat = with_statistics(network(2, factor=factor))
    deep = network(3, factor=factor)
    assert inflate_slab_network(flat, deep) is deep
    deep.eval()
    slab = torch.randn(1, SEQUENCES, 16, 16, factor)
    with torch.no_grad():
        wanted = flat(as_channels(slab[0])[None])
        found = deep(slab.repeat(1, 1, 1, 1, 12))
    assert wanted.shape == (1, REGIONS * factor, 16, 16)
    assert found.shape == (1, REGIONS, 16, 16, 12 * factor)
    # the border of a volume reaches one position of the lowest level far, which is four slabs
    for at in range(4, 12):
        of_slab = as_channels(found[0, ..., at * factor : (at + 1) * factor])
        torch.testing.assert_close(of_slab, wanted[0], atol=1e-4, rtol=1e-4)


def test_the_two_dimensional_one_is_left_as_it_is() -> None:
    flat = with_statistics(network(2))
    before = copy.deepcopy(flat.state_dict())
    deep = inflate_slab_network(flat, network(3))
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in flat.state_dict().items())


def test_statistics_come_along() -> None:
    flat = with_statistics(network(2))
    theirs, ours = flat.state_dict(), inflate_slab_network(flat, network(3)).state_dict()
    assert list(theirs) == list(ours)
    of_norms = [key for key in theirs if "norm" in key]
    assert any(key.endswith("num_batches_tracked") for key in of_norms)
    assert all(torch.equal(theirs[key], ours[key]) for key in of_norms)


def stack(dimensions: int) -> SpaceToDepth:
    """One convolution of each sort, between a first and a last one."""
    convolution, transposed = (nn.Conv2d, nn.ConvTranspose2d) if dimensions == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    return SpaceToDepth(
        nn.Sequential(
            convolution(8, 1, 1, bias=False),
            convolution(1, 1, 3, stride=2, padding=1, bias=False),
            convolution(1, 1, 3, padding=1, bias=False),
            convolution(1, 1, 5, padding=2, bias=False),
            transposed(1, 1, 2, stride=2, bias=False),
            convolution(1, 8, 1),
        ),
        dimensions,
    )


def test_taps_by_hand() -> None:
    flat, deep = stack(2), stack(3)
    with torch.no_grad():
        for layer in flat.backbone:
            layer.weight.copy_(torch.arange(layer.weight.numel()).reshape(layer.weight.shape))
        flat.backbone[5].bias.copy_(torch.arange(10, 18))
    inflate_slab_network(flat, deep)
    first, halves, keeps, wide, doubles, last = deep.backbone
    # of a block the 2-D network counts slice, row, column, the 3-D one row, column, slice
    assert first.weight.flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert halves.weight[0, 0].tolist() == [
        [[0, 0, 0], [0.25, 0.5, 0.25], [0.5, 1, 0.5]],
        [[0.75, 1.5, 0.75], [1, 2, 1], [1.25, 2.5, 1.25]],
        [[1.5, 3, 1.5], [1.75, 3.5, 1.75], [2, 4, 2]],
    ]
    assert keeps.weight[0, 0].tolist() == [
        [[0, 0, 0], [0, 1, 0], [0, 2, 0]],
        [[0, 3, 0], [0, 4, 0], [0, 5, 0]],
        [[0, 6, 0], [0, 7, 0], [0, 8, 0]],
    ]
    assert wide.weight[0, 0, 4].tolist() == [[0, 0, n, 0, 0] for n in (20, 21, 22, 23, 24)]
    assert doubles.weight[0, 0].tolist() == [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]
    assert last.weight.flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert last.bias.tolist() == [10, 14, 11, 15, 12, 16, 13, 17]


def test_several_sequences_stay_apart() -> None:
    flat = SpaceToDepth(nn.Sequential(nn.Conv2d(16, 1, 1), nn.Conv2d(1, 8, 1)), 2)
    deep = SpaceToDepth(nn.Sequential(nn.Conv3d(16, 1, 1), nn.Conv3d(1, 8, 1)), 3)
    with torch.no_grad():
        flat.backbone[0].weight.copy_(torch.arange(16).reshape(1, 16, 1, 1))
    inflate_slab_network(flat, deep)
    assert deep.backbone[0].weight.flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


@pytest.mark.parametrize(
    ("flat", "deep", "reason"),
    [
        ({"dimensions": 3}, {}, "found 3-D, factor 2, and 3-D, factor 2"),
        ({}, {"dimensions": 2}, "found 2-D, factor 2, and 2-D, factor 2"),
        ({}, {"factor": 1}, "found 2-D, factor 2, and 3-D, factor 1"),
        ({"filters": (4, 6, 10)}, {}, r"found backbone\.\S+ of shapes"),
        ({"kernel": 1}, {}, r"found backbone\.\S+ of shapes"),
        ({}, {"filters": (4, 6, 8, 8)}, r"found backbone\.\S+ in one of the two only"),
        ({}, {"res_block": True}, r"found backbone\.\S+ in one of the two only"),
    ],
)
def test_refused_if_not_twins(flat: dict[str, Any], deep: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"networks: {reason}"):
        inflate_slab_network(network(**{"dimensions": 2} | flat), network(**{"dimensions": 3} | deep))


@pytest.mark.parametrize(
    ("depth", "stride", "transposed", "how", "wanted"),
    [
        (1, 1, False, "centred", [1]),
        (3, 1, False, "centred", [0, 1, 0]),
        (4, 1, False, "centred", [0, 0.5, 0.5, 0]),
        (1, 2, False, "centred", [1]),
        (2, 2, False, "centred", [0.5, 0.5]),
        (3, 2, False, "centred", [0.25, 0.5, 0.25]),
        (5, 2, False, "centred", [0.0625, 0.25, 0.375, 0.25, 0.0625]),
        (4, 1, False, "averaged", [0.25, 0.25, 0.25, 0.25]),
        (2, 2, True, "centred", [1, 1]),
        (3, 2, True, "centred", [0.5, 1, 0.5]),
        (4, 2, True, "centred", [0, 1, 1, 0]),
        (4, 2, True, "averaged", [0.5, 0.5, 0.5, 0.5]),
        (3, 1, True, "centred", [0, 1, 0]),
    ],
)
def test_taps(depth: int, stride: int, transposed: bool, how: str, wanted: list[float]) -> None:
    assert slice_taps(depth, stride, transposed, how).tolist() == wanted


def test_unknown_inflation() -> None:
    with pytest.raises(ValueError, match="inflation: found 'zeros', allowed 'centred' or 'averaged'"):
        slice_taps(3, how="zeros")
