"""Augmentation: where the pixels go, what stays aligned, and that the seed decides everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg_ext.transforms import SliceAugmentation, augment_slice

NOTHING = SliceAugmentation(
    size=(5, 7),
    rotate=0,
    scale=1,
    stretch=1,
    shear=0,
    shift=0,
    flip=0,
    flip_slices=0,
    gamma=1,
    contrast=1,
    brightness=0,
    bias=0,
    noise=0,
    blur=0,
    drop=0,
)
AIR = torch.tensor([-2.0, -1.0, -3.0])


def slices(height: int = 9, width: int = 11, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three neighbours of three channels, each above its air, and a label."""
    generator = torch.Generator().manual_seed(seed)
    image = AIR.view(1, 3, 1, 1) + 0.1 + 3 * torch.rand(3, 3, height, width, generator=generator)
    return image, (torch.rand(1, height, width, generator=generator) > 0.6).float()


def draw(augmentation: SliceAugmentation, seed: int = 0, centre: tuple[float, float] = (4.0, 5.0), **options):
    image, label = slices(**options)
    return augment_slice(image, label, centre, AIR, np.random.default_rng(seed), augmentation)


def test_nothing_gives_the_centre_crop() -> None:
    image, label = slices()
    drawn, drawn_label = draw(NOTHING)
    torch.testing.assert_close(drawn, image[:, :, 2:7, 2:9].flatten(0, 1), atol=1e-5, rtol=0)
    assert torch.equal(drawn_label, label[:, 2:7, 2:9])


@pytest.mark.parametrize(("height", "width", "size"), [(8, 12, (4, 6)), (9, 12, (5, 8)), (8, 8, (8, 8))])
def test_the_middle_of_even_sizes(height: int, width: int, size: tuple[int, int]) -> None:
    image, label = slices(height, width)
    centre = ((height - 1) / 2, (width - 1) / 2)
    drawn, drawn_label = draw(replace(NOTHING, size=size), centre=centre, height=height, width=width)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    torch.testing.assert_close(
        drawn, image[:, :, top : top + size[0], left : left + size[1]].flatten(0, 1), atol=1e-5, rtol=0
    )
    assert torch.equal(drawn_label, label[:, top : top + size[0], left : left + size[1]])


def test_the_crop_lies_about_the_head_and_beyond_the_slice_is_air() -> None:
    image, label = slices()
    drawn, drawn_label = draw(NOTHING, centre=(1.0, 5.0))  # rows -1 to 3
    drawn = drawn.view(3, 3, 5, 7)
    torch.testing.assert_close(drawn[:, :, 1:], image[:, :, :4, 2:9], atol=1e-5, rtol=0)
    assert torch.equal(drawn[:, :, 0], AIR.view(1, 3, 1).expand(3, 3, 7))
    assert torch.equal(drawn_label[:, 1:], label[:, :4, 2:9])
    assert drawn_label[:, 0].sum() == 0


def test_mirroring() -> None:
    image, label = slices()
    drawn, drawn_label = draw(replace(NOTHING, flip=1.0))
    torch.testing.assert_close(drawn, image[:, :, 2:7, 2:9].flip(-1).flatten(0, 1), atol=1e-5, rtol=0)
    assert torch.equal(drawn_label, label[:, 2:7, 2:9].flip(-1))


def test_exchanging_the_neighbours_keeps_the_middle_slice() -> None:
    image, label = slices()
    drawn, drawn_label = draw(replace(NOTHING, flip_slices=1.0))
    torch.testing.assert_close(drawn.view(3, 3, 5, 7), image[[2, 1, 0], :, 2:7, 2:9], atol=1e-5, rtol=0)
    assert torch.equal(drawn_label, label[:, 2:7, 2:9])


def test_a_dropped_sequence_is_a_copy_of_flair() -> None:
    image, label = slices()
    dropped = set()
    for seed in range(12):
        drawn = draw(replace(NOTHING, drop=1.0), seed)[0].view(3, 3, 5, 7)
        flair = image[:, 1, 2:7, 2:9]
        torch.testing.assert_close(drawn[:, 1], flair, atol=1e-5, rtol=0)
        copies = [c for c in (0, 2) if torch.allclose(drawn[:, c], flair, atol=1e-5)]
        assert len(copies) == 1
        dropped.update(copies)
    assert dropped == {0, 2}
    assert torch.equal(image, slices()[0])  # the patient in memory keeps its sequence
    assert torch.equal(label, slices()[1])


def test_image_and_label_move_together() -> None:
    rows, columns = np.mgrid[:40, :44]
    blob = torch.from_numpy((np.hypot(rows - 15, columns - 26) < 7).astype(np.float32))
    moving = replace(
        NOTHING, size=(32, 36), rotate=40, scale=1.4, stretch=1.2, shear=0.2, shift=6, flip=0.5, flip_slices=0.5
    )
    for seed in range(20):
        image, label = augment_slice(
            blob.expand(3, 3, 40, 44), blob[None], (19.5, 21.5), torch.zeros(3), np.random.default_rng(seed), moving
        )
        for channel in image:
            assert torch.equal((channel > 0.5).float(), label[0])
        assert label.sum() > 20


def test_the_seed_decides_everything() -> None:
    augmentation = replace(SliceAugmentation(), size=(8, 8))
    for seed in range(10):
        first, again = draw(augmentation, seed), draw(augmentation, seed)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(draw(augmentation, 0)[0], draw(augmentation, 1)[0])


def test_what_any_draw_keeps() -> None:
    """Finite values, none below air; a label of 0 and 1 that keeps most of a lesion in the middle."""
    rows, columns = np.mgrid[:64, :64]
    lesion = torch.from_numpy((np.hypot(rows - 31.5, columns - 31.5) < 10).astype(np.float32))
    head = torch.from_numpy((np.hypot(rows - 31.5, columns - 31.5) < 28).astype(np.float32))
    image = AIR.view(1, 3, 1, 1) + 3 * head + lesion
    augmentation = replace(SliceAugmentation(), size=(48, 48), shift=4.0)
    shares = []
    for seed in range(60):
        drawn, label = augment_slice(
            image.expand(3, 3, 64, 64), lesion[None], (31.5, 31.5), AIR, np.random.default_rng(seed), augmentation
        )
        assert drawn.shape == (9, 48, 48)
        assert label.shape == (1, 48, 48)
        assert drawn.dtype == label.dtype == torch.float32
        assert torch.isfinite(drawn).all()
        assert (drawn.view(3, 3, 48, 48) >= AIR.view(1, 3, 1, 1)).all()
        assert set(label.unique().tolist()) == {0.0, 1.0}
        shares.append(float(label.sum() / lesion.sum()))
    assert min(shares) > 0.6
    assert max(shares) < 1.6
    assert 0.9 < np.mean(shares) < 1.1
