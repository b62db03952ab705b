"""Batch normalisation folded into convolutions."""

from __future__ import annotations

import copy

import torch
from monai.networks.nets import DynUNet
from torch import nn

from medseg_ext.networks import SpaceToDepth, fold_batch_norm


def with_statistics(network: nn.Module) -> nn.Module:
    """Normalisations that do something: as new they are the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor)
            if module.running_var is not None:
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def test_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval()
    convolution, norm = network
    with torch.no_grad():
        convolution.weight.fill_(3.0)
        convolution.bias.fill_(1.0)
        norm.weight.fill_(2.0)
        norm.bias.fill_(5.0)
        norm.running_mean.fill_(4.0)
        norm.running_var.fill_(0.25)
    # ((3 x + 1) - 4) / 0.5 * 2 + 5 = 12 x - 7
    fold_batch_norm(network)
    assert network[0].weight.item() == 12.0
    assert network[0].bias.item() == -7.0
    assert isinstance(network[1], nn.Identity)


def test_a_whole_network() -> None:
    for dimensions in (2, 3):
        backbone = DynUNet(
            dimensions, 2**dimensions, 2**dimensions, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 8], norm_name="batch"
        )
        network = with_statistics(SpaceToDepth(backbone, dimensions))
        before = copy.deepcopy(network)
        assert norms(network) > 8
        assert fold_batch_norm(network) is network
        assert norms(network) == 0
        x = torch.randn(2, 1, *[16] * dimensions)
        with torch.no_grad():
            torch.testing.assert_close(network(x), before(x), atol=1e-4, rtol=1e-4)


class Shared(nn.Module):
    """Its convolution's output is read by the normalisation and by the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        return x + self.norm(x)


class Twice(nn.Module):
    """One convolution before two normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.a, self.b = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(self.convolution(x)) + self.b(self.convolution(2 * x))


class Depends(nn.Module):
    """Cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) if x.sum() > 0 else x


def test_what_cannot_be_folded_stays() -> None:
    x = torch.randn(1, 1, 6, 6)
    for network in (Shared(), Twice(), Depends(), nn.Sequential(nn.Conv2d(1, 1, 1), nn.InstanceNorm2d(1))):
        with_statistics(network)
        before = copy.deepcopy(network)
        fold_batch_norm(network)
        assert norms(network) == norms(before)
        with torch.no_grad():
            assert torch.equal(network(x), before(x))


def test_it_leaves_evaluation_mode_behind() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train()
    assert not fold_batch_norm(network).training
