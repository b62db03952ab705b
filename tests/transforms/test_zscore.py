"""One scale for heads: by hand on a stripped block, and nearly the same with and without a skull."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg_ext.transforms import ZScoreHead, ZScoreHeadd
from medseg_ext.transforms.zscore import find_head, inner_head


def block() -> np.ndarray:
    """Values 1, 3, 1, 3, ... in the middle of zeros: mean 2, standard deviation 1. The second channel is missing."""
    image = np.zeros((2, 6, 6, 6), np.float32)
    image[0, 1:5, 1:5, 1:5] = np.tile([1.0, 3.0], 32).reshape(4, 4, 4)
    return image


def head(noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A brain of 100 +- 20 within dark bone and bright scalp, voxels of 3 mm; and where the brain is."""
    rng = np.random.default_rng(seed)
    grid = np.indices((72, 64, 64)) - np.array([35.5, 31.5, 31.5]).reshape(3, 1, 1, 1)
    radius = np.sqrt((grid**2 / np.array([32.0, 28.0, 28.0]).reshape(3, 1, 1, 1) ** 2).sum(0))
    brain = radius < 0.85
    image = np.where(brain, 100 + 20 * rng.standard_normal(radius.shape), 30 * (radius < 1))
    image[(radius >= 0.93) & (radius < 1)] = 300
    image += np.abs(noise * rng.standard_normal(radius.shape))
    return image[None].astype(np.float32), brain


def test_stripped_by_hand() -> None:
    result = ZScoreHead(stripped=True)(block())
    assert result.dtype == np.float32
    expected = np.zeros((6, 6, 6))
    expected[1:5, 1:5, 1:5] = np.tile([-1.0, 1.0], 32).reshape(4, 4, 4)
    np.testing.assert_allclose(result[0], expected, atol=1e-6)
    assert (result[1] == 0).all()


@pytest.mark.parametrize(("gain", "offset"), [(1e-3, 0.0), (700.0, 0.0), (2.0, -900.0), (0.5, 30.0)])
@pytest.mark.parametrize("stripped", [True, False])
def test_units_do_not_matter(gain: float, offset: float, stripped: bool) -> None:
    image, brain = head()
    if stripped:
        image = image * brain
    normalize = ZScoreHead()
    spacing = (3.0, 3.0, 3.0)
    assert normalize.scale_of(image, spacing).stripped == stripped
    moved = normalize(gain * image + np.float32(offset), spacing)
    np.testing.assert_allclose(moved, normalize(image, spacing), atol=2e-3)


@pytest.mark.parametrize("noise", [0.0, 8.0])
def test_brain_is_alike_with_and_without_its_skull(noise: float) -> None:
    image, brain = head(noise)
    spacing = (3.0, 3.0, 3.0)
    with_skull, without = ZScoreHead()(image, spacing), ZScoreHead()(image * brain, spacing)
    scale = ZScoreHead().scale_of(image, spacing)
    assert not scale.stripped
    assert ZScoreHead().scale_of(image * brain, spacing).stripped
    assert abs(with_skull[0][brain].mean() - without[0][brain].mean()) < 0.05
    # the spread of what lies deep is widened for anatomy that this head does not have
    assert 1.0 < with_skull[0][brain].std() / without[0][brain].std() < 1.2
    assert (with_skull[0][~scale.head] == 0).all()
    assert scale.head[brain].mean() > 0.99
    assert scale.head.sum() < 1.1 * (image[0] > 20 + 3 * noise).sum()


def test_clipped() -> None:
    image = block()
    image[0, 2, 2, 2] = 1e6
    assert np.abs(ZScoreHead(stripped=True, clip=3.0)(image)).max() == 3


def test_find_head_and_what_lies_deep_in_it() -> None:
    assert find_head(block(), stripped=True).sum() == 64
    cube = np.zeros((40, 40, 40), bool)
    cube[4:36, 4:36, 4:36] = True
    inner = inner_head(cube, (1, 1, 1), 8.0)
    assert inner[20, 20, 20]
    assert not inner[6, 20, 20]
    assert inner_head(np.ones((4, 4, 4), bool), (1, 1, 1)).all()


def test_dictionary() -> None:
    image, _ = head()
    told = MetaTensor(torch.from_numpy(image), meta={"skull_stripped": True})
    data = {"image": told, "spacing": (3.0, 3.0, 3.0), "other": 1}
    result = ZScoreHeadd("image")(data)
    assert isinstance(result["image"], MetaTensor)
    assert result["other"] == 1
    values = result["image"].numpy()[0][image[0] != 0]
    assert abs(values.mean()) < 1e-3  # all of the head counts, as the loader said that it is a brain
    own = ZScoreHeadd("image", stripped=False)(data)["image"].numpy()
    np.testing.assert_array_equal(own, ZScoreHead(stripped=False)(image, (3.0, 3.0, 3.0)))


def test_a_fill_far_below_the_air_counts_as_air() -> None:
    image, _ = head()
    clean = image.copy()
    clean[:, :2] = 0
    filled = clean.copy()
    filled[:, :2] = -32768
    np.testing.assert_array_equal(ZScoreHead()(filled, (3, 3, 3)), ZScoreHead()(clean, (3, 3, 3)))
