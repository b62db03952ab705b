"""Augmentation of patches: where the voxels go, what stays aligned, and that the seed decides everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg_ext.transforms import VolumeAugmentation, change_intensities, cut_patch, draw_matrix
from medseg_ext.transforms.augment_volume import (
    along_axis,
    draw_subset,
    shift_mask,
    smooth,
    smooth_field,
    smoothing_matrix,
    thick_slice_matrix,
)

NOTHING = VolumeAugmentation(
    size=(5, 7, 3),
    rotate=0,
    tilt=0,
    scale=1,
    stretch=1,
    flip=(0, 0, 0),
    still=1,
    thick=0,
    blur=0,
    gamma=1,
    contrast=1,
    brightness=0,
    bias=0,
    noise=0,
    drop=0,
    strip=0,
    shave=0,
)
IDENTITY = np.eye(3)
HEAD = 128


def volume(shape: tuple[int, int, int] = (9, 11, 8), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two channels, and a truth with bits of all kinds; all of it head."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, *shape)).astype(np.float32), rng.integers(0, 128, shape).astype(np.uint8) | HEAD


def test_plain_cut() -> None:
    image, truth = volume()
    patch, bits = cut_patch(image, truth, np.array([4, 5, 3]), IDENTITY, (5, 7, 3))
    assert torch.equal(patch, torch.from_numpy(image[:, 2:7, 2:9, 2:5]))
    assert torch.equal(bits, torch.from_numpy(truth[2:7, 2:9, 2:5]))


def test_chosen_channels() -> None:
    image, truth = volume()
    patch, _ = cut_patch(image, truth, np.array([4, 5, 3]), IDENTITY, (5, 7, 3), channels=[1])
    assert torch.equal(patch, torch.from_numpy(image[1:, 2:7, 2:9, 2:5]))


@pytest.mark.parametrize("matrix", [IDENTITY, IDENTITY + 1e-7])
def test_beyond_the_border(matrix: np.ndarray) -> None:
    image, truth = volume()
    patch, bits = cut_patch(image, truth, np.array([0, 5, 7]), matrix, (5, 7, 3), beyond=56)
    torch.testing.assert_close(patch[:, 2:, :, :2], torch.from_numpy(image[:, :3, 2:9, 6:8]), atol=1e-4, rtol=0)
    assert torch.equal(bits[2:, :, :2], torch.from_numpy(truth[:3, 2:9, 6:8]))
    assert (patch[:, :2] == 0).all()
    assert (patch[..., 2:] == 0).all()
    assert (bits[:2] == 56).all()
    assert (bits[..., 2:] == 56).all()
    far, nothing = cut_patch(image, truth, np.array([100, 5, 7]), matrix, (5, 7, 3), beyond=56)
    assert (far == 0).all()
    assert (nothing == 56).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("nudge", [0.0, 1e-7])
def test_mirrored(axis: int, nudge: float) -> None:
    image, truth = volume()
    matrix = np.eye(3) * (1 + nudge)
    matrix[axis, axis] *= -1
    patch, bits = cut_patch(image, truth, np.array([4, 5, 3]), matrix, (5, 7, 3))
    torch.testing.assert_close(patch, torch.from_numpy(image[:, 2:7, 2:9, 2:5]).flip(axis + 1), atol=1e-4, rtol=0)
    assert torch.equal(bits, torch.from_numpy(truth[2:7, 2:9, 2:5]).flip(axis))


def test_quarter_turn() -> None:
    image, truth = volume((9, 9, 8))
    # a step along the patch's rows is a step back along the volume's columns
    matrix = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    patch, bits = cut_patch(image, truth, np.array([4, 4, 3]), matrix, (5, 5, 3))
    expected = np.rot90(image[:, 2:7, 2:7, 2:5], axes=(1, 2))
    expected_bits = np.rot90(truth[2:7, 2:7, 2:5])
    assert image[0, 4, 4 - 1, 3] == expected[0, 3, 2, 1]
    torch.testing.assert_close(patch, torch.from_numpy(expected.copy()), atol=1e-4, rtol=0)
    assert torch.equal(bits, torch.from_numpy(expected_bits.copy()))


def test_zoom_reads_what_lies_between() -> None:
    ramp = np.indices((12, 12, 12)).astype(np.float32) + 1
    truth = np.full((12, 12, 12), HEAD, np.uint8)
    patch, _ = cut_patch(ramp, truth, np.array([5.5, 5.5, 5.5]), np.diag([0.5, 1.0, 2.0]), (4, 4, 4))
    torch.testing.assert_close(patch[0, :, 0, 0], torch.tensor([5.75, 6.25, 6.75, 7.25]))
    torch.testing.assert_close(patch[1, 0, :, 0], torch.tensor([5.0, 6.0, 7.0, 8.0]))
    torch.testing.assert_close(patch[2, 0, 0, :], torch.tensor([3.5, 5.5, 7.5, 9.5]))


def test_the_rim_of_a_brain_is_not_mixed_with_air() -> None:
    image, truth = np.zeros((1, 8, 8, 8), np.float32), np.zeros((8, 8, 8), np.uint8)
    image[0, :4], truth[:4] = 5.0, HEAD
    patch, bits = cut_patch(image, truth, np.array([3.7, 3.5, 3.5]), IDENTITY, (6, 4, 4))
    assert set(np.round(patch.unique().tolist(), 3)) == {0.0, 5.0}
    assert torch.equal(patch[0] > 0, (bits & HEAD) != 0)


def test_matrix_turns_and_zooms_within_its_ranges() -> None:
    assert np.array_equal(draw_matrix(np.random.default_rng(0), NOTHING), IDENTITY)
    mirrored = draw_matrix(np.random.default_rng(0), replace(NOTHING, flip=(1, 0, 1)))
    assert np.array_equal(mirrored, np.diag([-1.0, 1.0, -1.0]))
    ranges = replace(NOTHING, still=0, rotate=20, tilt=0, scale=1.2)
    for seed in range(20):
        matrix = draw_matrix(np.random.default_rng(seed), ranges)
        zoom = np.linalg.svd(matrix, compute_uv=False)
        assert zoom.max() <= 1.2 + 1e-9
        assert zoom.min() >= 1 / 1.2 - 1e-9
        np.testing.assert_allclose(zoom, zoom[0])
        angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        assert abs(angle) <= 20
        np.testing.assert_allclose(matrix[2, :2], 0, atol=1e-12)


def test_thick_slices_by_hand() -> None:
    # slices of voxels 0-1 and 2-3 with middles 1 and 3; voxel middles .5, 1.5, 2.5, 3.5
    expected = torch.tensor(
        [[0.5, 0.5, 0, 0], [0.375, 0.375, 0.125, 0.125], [0.125, 0.125, 0.375, 0.375], [0, 0, 0.5, 0.5]]
    )
    torch.testing.assert_close(thick_slice_matrix(4, 2.0, 0.0), expected)


@pytest.mark.parametrize(
    ("length", "thickness", "phase"),
    [(1, 3.0, 0.2), (1, 2.0, 0.7), (2, 2.0, 0.9), (7, 2.5, 0.9), (96, 6.9, 0.5), (5, 40, 0.1)],
)
def test_thick_slices_keep_a_constant(length: int, thickness: float, phase: float) -> None:
    matrix = thick_slice_matrix(length, thickness, phase)
    assert matrix.shape == (length, length)
    torch.testing.assert_close(matrix.sum(1), torch.ones(length))
    assert (matrix >= 0).all()


def test_smoothing() -> None:
    torch.testing.assert_close(smoothing_matrix(9, 1.5).sum(1), torch.ones(9))
    assert torch.equal(smoothing_matrix(3, 1e-3), torch.eye(3))
    point = torch.zeros(1, 9, 9, 9)
    point[0, 4, 4, 4] = 1
    blurred = smooth(point, 1.0)
    assert blurred.argmax() == point.argmax()
    torch.testing.assert_close(blurred.sum(), torch.tensor(1.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_axis(axis: int) -> None:
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    matrix = torch.randn(x.shape[axis + 1], x.shape[axis + 1], generator=torch.Generator().manual_seed(1))
    expected = torch.tensordot(x, matrix, dims=([axis + 1], [1])).movedim(-1, axis + 1)
    torch.testing.assert_close(along_axis(x, matrix, axis), expected)


def test_every_subset_of_what_is_there() -> None:
    present = (True, False, True, True)
    rng = np.random.default_rng(0)
    drawn = [draw_subset(rng, present, 1.0) for _ in range(300)]
    assert len(set(drawn)) == 7
    assert all(any(kept) and not kept[1] for kept in drawn)
    assert draw_subset(rng, present, 0.0) == present


def test_shifted_mask_moves_its_border_only() -> None:
    mask = torch.zeros(32, 24, 24, dtype=torch.bool)
    mask[:16] = True
    sizes = set()
    for seed in range(8):
        moved = shift_mask(mask, np.random.default_rng(seed), 2.0)
        assert moved[:11].all()
        assert not moved[21:].any()
        sizes.add(int(moved.sum()))
    assert min(sizes) < int(mask.sum()) < max(sizes)
    assert torch.equal(shift_mask(mask, np.random.default_rng(0), 0.0), mask)


def test_smooth_field_is_smooth() -> None:
    field = smooth_field(np.random.default_rng(0), (30, 20, 10))
    assert field.shape == (30, 20, 10)
    assert 0.3 < field.std() < 2
    assert field.diff(dim=0).abs().max() < 0.5


def heads() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn(3, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(12, 12, 12, dtype=torch.bool)
    inside[2:10, 2:10, 2:10] = True
    return image * inside, inside


def test_no_change() -> None:
    image, inside = heads()
    assert torch.equal(change_intensities(image.clone(), inside, np.random.default_rng(0), NOTHING), image)


@pytest.mark.parametrize(
    "change",
    [
        {"thick": 1.0},
        {"blur": 1.0},
        {"gamma": 1.5},
        {"contrast": 1.4},
        {"brightness": 0.5},
        {"bias": 0.4},
        {"noise": 0.3},
    ],
)
def test_each_change_leaves_the_air_alone(change: dict[str, float]) -> None:
    image, inside = heads()
    kept = image.clone()
    drawn = [change_intensities(image, inside, np.random.default_rng(s), replace(NOTHING, **change)) for s in range(6)]
    assert torch.equal(image, kept)
    assert any(not torch.equal(result, image) for result in drawn)
    for result in drawn:
        assert (result[:, ~inside] == 0).all()
        assert torch.isfinite(result).all()
        assert result.abs().max() <= 8


def test_thick_slices_do_not_darken_the_rim() -> None:
    _, inside = heads()
    image = 4.0 * inside[None].float()
    changed = change_intensities(image, inside, np.random.default_rng(0), replace(NOTHING, thick=1.0, blur=1.0))
    torch.testing.assert_close(changed, image)
