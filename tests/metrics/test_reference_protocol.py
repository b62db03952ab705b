"""The reference program's grid, on volumes small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from medseg_ext.metrics.overlap import dice
from medseg_ext.metrics.reference_protocol import (
    ReferenceGrid,
    dice_reference_protocol,
    keep_largest_component,
    normalise_volume,
)


def head(shape: tuple[int, int, int] = (6, 6, 5), box: tuple[slice, ...] = (slice(1, 5),) * 3) -> np.ndarray:
    """One channel of 0 with a box of 100 (rows, columns, slices)."""
    image = np.zeros((1, *shape), np.float32)
    image[(0, *box)] = 100
    return image


def test_crop_drops_the_outer_slices_and_what_is_below_a_tenth() -> None:
    image = head((6, 6, 5), (slice(1, 5), slice(2, 6), slice(2, 4)))
    image[0, 0, 0, 2] = 9.9  # below a tenth of 100: air
    image[0, :, :, 0] = 500  # in the first slice, which counts neither for the box nor for the maximum
    grid = ReferenceGrid(image, size=4)
    assert grid.box == (slice(1, 3), slice(1, 5), slice(2, 6))  # slices 2 and 3 are 1 and 2 without the first
    assert grid.shape == (2, 4, 4)


def test_a_tenth_of_the_maximum_is_kept() -> None:
    image = head((6, 6, 5), (slice(1, 5), slice(1, 5), slice(1, 4)))
    image[0, 0, 0, 2] = 10
    assert ReferenceGrid(image, size=5).box[1:] == (slice(0, 5), slice(0, 5))


def test_mask_without_resizing_by_hand() -> None:
    grid = ReferenceGrid(head((4, 4, 4), (slice(1, 3), slice(1, 4), slice(1, 3))), size=3)
    assert grid.padding == ((0, 1), (0, 0))  # 2 rows, 3 columns: the odd row of zeros comes last
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1, 1, 1] = mask[2, 3, 2] = mask[0, 0, 1] = mask[1, 1, 0] = 1  # the last two lie outside
    on_grid = grid.to_grid(mask)
    assert on_grid.tolist() == [[[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]]
    expected = mask.copy()
    expected[0, 0, 1] = expected[1, 1, 0] = 0
    assert (grid.to_native(on_grid) == expected).all()


def test_mask_doubled_in_the_plane_by_hand() -> None:
    grid = ReferenceGrid(head((4, 4, 3), (slice(1, 3), slice(1, 3), slice(1, 2))), size=4)
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[1, 2, 1] = 255
    on_grid = grid.to_grid(mask)
    assert on_grid.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]]
    assert (grid.to_native(on_grid) == (mask > 0)).all()


def test_columns_are_padded_where_there_are_more_rows() -> None:
    assert ReferenceGrid(head((6, 6, 4), (slice(0, 5), slice(2, 4), slice(1, 3))), size=5).padding == ((0, 0), (1, 2))


def test_image_equals_the_resize_of_the_whole_volume() -> None:
    generator = np.random.default_rng(0)
    image = np.zeros((2, 14, 12, 6), np.uint8)
    image[:, 2:12, 1:10, :] = generator.integers(30, 200, (2, 10, 9, 6))
    squared = np.pad(np.moveaxis(image[:, 2:12, 1:10, 1:5], 3, 0).astype(float), ((0, 0), (0, 0), (0, 0), (0, 1)))
    squared[squared < image[..., 1:5].max() * 0.1] = 0
    whole = np.moveaxis(squared, 1, 3)
    whole = resize(whole, (4, 16, 16, 2), order=2, mode="constant", cval=0, anti_aliasing=False)
    expected = np.moveaxis(normalise_volume(whole, channel_axis=3), 3, 1)
    np.testing.assert_allclose(ReferenceGrid(image, size=16).image(), expected, atol=1e-5)


def test_image_is_normalised_per_channel() -> None:
    image = np.random.default_rng(1).uniform(50, 200, (3, 8, 8, 5)).astype(np.float32)
    normalised = ReferenceGrid(image, size=16).image()
    assert normalised.shape == (3, 3, 16, 16) and normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_normalisation_by_hand() -> None:
    # Percentiles 10 and 99 of 0..100 are 10 and 99; what lies outside is cut off there.
    volume = np.arange(101, dtype=float).reshape(1, 101)
    stretched = (np.clip(volume, 10, 99) - 10) / 89
    expected = (stretched - stretched.mean()) / stretched.std()
    np.testing.assert_allclose(normalise_volume(volume, channel_axis=0), expected, rtol=1e-5)


def test_a_constant_channel_becomes_zero() -> None:
    volume = np.stack([np.full((4, 4), 50.0), np.arange(16.0).reshape(4, 4)])
    assert (normalise_volume(volume, channel_axis=0)[0] == 0).all()


def test_only_the_largest_component_counts() -> None:
    image = head((8, 8, 5), (slice(0, 8), slice(0, 8), slice(1, 4)))
    truth, prediction = np.zeros((8, 8, 5), np.uint8), np.zeros((8, 8, 5), np.uint8)
    truth[0:2, 0:3, 1] = 1  # 6 voxels
    prediction[0:2, 0:2, 1] = 1  # 4 voxels, all right
    prediction[6, 5:8, 3] = 1  # 3 voxels elsewhere: not scored
    prediction[:, :, 0] = 1  # first slice: not scored
    plain = dice(prediction, truth)
    # On a grid of 256 every voxel is 32 x 32 positions, so the ratio is that of the voxels: 2 * 4 / (4 + 6).
    assert dice_reference_protocol(prediction, truth, image) == pytest.approx(0.8)
    assert plain == pytest.approx(2 * 4 / (6 + 4 + 3 + 64))


def test_components_join_by_faces_only() -> None:
    mask = np.zeros((2, 3, 3), np.uint8)
    mask[0, 0, 0] = mask[0, 0, 1] = 1
    mask[0, 1, 2] = mask[1, 1, 2] = mask[0, 2, 2] = 1  # touches the first by an edge
    kept = keep_largest_component(mask)
    assert kept.sum() == 3 and not kept[0, 0].any()


def test_of_equal_components_the_first_is_kept() -> None:
    assert keep_largest_component(np.array([0, 1, 1, 0, 1, 1])).tolist() == [False, True, True, False, False, False]


def test_empty_masks() -> None:
    image = head((8, 8, 5), (slice(0, 8), slice(0, 8), slice(1, 4)))
    empty, full = np.zeros((8, 8, 5), np.uint8), np.ones((8, 8, 5), np.uint8)
    assert dice_reference_protocol(empty, empty, image) == 1
    assert dice_reference_protocol(full, empty, image) == 0
    assert dice_reference_protocol(empty, full, image) == 0
    assert dice_reference_protocol(full, full, image) == 1


@pytest.mark.parametrize("shape", [(8, 8, 5), (1, 8, 8, 2)])
def test_image_of_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"allowed \(C, H, W, D\) with three slices or more"):
        ReferenceGrid(np.ones(shape))


def test_image_without_a_head() -> None:
    with pytest.raises(ValueError, match="no voxel above 0"):
        ReferenceGrid(np.zeros((1, 8, 8, 5)))


def test_mask_of_another_shape() -> None:
    grid = ReferenceGrid(head(), size=4)
    with pytest.raises(ValueError, match=r"allowed that of the image, \(6, 6, 5\)"):
        grid.to_grid(np.zeros((6, 5, 5)))
    with pytest.raises(ValueError, match="allowed that of the grid"):
        grid.to_native(np.zeros((6, 6, 5)))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), depth=st.integers(3, 6), seed=st.integers(0, 999))
def test_what_lies_in_the_box_comes_back(rows: int, columns: int, depth: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.uniform(0, 1, (2, rows, columns, depth)) * (generator.random((rows, columns, depth)) < 0.5)
    image[:, rows // 2, columns // 2, 1] = 1
    mask = (generator.random((rows, columns, depth)) < 0.5).astype(np.uint8)
    grid = ReferenceGrid(image, size=32)
    rows_of_box, columns_of_box = grid.box[1:]
    expected = np.zeros_like(mask)
    slices = slice(grid.box[0].start + 1, grid.box[0].stop + 1)
    expected[rows_of_box, columns_of_box, slices] = mask[rows_of_box, columns_of_box, slices]
    assert (grid.to_native(grid.to_grid(mask)) == expected).all()  # enlarging loses nothing
