"""The working grid, on numbers that can be worked out by hand."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medseg_ext.errors import InputError
from medseg_ext.layouts.grid import Grid, check_field_of_view, coverage, head_to_grid, is_working, to_grid, working_grid

#: Rows go back, columns go left, slices go up, 1 mm.
PLS = np.array([[0.0, -1, 0, 10], [-1, 0, 0, 20], [0, 0, 1, -5], [0, 0, 0, 1]])


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_what_lies_right_is_left_alone() -> None:
    native = Grid((4, 5, 6), PLS)
    assert working_grid(native) is native
    nearly = Grid((4, 5, 6), turned(0.4) @ PLS @ np.diag([1.009, 0.991, 1, 1]))
    assert working_grid(nearly) is nearly
    assert not is_working(turned(0.6) @ PLS, 1.0)
    assert not is_working(PLS @ np.diag([1.02, 1, 1, 1]), 1.0)
    assert is_working(PLS @ np.diag([2, 2, 2, 1]), 2.0)


def test_thick_slices_by_hand() -> None:
    # 4 slices of 3 mm fill 12 mm from 1.5 mm below the lowest centre
    grid = working_grid(Grid((20, 30, 4), PLS @ np.diag([1, 1, 3, 1])))
    assert grid.shape == (20, 30, 12)
    expected = PLS.copy()
    expected[2, 3] = -5 - 1.5 + 0.5
    np.testing.assert_allclose(grid.affine, expected)


def test_an_oblique_grid_is_held_whole() -> None:
    native = Grid((40, 40, 20), turned(45) @ PLS)
    grid = working_grid(native)
    assert grid.shape == (57, 57, 20)  # 40 * sqrt(2)
    assert nibabel.aff2axcodes(grid.affine) == ("P", "L", "S")
    corners = np.array([[a, b, c, 1] for a in (0, 39) for b in (0, 39) for c in (0, 19)]).T
    inside = np.linalg.inv(grid.affine) @ native.affine @ corners
    assert (inside[:3] > -0.5).all()
    assert (inside[:3] < np.array(grid.shape)[:, None] - 0.5).all()


@pytest.mark.parametrize(
    ("shape", "scale", "text"),
    [((240, 240, 155), 0.001, "0.24 x 0.24 x 0.155 mm"), ((240, 240, 155), 10, "2.4e+03 x 2.4e+03 x 1.55e+03 mm")],
)
def test_no_head_is_that_large_or_small(shape: tuple[int, int, int], scale: float, text: str) -> None:
    with pytest.raises(InputError) as caught:
        check_field_of_view(Grid(shape, PLS @ np.diag([scale, scale, scale, 1])), "p.nii")
    assert str(caught.value) == f"p.nii: found a field of view of {text}, allowed 10 to 1000 mm along each axis"


def test_coverage_by_hand() -> None:
    target = Grid((32, 32, 32), PLS)
    assert coverage(target, target) == 1
    half = PLS.copy()
    half[2, 3] += 16
    assert coverage(Grid((32, 32, 32), half), target) == 0.5
    half[2, 3] += 16
    assert coverage(Grid((32, 32, 32), half), target) == 0


def test_a_part_of_a_grid_keeps_its_place() -> None:
    part = Grid((8, 9, 10), PLS).crop((slice(2, 5), slice(0, 9), slice(1, 4)))
    assert part.shape == (3, 9, 3)
    np.testing.assert_array_equal(part.affine @ [0, 0, 0, 1], PLS @ [2, 0, 1, 1])


def test_interpolation_by_hand() -> None:
    data = np.array([0.0, 3.0, 6.0]).reshape(1, 1, 3)
    thick = Grid((1, 1, 3), np.diag([1.0, 1, 3, 1]))
    fine = np.diag([1.0, 1, 1, 1])
    fine[2, 3] = -2
    # centres at -2 (outside by half a millimetre), -1, 0, 1, ... 7 (the last that the thick voxels reach), 8
    moved = to_grid(data, thick, Grid((1, 1, 11), fine), fill=-9)
    np.testing.assert_allclose(moved.ravel(), [-9, 0, 0, 1, 2, 3, 4, 5, 6, 6, -9], atol=1e-6)
    same = to_grid(data, thick, Grid((1, 1, 3), thick.affine + 1e-9))
    assert same is data


def test_what_lies_between_coarse_samples_counts() -> None:
    stripes = np.zeros((1, 1, 60))
    stripes[..., ::2] = 1
    coarse = Grid((1, 1, 9), np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 6, 6], [0, 0, 0, 1]]))
    np.testing.assert_allclose(to_grid(stripes, Grid((1, 1, 60), np.eye(4)), coarse), 0.5, atol=0.01)
    sampled = to_grid(stripes, Grid((1, 1, 60), np.eye(4)), coarse, smooth=False)
    np.testing.assert_array_equal(sampled, 1)  # every sixth is a stripe


@pytest.mark.parametrize("air", [0.0, -3.0])
def test_the_rim_of_a_head_is_not_mixed_with_air_by_hand(air: float) -> None:
    """Half a voxel on: between 0 and 10 there is half a voxel of head, and that half is 10."""
    grid = Grid((1, 1, 6), PLS)
    target = Grid((1, 1, 5), PLS + np.pad([[0.0], [0], [0.5]], ((0, 1), (3, 0))))
    data = np.array([0.0, 0, 10, 20, 0, 0]).reshape(1, 1, 6) + air
    np.testing.assert_allclose(to_grid(data, grid, target, air).ravel() - air, [0, 5, 15, 10, 0])
    np.testing.assert_allclose(head_to_grid(data, grid, target, air).ravel() - air, [0, 10, 15, 20, 0])
    assert head_to_grid(data, grid, grid, air) is data


def test_noise_in_the_air_is_interpolated_as_anything_else() -> None:
    grid = Grid((4, 5, 6), PLS)
    target = Grid((4, 5, 5), PLS + np.pad([[0.0], [0], [0.5]], ((0, 1), (3, 0))))
    data = np.random.default_rng(0).random((4, 5, 6))
    np.testing.assert_array_equal(head_to_grid(data, grid, target, 0.0), to_grid(data, grid, target, 0.0))
