"""Slabs: slices that become channels, patches side by side in them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg_ext.training import LesionPatchDataset, MosaicDataset, SlabDataset, make_piece
from medseg_ext.training.slabs import as_channels
from medseg_ext.transforms import VolumeAugmentation

Size = tuple[int, int, int]


class Numbered:
    """Patches of two slices; slice s of channel c of patch i is i + 100 s + 1000 c throughout, and all is tumour."""

    def __init__(self, slab: Size, shown: Size, group: int, channels: int = 1) -> None:
        self.augmentation = SimpleNamespace(size=slab)
        self.sizes = {} if shown == slab else {"cube": shown}
        self.shown = shown
        self.group = group
        self.channels = channels

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.full((self.channels, *self.shown), float(index))
        image += torch.tensor([0.0, 100.0]) + 1000 * torch.arange(self.channels)[:, None, None, None]
        return {"image": image, "label": torch.ones(3, *self.shown), "present": torch.ones(self.channels).bool()}


def test_a_mosaic_by_hand() -> None:
    slabs = SlabDataset(Numbered((4, 5, 2), (2, 2, 2), group=4))
    assert len(slabs) == 7
    sample = slabs[3]
    assert set(sample) == {"image", "label"}
    first = [[12, 12, 13, 13, 0], [12, 12, 13, 13, 0], [14, 14, 15, 15, 0], [14, 14, 15, 15, 0]]
    second = [[112, 112, 113, 113, 0], [112, 112, 113, 113, 0], [114, 114, 115, 115, 0], [114, 114, 115, 115, 0]]
    assert sample["image"].tolist() == [first, second]
    assert sample["label"].tolist() == [[[1, 1, 1, 1, -1]] * 4] * 6  # nothing is known of what is left over


def test_a_patch_that_fills_the_slab() -> None:
    sample = SlabDataset(Numbered((1, 2, 2), (1, 2, 2), group=4, channels=2))[2]
    assert sample["image"].tolist() == [[[8, 8]], [[108, 108]], [[1008, 1008]], [[1108, 1108]]]
    assert torch.equal(sample["label"], torch.ones(6, 1, 2))


def test_slices_become_channels() -> None:
    volume = torch.tensor([[[[1, 2, 3], [4, 5, 6]]], [[[7, 8, 9], [10, 11, 12]]]])  # (2, 1, 2, 3)
    channels = as_channels(volume)
    assert channels.tolist() == [[[1, 4]], [[2, 5]], [[3, 6]], [[7, 10]], [[8, 11]], [[9, 12]]]
    assert channels.is_contiguous()


def patches(seed: int = 0, cube: Size = (10, 9, 2), group: int = 4) -> LesionPatchDataset:
    pieces = []
    for kind, shape in (("study", (24, 22, 12)), ("cube", (12, 11, 8)), ("slice", (24, 22, 1))):
        image = np.random.default_rng((seed, len(kind))).normal(size=(2, *shape))
        label = np.zeros((3, *shape))
        label[:2, 5:8, 5:8] = 1
        pieces.append(make_piece({"image": image, "label": label, "patient": kind}, kind))
    return LesionPatchDataset(
        pieces, VolumeAugmentation(size=(20, 18, 2)), sizes={"cube": cube}, group=group, seed=seed
    )


def test_slabs_are_mosaics_with_their_slices_as_channels() -> None:
    slabs, mosaics = SlabDataset(patches()), MosaicDataset(patches())
    for i in range(8):
        slab, mosaic = slabs[i], mosaics[i]
        assert slab["image"].shape == (4, 20, 18)
        assert slab["label"].shape == (6, 20, 18)
        assert slab["image"].dtype == slab["label"].dtype == torch.float32
        for name, channels in slab.items():
            for c, s in np.ndindex(len(mosaic[name]), 2):
                assert torch.equal(channels[2 * c + s], mosaic[name][c, ..., s])


def test_a_number_is_a_sample_in_any_order() -> None:
    first, again, other = (SlabDataset(patches(seed)) for seed in (0, 0, 1))
    wanted = [first[i] for i in range(6)]
    for i in reversed(range(6)):
        assert all(torch.equal(again[i][key], wanted[i][key]) for key in ("image", "label"))
        assert not torch.equal(other[i]["image"], wanted[i]["image"])


def test_refused_sizes_and_groups() -> None:
    with pytest.raises(ValueError, match=r"sizes: found cube of \(10, 9, 3\), allowed no more than a sample"):
        SlabDataset(patches(cube=(10, 9, 3)))
    with pytest.raises(ValueError, match="group: found 3, allowed 4 or more, so many of cube fit"):
        SlabDataset(patches(group=3))
