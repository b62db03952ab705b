"""The first of several outputs."""

from __future__ import annotations

import torch
from torch import nn

from medseg_ext.networks import FirstOutput


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.factor * x, x]


def test_first() -> None:
    network = FirstOutput(Two())
    assert network(torch.tensor([3.0])).tolist() == [6.0]
    assert list(network.state_dict()) == ["network.factor"]
