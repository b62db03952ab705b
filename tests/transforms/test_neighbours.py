"""Neighbouring slices as channels."""

from __future__ import annotations

import pytest

from medseg_ext.transforms import neighbour_indices


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
