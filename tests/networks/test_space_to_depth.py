"""The rearrangement around a backbone, index by index."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from medseg_ext.networks import SpaceToDepth


class Recorder(nn.Module):
    """Keeps what the backbone is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x


@pytest.mark.parametrize("factor", [2, 3])
def test_two_dimensions_by_index(factor: int) -> None:
    x = torch.arange(2 * 3 * 6 * 12, dtype=torch.float32).view(2, 3, 6, 12)
    backbone = Recorder()
    assert torch.equal(SpaceToDepth(backbone, 2, factor)(x), x)  # an identity inside is one outside
    assert backbone.seen.shape == (2, 3 * factor**2, 6 // factor, 12 // factor)
    for b, c, i, j in product(range(2), range(3), range(factor), range(factor)):
        channel = c * factor**2 + i * factor + j
        assert torch.equal(backbone.seen[b, channel], x[b, c, i::factor, j::factor])


def test_three_dimensions_by_index() -> None:
    x = torch.arange(2 * 2 * 4 * 6 * 2, dtype=torch.float32).view(2, 2, 4, 6, 2)
    backbone = Recorder()
    assert torch.equal(SpaceToDepth(backbone, 3)(x), x)
    assert backbone.seen.shape == (2, 16, 2, 3, 1)
    for b, c, i, j, k in product(range(2), range(2), range(2), range(2), range(2)):
        assert torch.equal(backbone.seen[b, c * 8 + i * 4 + j * 2 + k], x[b, c, i::2, j::2, k::2])


def test_a_literal_four_by_four() -> None:
    x = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15.0]])[None, None]
    backbone = Recorder()
    SpaceToDepth(backbone)(x)
    assert backbone.seen[0].tolist() == [
        [[0, 2], [8, 10]],
        [[1, 3], [9, 11]],
        [[4, 6], [12, 14]],
        [[5, 7], [13, 15]],
    ]


def test_another_number_of_classes() -> None:
    assert SpaceToDepth(nn.Conv2d(3 * 4, 5 * 4, 1))(torch.zeros(1, 3, 8, 6)).shape == (1, 5, 8, 6)


@pytest.mark.parametrize("dims", [2, 3])
def test_torchscript(dims: int) -> None:
    torch.manual_seed(0)
    backbone = nn.Conv2d(4, 8, 3, padding=1) if dims == 2 else nn.Conv3d(8, 16, 3, padding=1)
    network = SpaceToDepth(backbone, dims).eval()
    x = torch.randn(1, 1, *([4] * dims))
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(x), network(x))


def test_channels_last_stays() -> None:
    backbone = Recorder()
    SpaceToDepth(backbone)(torch.zeros(2, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    assert backbone.seen.is_contiguous(memory_format=torch.channels_last)
