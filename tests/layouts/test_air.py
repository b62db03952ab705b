"""The value of air, and whether a brain is all there is."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_ext.layouts.air import air_value, content_box, is_skull_stripped


def ellipse(radii: tuple[float, float], shape: tuple[int, int, int] = (240, 240, 12)) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = ((rows - 120) / radii[0]) ** 2 + ((columns - 120) / radii[1]) ** 2 < 1
    return np.repeat(inside[..., None], shape[2], axis=2)


def test_the_commonest_value_is_air() -> None:
    brain = ellipse((87, 69))
    image = np.where(brain, 500.0, 0.0) + np.random.default_rng(0).normal(0, 20, brain.shape) * brain
    assert air_value(image) == 0
    assert air_value((image - 300) / 150) == -2  # z-scored, air and all


def test_noisy_air_has_no_commonest_value() -> None:
    noise = np.abs(np.random.default_rng(0).normal(0, 10, (60, 60, 60)))
    noise[20:40, 20:40, 20:40] += 500
    assert 0 < air_value(noise) < 1


def test_a_bright_constant_is_no_air() -> None:
    image = np.random.default_rng(0).normal(100, 5, (40, 40, 40))
    image[:20] = 400
    assert air_value(image) < 100


@pytest.mark.parametrize(("radii", "stripped"), [((87, 69), True), ((105, 82), False)])
@pytest.mark.parametrize("step", [1, 2])
def test_a_brain_fills_less_than_a_head(radii: tuple[int, int], stripped: bool, step: int) -> None:
    image = (ellipse(radii) * 700.0)[::step, ::step]
    assert is_skull_stripped(image, (step, step, 1.0), 0.0) is stripped


def test_noise_around_it_is_no_mask() -> None:
    image = ellipse((87, 69)) * 700.0
    noisy = np.hypot(image, np.random.default_rng(0).normal(0, 25, image.shape))
    assert not is_skull_stripped(noisy, (1, 1, 1), air_value(noisy))


def test_ringing_of_a_resampled_mask_does_not_matter() -> None:
    image = ellipse((87, 69)) * 700.0
    rng = np.random.default_rng(0)
    assert is_skull_stripped(image + rng.uniform(-1, 1, image.shape), (1, 1, 1), 0.0)


def test_the_box_of_a_head_by_hand() -> None:
    image = np.full((8, 9, 10), -3.0)
    image[2:5, 4, 1:9] = 90
    assert content_box(image, -3.0) == (slice(2, 5), slice(4, 5), slice(1, 9))
    assert content_box(image, -3.0, margin=2) == (slice(0, 7), slice(2, 7), slice(0, 10))
    assert content_box(image * 0 - 3, -3.0) == (slice(0, 8), slice(0, 9), slice(0, 10))
