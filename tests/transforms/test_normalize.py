"""Normalisation: the same head gives the same numbers whatever its unit, its storage and the air around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg_ext.layouts.air import without_fill
from medseg_ext.transforms import NormalizeHead, NormalizeHeadd, head_box, head_threshold
from medseg_ext.transforms.normalize import sample


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray]:
    """Channel (1, 48, 40, 6) of tissue 60..140 in zeroed air, and where the tissue is."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :40]
    inside = np.repeat((((rows - 24) / 20) ** 2 + ((columns - 20) / 15) ** 2 < 1)[..., None], 6, axis=2)
    tissue = np.where(rng.random(inside.shape) < 0.5, 80.0, 120.0) + rng.uniform(-20, 20, inside.shape)
    return (tissue * inside)[None], inside


def test_by_hand() -> None:
    channel = np.array([0, 0, 0, 0, 10, 20, 30, 40, 50], np.float32)
    # mean 16.7; brighter than it 20 to 50, mean 35; the head is above 0.3 * 35 = 10.5: 20, 30, 40, 50
    assert head_threshold(channel) == pytest.approx(10.5)
    # its median is 35, its 10th and 90th percentiles are 23 and 47
    air = (10.5 - 35) / 24
    expected = [air, air, air, air, air, -15 / 24, -5 / 24, 5 / 24, 15 / 24]
    np.testing.assert_allclose(NormalizeHead()(channel[None])[0], expected, rtol=1e-6)


def test_clip_by_hand() -> None:
    channel = np.array([0, 0, 0, 0, 10, 20, 30, 40, 50], np.float32)
    result = NormalizeHead(clip=0.5)(channel[None])[0]
    np.testing.assert_allclose(result, [-0.5, -0.5, -0.5, -0.5, -0.5, -0.5, -5 / 24, 5 / 24, 0.5], rtol=1e-6)


