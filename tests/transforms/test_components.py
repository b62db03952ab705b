"""Dropping components, on grids small enough to read."""

from __future__ import annotations

import pytest
import torch

from medseg_ext.transforms import KeepLesions, KeepLesionsd

#: A block of 6, a pair and a voxel that link up with it by corners, and a voxel by itself.
GRID = [
    [0.9, 0.9, 0.0, 0.0, 0.6, 0.0],
    [0.6, 0.6, 0.0, 0.0, 0.0, 0.0],
    [0.6, 0.6, 0.0, 0.8, 0.8, 0.0],
    [0.0, 0.0, 0.7, 0.0, 0.0, 0.0],
]


def probability(rows: list[list[float]] = GRID) -> torch.Tensor:
    return torch.tensor(rows)[None, :, :, None]


def kept(**options: float) -> list[list[int]]:
    mask = KeepLesions(**options)(probability())
    assert mask.dtype == torch.uint8
    assert mask.shape == (1, 4, 6, 1)
    return mask[0, :, :, 0].tolist()


def test_threshold_alone() -> None:
    assert kept() == [[int(value > 0.5) for value in row] for row in GRID]
    assert kept(threshold=0.75) == [[int(value > 0.75) for value in row] for row in GRID]


def test_small_beside_the_largest() -> None:
    # 2 x 3 with the corner neighbour and, through it, the pair: 9 voxels; the single one is below 0.2 * 9
    everything = [[int(value > 0.5) for value in row] for row in GRID]
    without_the_single_one = [row.copy() for row in everything]
    without_the_single_one[0][4] = 0
    assert kept(share=0.2) == without_the_single_one
    assert kept(share=0.1) == everything  # 1 of 9 is more than a tenth
    assert kept(share=1.0) == without_the_single_one


def test_nowhere_likely() -> None:
    without_the_single_one = [[int(value > 0.5) for value in row] for row in GRID]
    without_the_single_one[0][4] = 0
    assert kept(peak=0.7) == without_the_single_one
    assert kept(threshold=0.65, peak=0.85) == [[1, 1, 0, 0, 0, 0]] + [[0] * 6] * 3
    assert kept(peak=0.95) == [[0] * 6] * 4


def test_components_reach_through_slices() -> None:
    volume = torch.zeros(1, 3, 3, 4)
    volume[0, 0, 0, 0] = volume[0, 1, 1, 1] = volume[0, 2, 2, 2] = 0.9  # a diagonal is one component
    volume[0, 0, 2, 3] = 0.9
    assert KeepLesions(share=0.5)(volume).nonzero()[:, 1:].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("options", [{}, {"share": 1.0}, {"peak": 0.9}])
def test_nothing_stays_nothing(options: dict[str, float]) -> None:
    assert KeepLesions(**options)(torch.full((1, 3, 3, 2), 0.2)).sum() == 0


def test_dictionary() -> None:
    before = probability()
    data = {"pred": before, "other": 3}
    result = KeepLesionsd("pred", share=0.5)(data)
    assert torch.equal(result["pred"], KeepLesions(share=0.5)(probability()))
    assert result["other"] == 3
    assert data["pred"] is before
    assert torch.equal(before, probability())
