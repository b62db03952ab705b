"""What a page carries of a volume, decoded again."""

import base64
import gzip

import nibabel
import numpy as np
import pytest

from medseg_ext.layouts.grid import Grid
from medseg_ext.reports.html.volumes import grey_volume, label_volume, made_grid

TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def decoded(volume):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume.data)))


def oblique(shape):
    affine = np.eye(4)
    affine[:3, :3] = TURN * (0.5, 1.0, 3.0)
    affine[:3, 3] = (-11, 22, 33)
    return Grid(shape, affine)


def test_intensities_that_levels_hold_come_back_as_they_were():
    values = np.tile(np.array([0.0, 51, 102, 255], np.float32), 30).reshape(4, 5, 6)  # 1st percentile 0, 99.8th 255
    volume = grey_volume(values, oblique((4, 5, 6)))
    image = decoded(volume)
    assert (volume.low, volume.high, volume.shape, volume.coarsened) == (0, 255, (4, 5, 6), 1)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_fdata(), values, atol=1e-4)
    np.testing.assert_allclose(image.affine, oblique((4, 5, 6)).affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_other_intensities_come_back_to_half_a_level():
    values = np.random.default_rng(0).gamma(2, 300, (21, 17, 13)).astype(np.float32) - 100
    volume = grey_volume(values, oblique(values.shape))
    error = decoded(volume).get_fdata() - values.clip(volume.low, volume.high)
    assert np.abs(error).max() <= 0.501 * (volume.high - volume.low) / 255


def test_a_constant_stays_one():
    assert (decoded(grey_volume(np.full((3, 4, 5), 7.0), oblique((3, 4, 5)))).get_fdata() == 7).all()


def test_labels_come_back():
    labels = np.random.default_rng(0).integers(0, 5, (7, 6, 5)).astype(np.uint8)
    volume = label_volume(labels, oblique(labels.shape))
    np.testing.assert_array_equal(np.asarray(decoded(volume).dataobj), labels)
    assert volume.high == labels.max()
    np.testing.assert_allclose(decoded(volume).affine, oblique(labels.shape).affine, atol=1e-5)


def test_blocks_are_averaged_where_they_lie():
    values = np.zeros((3, 2, 4), np.float32)
    values[:2, :, :2] = [[[8, 0], [0, 0]], [[0, 0], [0, 0]]]  # a block's mean is 1
    values[2] = 5  # the row is doubled
    volume = grey_volume(values, Grid(values.shape, np.diag([1.0, 2.0, 3.0, 1.0])), 2)
    image = decoded(volume)
    assert volume.shape == (2, 1, 2) and volume.coarsened == 2
    np.testing.assert_allclose(image.get_fdata()[:, 0], [[1, 0], [5, 5]], atol=0.02)
    # the middle of the first block lies half a voxel along each axis
    np.testing.assert_allclose(image.affine, [[2, 0, 0, 0.5], [0, 4, 0, 1], [0, 0, 6, 1.5], [0, 0, 0, 1]])


@pytest.mark.parametrize(("spacing", "step"), [(None, (1, 1, 1)), ((0.5, 2.0, 4.0), (0.5, 2.0, 4.0))])
def test_a_made_place_has_its_middle_at_zero(spacing, step):
    grid = made_grid((5, 4, 3), spacing)
    np.testing.assert_allclose(grid.affine @ [2, 1.5, 1, 1], [0, 0, 0, 1], atol=1e-12)
    assert "".join(nibabel.aff2axcodes(grid.affine)) == "PLS"
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(grid.affine), step)
