"""Lesions put into another brain: values by hand, truth, borders, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from medseg_ext.transforms import Implantation, implant_lesion
from medseg_ext.transforms.implant import donor_share
from medseg_ext.transforms.truth import ALL_KNOWN, BRAIN, HEAD

PLAIN = Implantation(whole=0.0, blend=1.5, match=(1.0, 1.0), contrast=(1.0, 1.0))
TISSUE = BRAIN | HEAD | ALL_KNOWN
EDEMA, ENHANCING = TISSUE | 2, TISSUE | 7


def target(size: int = 32, value: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Brain of one value; its first rows are air."""
    image, truth = torch.full((2, size, size, size), value), torch.full((size,) * 3, TISSUE, dtype=torch.uint8)
    image[:, :6], truth[:6] = 0.0, ALL_KNOWN
    return image, truth


def donor(size: int = 24, radius: float = 4.0, centre: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue of 3 with a lesion of 5, its middle enhancing."""
    middle = (size - 1) / 2 if centre is None else centre
    distance = torch.from_numpy(np.sqrt(((np.indices((size,) * 3) - middle) ** 2).sum(0)))
    truth = torch.full((size,) * 3, TISSUE, dtype=torch.uint8)
    truth[distance < radius], truth[distance < radius / 2] = EDEMA, ENHANCING
    image = torch.full((2, size, size, size), 3.0)
    image[:, distance < radius] = 5.0
    return image, truth


def put(corner: tuple[int, int, int], implantation: Implantation = PLAIN, seed: int = 0, **options):
    image, truth = target()
    return implant_lesion(image, truth, *donor(**options), corner, np.random.default_rng(seed), implantation)


def test_the_lesion_keeps_its_contrast_in_the_new_surroundings() -> None:
    image, truth = put((6, 4, 4))
    lesion = torch.zeros(32, 32, 32, dtype=torch.bool)
    lesion[6:30, 4:28, 4:28] = (donor()[1] & 2) != 0
    torch.testing.assert_close(image[:, lesion], torch.full((2, int(lesion.sum())), 3.0))  # 1 + (5 - 3)
    assert torch.equal((truth & 2) != 0, lesion)
    assert int(((truth & 4) != 0).sum()) == int(((donor()[1] & 4) != 0).sum())
    assert (truth & ALL_KNOWN == ALL_KNOWN).all()
    # surroundings were brought to 1, so that blending them with 1 changes nothing
    torch.testing.assert_close(image[:, ~lesion & (image[0] != 0)].unique(), torch.tensor([1.0]))


def test_partial_match_and_contrast() -> None:
    image, _ = put((6, 4, 4), replace(PLAIN, match=(0.5, 0.5), contrast=(2.0, 2.0)))
    # 3 + 2 * (5 - 3) = 7 in the donor, half of the difference of -2 taken away
    assert image.max() == 6


def test_air_and_what_is_far_stay() -> None:
    before, before_truth = target()
    image, truth = put((-3, 4, 4), radius=9.0)
    assert torch.equal(image[:, :6], before[:, :6])
    assert torch.equal(truth[:6], before_truth[:6])
    assert torch.equal(image[:, :, :, 31], before[:, :, :, 31])
    assert ((truth & 2) != 0).any()


def test_a_lesion_that_is_cut_off_ends_unknown() -> None:
    image, truth = put((7, 4, 4), centre=0.0, radius=10.0)  # its middle is the donor's corner
    unknown = (truth & ALL_KNOWN) == 0
    assert unknown.any()
    assert not (unknown & ((truth & 7) != 0)).any()
    inside = (truth & 2) != 0
    assert inside.any()
    # deep enough under the donor's border the lesion is there in full
    assert image[0, 11, 8, 8] == image.max()
    assert inside[11, 8, 8]
    assert not inside[7, 4, 4]


def test_small_lesions_are_put_in_whole() -> None:
    share = donor_share(donor(radius=1.0, centre=12.0)[1], PLAIN.blend, whole=False)
    assert share[12, 12, 12] == 1


def test_share_of_a_whole_donor() -> None:
    _, truth = donor()
    truth[:, :, 20:] = 0  # not known, no data
    share = donor_share(truth, 1.5, whole=True)
    assert share[12, 12, 12] == 1
    assert share[12, 12, 20:].max() < 0.05
    assert share[12, 12, 19] < 0.5
    assert share[0, 12, 12] < 0.5
    assert (share.diff(dim=2)[12, 12, 12:] <= 1e-6).all()


def test_own_lesion_under_the_donor_is_replaced() -> None:
    image, truth = target()
    truth[12:20, 10:20, 10:20] |= 2
    _, label = implant_lesion(image, truth, *donor(), (6, 4, 4), np.random.default_rng(0), replace(PLAIN, whole=1.0))
    inside = torch.zeros(32, 32, 32, dtype=torch.bool)
    inside[10:26, 8:24, 8:24] = True
    there = torch.zeros_like(inside)
    there[6:30, 4:28, 4:28] = (donor()[1] & 2) != 0
    assert torch.equal(((label & 2) != 0)[inside], there[inside])


def test_without_brain_nothing_happens() -> None:
    image, truth = target()
    for corner in ((-30, 4, 4), (40, 0, 0), (-20, 4, 4)):
        result, label = implant_lesion(image, truth, *donor(), corner, np.random.default_rng(0), PLAIN)
        assert result is image
        assert label is truth


def test_the_generator_decides() -> None:
    loose = Implantation(whole=0.5)
    for seed in range(3):
        first, again = put((6, 4, 4), loose, seed), put((6, 4, 4), loose, seed)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(put((6, 4, 4), loose, 0)[0], put((6, 4, 4), loose, 1)[0])
