"""The decoder's kernels, level by level."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from medseg_ext.networks import LevelUNet


def options(dimensions: int, **others: Any) -> dict[str, Any]:
    return {
        "spatial_dims": dimensions,
        "in_channels": 2,
        "out_channels": 5,
        "kernel_size": [1, 3, 5, 7],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
        "filters": [3, 4, 5, 6],
        "norm_name": "batch",
    } | others


def decoder_kernels(network: DynUNet) -> list[list[int]]:
    """Edges of the kernels of each level's two convolutions, from the bottom up."""
    return [
        [block.conv.kernel_size[0] for block in (level.conv_block.conv1, level.conv_block.conv2)]
        for level in network.upsamples
    ]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_level_has_its_own_kernel(dimensions: int) -> None:
    assert decoder_kernels(LevelUNet(**options(dimensions))) == [[5, 5], [3, 3], [1, 1]]
    assert decoder_kernels(DynUNet(**options(dimensions))) == [[7, 7], [5, 5], [3, 3]]


def test_kernels_that_differ_by_axis() -> None:
    network = LevelUNet(**options(3, kernel_size=((1, 1, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))))
    sizes = [level.conv_block.conv1.conv.kernel_size for level in network.upsamples]
    assert sizes == [(3, 3, 3), (3, 3, 1), (1, 1, 1)]


def test_all_else_is_as_in_dynunet() -> None:
    ours, theirs = (kind(**options(2, kernel_size=[3] * 4, trans_bias=True)) for kind in (LevelUNet, DynUNet))
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_pointwise_first_level_sees_no_neighbours() -> None:
    network = LevelUNet(**options(2))
    sizes = {
        module.kernel_size
        for part in (network.input_block, network.upsamples[-1].conv_block, network.output_block)
        for module in part.modules()
        if isinstance(module, nn.Conv2d)
    }
    assert sizes == {(1, 1)}


@pytest.mark.parametrize(
    ("dimensions", "size", "strides", "out"),
    [
        (2, (16, 24), [1, 2, 2, 2], (16, 24)),
        (3, (16, 8, 24), [1, 2, 2, 2], (16, 8, 24)),
        (2, (32, 16), [2, 2, 2, 2], (16, 8)),
    ],
)
def test_output_shape(dimensions: int, size: tuple[int, ...], strides: list[int], out: tuple[int, ...]) -> None:
    network = LevelUNet(**options(dimensions, strides=strides)).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 2, *size)).shape == (2, 5, *out)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_torchscript(dimensions: int) -> None:
    torch.manual_seed(0)
    network = LevelUNet(**options(dimensions)).eval()
    x = torch.randn(1, 2, *[8] * dimensions)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(x), network(x))
