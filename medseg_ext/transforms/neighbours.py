"""Slices of a volume together with their neighbours: the input of a 2.5-D network."""

from __future__ import annotations

import torch


def neighbour_indices(index: int, depth: int, neighbours: int) -> list[int]:
    """Indices ``index - neighbours .. index + neighbours``, the outermost slice repeated at the ends of the volume."""
    return [min(max(index + step, 0), depth - 1) for step in range(-neighbours, neighbours + 1)]


def stack_neighbours(volume: torch.Tensor, indices: list[int], neighbours: int) -> torch.Tensor:
    """Gather slices with their neighbours as channels.

    Args:
        volume: (D, C, H, W).
        indices: the n slices wanted.
        neighbours: slices on either side.

    Returns:
        (n, (2 * neighbours + 1) * C, H, W), the lowest neighbour's channels first.
    """
    if neighbours == 0:
        return volume[indices]
    rows = [neighbour_indices(i, volume.shape[0], neighbours) for i in indices]
    return volume[torch.tensor(rows)].flatten(1, 2)
