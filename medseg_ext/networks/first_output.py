"""Networks that return a list of outputs, as networks that return one."""

from __future__ import annotations

import torch
from torch import nn


class FirstOutput(nn.Module):
    """Give the first output of a network that returns several, as MONAI's ``BasicUNetPlusPlus`` does.

    Args:
        network: maps a tensor to a list or tuple of tensors; its names of parameters stay.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first of the network's outputs for ``x``."""
        first: torch.Tensor = self.network(x)[0]
        return first