@pytest.mark.parametrize("factor", [1000.0, 0.001, 1e-7, 1e7])
def test_any_unit(head: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    image = head[0].astype(np.float32)
    np.testing.assert_allclose(NormalizeHead()(image * np.float32(factor)), NormalizeHead()(image), atol=1e-4)


def test_8_and_16_bits(head: tuple[np.ndarray, np.ndarray]) -> None:
    image = head[0] / head[0].max()
    bits8, bits16 = np.rint(image * 255).astype(np.uint8), np.rint(image * 65535).astype(np.uint16)
    results = [NormalizeHead()(stored) for stored in (bits8, bits16, image.astype(np.float32))]
    assert [result.dtype for result in results] == [np.float32] * 3
    step = 1 / (255 * 0.3)  # one of 255 in units of the spread
    np.testing.assert_allclose(results[0], results[2], atol=step)
    np.testing.assert_allclose(results[1], results[2], atol=step / 200)


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_noisy_air_changes_next_to_nothing(head: tuple[np.ndarray, np.ndarray], sigma: float) -> None:
    zeroed, inside = head
    rng = np.random.default_rng(1)
    rician = np.hypot(sigma * rng.standard_normal(inside.shape), sigma * rng.standard_normal(inside.shape))
    noisy = np.where(inside, zeroed[0], rician)[None]
    results = NormalizeHead()(noisy), NormalizeHead()(zeroed)
    np.testing.assert_allclose(results[0][0][inside], results[1][0][inside], atol=0.02)
    assert np.ptp(results[0][0][~inside]) == 0  # all of the air is one value
    # the threshold rises with the noise, so that one value is not exactly the other
    assert abs(results[0].min() - results[1].min()) < 0.2


def test_channels_do_not_meet(head: tuple[np.ndarray, np.ndarray]) -> None:
    image = head[0].astype(np.float32)
    both = NormalizeHead()(np.concatenate([image, 50 - 0.2 * image]))
    np.testing.assert_array_equal(both[:1], NormalizeHead()(image))


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    np.testing.assert_array_equal(NormalizeHead()(np.full((2, 4, 4, 2), value, np.float32)), 0)


def test_a_head_of_one_intensity() -> None:
    channel = np.zeros((1, 6, 6), np.float32)
    channel[0, 2:4, 2:4] = 9
    result = NormalizeHead()(channel)
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(result[0, 2:4, 2:4], 0)
    assert (result[0, 0] == -4).all()  # air, as far below as the clip allows


def test_what_comes_in_comes_out(head: tuple[np.ndarray, np.ndarray]) -> None:
    image = MetaTensor(torch.from_numpy(head[0].astype(np.float32)), affine=2 * torch.eye(4))
    before = image.clone()
    result = NormalizeHeadd("image")({"image": image, "other": 1})
    assert isinstance(result["image"], MetaTensor)
    assert result["other"] == 1
    torch.testing.assert_close(result["image"].affine, image.affine)
    assert torch.equal(image, before)
    np.testing.assert_array_equal(result["image"].numpy(), NormalizeHead()(head[0].astype(np.float32)))


def test_head_box_by_hand() -> None:
    image = torch.full((2, 8, 9, 3), -1.5)
    image[1] = -2.0
    image[0, 2:5, 3:8] = 0.5
    image[1, 4:6, 3:4, 0] = 0.1  # rows 4 and 5 stand out in the other channel
    assert head_box(image, axes=(0, 1)) == (slice(2, 6), slice(3, 8))
    assert head_box(image, axes=(2,)) == (slice(0, 3),)


def test_head_box_ignores_single_noisy_voxels() -> None:
    image = torch.zeros(1, 40, 40, 20)
    image[0, 10:30, 12:28, 4:16] = 1
    image[0, 0, 5, 3] = image[0, 39, 39, 19] = 1
    assert head_box(image, axes=(0, 1, 2)) == (slice(10, 30), slice(12, 28), slice(4, 16))


def test_head_box_of_nothing_is_everything() -> None:
    assert head_box(torch.zeros(3, 5, 6, 2), axes=(0, 1)) == (slice(0, 5), slice(0, 6))


def test_a_sample_meets_every_slice() -> None:
    values = np.broadcast_to(np.arange(4.0), (10, 5, 4))  # a value a slice
    assert sample(values, most=1000).size == 200
    # 200 // 100 = 2 and 4 share a factor, so every third is taken
    taken = sample(values, most=100)
    assert taken.size == 67
    assert np.bincount(taken.astype(int)).tolist() == [17, 16, 17, 17]


FILLS = [-1024.0, -32768.0, -3e38]


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_a_fill_far_below_the_air_counts_as_air(head: tuple[np.ndarray, np.ndarray], fill: float, sigma: float) -> None:
    """What a program wrote where nothing was measured changes nothing."""
    rng = np.random.default_rng(1)
    image = (head[0] + np.abs(rng.normal(0, sigma, head[0].shape)) * (head[0] == 0)).astype(np.float32)
    image[:, :3] = image[:, -4:] = 0
    filled = image.copy()
    filled[:, :3] = filled[:, -4:] = fill
    filled[:, 3, ::9, ::3] = fill / 3  # left by interpolation
    expected = NormalizeHead()(np.where(filled < 0, 0, image))
    np.testing.assert_array_equal(NormalizeHead()(filled), expected)


def test_without_fill_by_hand() -> None:
    ordinary = np.array([0, 0, 0, 0, 10, 20, 30, 40, 50], np.float32)
    assert without_fill(ordinary) is ordinary
    filled = np.concatenate([[-1000, -1000], ordinary]).astype(np.int16)
    assert without_fill(filled).tolist() == [0, 0, 0, 0, 0, 0, 10, 20, 30, 40, 50]
    assert without_fill(filled).dtype == np.int16
    both = np.stack([filled, np.abs(filled)])
    assert without_fill(both, 0).tolist() == [np.maximum(filled, 0).tolist(), np.abs(filled).tolist()]
    assert without_fill(both[1:], 0) is not both
    # standardised, in air of one negative value; shifted; all of the air is the fill: nothing was there before it
    for stored in (ordinary - 25, ordinary - 5, np.where(ordinary < 10, -1000, ordinary), -ordinary):
        assert without_fill(stored) is stored


@pytest.mark.parametrize("change", ["standardised", "from -1 to 1", "shifted", "inverted", "noise about 0"])
def test_negative_values_that_are_no_fill(head: tuple[np.ndarray, np.ndarray], change: str) -> None:
    image = head[0][0]
    changed = {
        "standardised": (image - image.mean()) / image.std(),
        "from -1 to 1": 2 * image / image.max() - 1,
        "shifted": image - 30,
        "inverted": -image,
        "noise about 0": image + np.random.default_rng(0).normal(0, 4, image.shape),
    }[change]
    assert without_fill(changed) is changed
