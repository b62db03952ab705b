"""Neighbouring slices as channels."""

from __future__ import annotations

import pytest
import torch

from medseg_ext.transforms import neighbour_indices, stack_neighbours


@pytest.mark.parametrize(
    ("index", "depth", "neighbours", "expected"),
    [
        (0, 3, 1, [0, 0, 1]),
        (1, 3, 1, [0, 1, 2]),
        (2, 3, 1, [1, 2, 2]),
        (0, 1, 2, [0, 0, 0, 0, 0]),
        (1, 4, 2, [0, 0, 1, 2, 3]),
        (5, 9, 0, [5]),
    ],
)
def test_indices(index: int, depth: int, neighbours: int, expected: list[int]) -> None:
    assert neighbour_indices(index, depth, neighbours) == expected


def test_three_slices_of_two_channels() -> None:
    # slice s holds 10 * s in its first channel and 10 * s + 1 in its second
    volume = torch.tensor([[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]])[:, :, None, None]
    assert stack_neighbours(volume, [0, 1, 2], 1)[:, :, 0, 0].tolist() == [
        [0, 1, 0, 1, 10, 11],
        [0, 1, 10, 11, 20, 21],
        [10, 11, 20, 21, 20, 21],
    ]
    assert stack_neighbours(volume, [2, 0], 0)[:, :, 0, 0].tolist() == [[20, 21], [0, 1]]
