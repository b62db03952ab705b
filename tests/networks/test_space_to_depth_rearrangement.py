import pytest
import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle

from medseg_ext.networks.space_to_depth import SpaceToDepth, depth_to_space, space_to_depth


def test_rearrangement_is_that_of_monai():
    x = torch.rand(2, 3, 4, 6, 8)
    folded = space_to_depth(x, 2)
    torch.testing.assert_close(folded, pixelunshuffle(x, 3, 2), rtol=0, atol=0)
    torch.testing.assert_close(depth_to_space(folded, 2), x, rtol=0, atol=0)
    torch.testing.assert_close(pixelshuffle(folded, 3, 2), x, rtol=0, atol=0)


def test_blocks_become_channels():
    x = torch.arange(8.0).view(1, 1, 2, 2, 2)
    assert space_to_depth(x, 2).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("dims", [2, 3])
def test_scripted_is_the_same(dims):
    channels = 2 * 2**dims
    convolution = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2](channels, channels, 3, padding=1)
    network = SpaceToDepth(convolution, spatial_dims=dims, factor=2)
    x = torch.rand(2, 2, *(8, 4, 6)[:dims])
    assert network(x).shape == x.shape
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))
