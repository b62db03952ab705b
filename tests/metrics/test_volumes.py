import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg_ext.metrics.volumes import as_array, bounding_box, head_box


def test_metatensors_become_plain_arrays():
    array = as_array(MetaTensor(torch.ones(2, 2, dtype=torch.bfloat16)))
    assert type(array) is np.ndarray
    assert array.dtype == np.float32


def test_bounding_box():
    mask = np.zeros((5, 6, 4), bool)
    mask[1:3, 4, 2] = True
    assert bounding_box(mask) == (slice(1, 3), slice(4, 5), slice(2, 3))
    assert bounding_box(mask, margin=2) == (slice(0, 5), slice(2, 6), slice(0, 4))
    assert bounding_box(np.zeros((5, 6, 4))) == (slice(0, 5), slice(0, 6), slice(0, 4))


@pytest.mark.parametrize("scale, offset", [(1, 0), (1e-3, 0), (4000, 0), (1, -1)])
def test_head_box_in_any_unit_and_with_noise(scale, offset):
    rng = np.random.default_rng(0)
    image = np.hypot(rng.normal(0, 0.03, (2, 61, 50, 6)), rng.normal(0, 0.03, (2, 61, 50, 6)))
    image[:, 16:40, 8:44, 1:5] += 1
    assert head_box(scale * image + offset) == (slice(16, 40), slice(8, 44), slice(1, 5))


def test_head_box_reaches_the_far_edge():
    image = np.ones((1, 61, 50, 6))
    image[:, :8] = 0
    assert head_box(image) == (slice(8, 61), slice(0, 50), slice(0, 6))


def test_head_box_of_a_flat_image_is_all_of_it():
    assert head_box(np.zeros((1, 9, 7, 3))) == (slice(0, 9), slice(0, 7), slice(0, 3))


def test_head_box_needs_channels():
    with pytest.raises(ValueError, match=r"allowed \(channels, rows, columns, slices\)"):
        head_box(np.zeros((9, 7, 3)))
