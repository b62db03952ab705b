"""Samples of patches side by side: small enough to read, of one size whatever they show."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_ext.training import LesionPatchDataset, MosaicDataset, Piece, make_piece
from medseg_ext.training.mosaic import places
from medseg_ext.transforms import VolumeAugmentation

Size = tuple[int, int, int]


class Numbered:
    """Patches of one channel; patch i is i throughout, and all of it is tumour."""

    def __init__(self, sample: Size, shown: Size, group: int) -> None:
        self.augmentation = SimpleNamespace(size=sample)
        self.sizes = {} if shown == sample else {"cube": shown}
        self.shown = shown
        self.group = group

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.full((1, *self.shown), float(index))
        return {"image": image, "label": torch.ones(3, *self.shown), "present": torch.tensor([True])}


def test_by_hand() -> None:
    mosaics = MosaicDataset(Numbered((4, 3, 5), (2, 3, 2), group=4))
    assert len(mosaics) == 7
    sample = mosaics[3]
    assert set(sample) == {"image", "label"}
    upper, lower = [[12, 12, 13, 13, 0]] * 3, [[14, 14, 15, 15, 0]] * 3
    assert sample["image"].tolist() == [[upper, upper, lower, lower]]
    assert sample["label"].tolist() == [[[[1, 1, 1, 1, -1]] * 3] * 4] * 3  # nothing is known of what is left over


def test_left_over_rows_and_unused_patches_of_a_group() -> None:
    sample = MosaicDataset(Numbered((3, 4, 1), (2, 2, 1), group=5))[2]
    assert sample["image"][0, ..., 0].tolist() == [[10, 10, 11, 11], [10, 10, 11, 11], [0, 0, 0, 0]]
    assert sample["label"][0, ..., 0].tolist() == [[1] * 4, [1] * 4, [-1] * 4]


def test_a_patch_that_fills_the_sample() -> None:
    sample = MosaicDataset(Numbered((2, 3, 2), (2, 3, 2), group=4))[2]
    assert set(sample) == {"image", "label"}
    assert torch.equal(sample["image"], torch.full((1, 2, 3, 2), 8.0))
    assert torch.equal(sample["label"], torch.ones(3, 2, 3, 2))


def test_places() -> None:
    assert places((4, 5, 2), (2, 2, 2)) == [(0, 0, 0), (0, 2, 0), (2, 0, 0), (2, 2, 0)]
    assert places((4, 5, 2), (4, 5, 2)) == places((4, 5, 2), (3, 3, 2)) == [(0, 0, 0)]
    assert places((2, 2, 5), (2, 2, 2)) == [(0, 0, 0), (0, 0, 2)]
    slab = [(0, 0, 0), (0, 80, 0), (64, 0, 0), (64, 80, 0), (128, 0, 0), (128, 80, 0)]
    assert places((192, 160, 2), (64, 80, 2)) == slab


@settings(deadline=None)
@given(st.lists(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), min_size=3, max_size=3))
def test_places_lie_inside_and_apart(edges: list[tuple[int, int]]) -> None:
    sample, patch = zip(*edges, strict=True)
    covered = np.zeros(sample, int)
    found = places(sample, patch)
    for corner in found:
        here = covered[tuple(slice(start, start + n) for start, n in zip(corner, patch, strict=True))]
        assert here.shape == patch
        here += 1
    assert covered.max() == 1
    assert len(found) == np.prod([whole // part for whole, part in edges])


SIZE = (20, 18, 8)
CUBE = (10, 9, 8)


def piece(kind: str, seed: int, shape: Size) -> Piece:
    """Noise with a tumour in its middle."""
    image = np.random.default_rng((seed, len(kind))).normal(size=(2, *shape))
    label = np.zeros((3, *shape))
    middle = tuple(slice(edge // 2, edge // 2 + 3) for edge in shape)
    label[(slice(0, 2), *middle)] = 1
    return make_piece({"image": image, "label": label, "patient": f"{kind}{seed}", "complete": kind == "study"}, kind)


def patches(seed: int = 0, cube: Size = CUBE, group: int = 4) -> LesionPatchDataset:
    pieces = [piece(kind, i, shape) for kind, shape in (("study", (24, 22, 12)), ("cube", (12, 11, 9))) for i in (0, 1)]
    return LesionPatchDataset(pieces, VolumeAugmentation(size=SIZE), sizes={"cube": cube}, group=group, seed=seed)


def test_all_kinds_have_one_size_and_are_their_patches() -> None:
    source = patches()
    mosaics = MosaicDataset(source)
    assert len(mosaics) == 4
    of_cubes = 0
    for i in range(8):
        sample = mosaics[i]
        assert sample["image"].shape == (2, *SIZE)
        assert sample["label"].shape == (3, *SIZE)
        assert sample["image"].dtype == sample["label"].dtype == torch.float32
        is_mosaic = source[4 * i]["image"].shape[1:] != SIZE
        of_cubes += is_mosaic
        corners = [(row, column) for row in (0, 10) for column in (0, 9)] if is_mosaic else [(0, 0)]
        rows, columns, _ = CUBE if is_mosaic else SIZE
        for k, (row, column) in enumerate(corners):
            for key in ("image", "label"):
                part = sample[key][:, row : row + rows, column : column + columns]
                assert torch.equal(part, source[4 * i + k][key])
    assert 0 < of_cubes < 8


def test_a_number_is_a_sample_in_any_order() -> None:
    first, again, other = (MosaicDataset(patches(seed)) for seed in (0, 0, 1))
    wanted = [first[i] for i in range(6)]
    for i in reversed(range(6)):
        assert all(torch.equal(again[i][key], wanted[i][key]) for key in ("image", "label"))
        assert not torch.equal(other[i]["image"], wanted[i]["image"])


@pytest.mark.parametrize("cube", [(21, 9, 8), (10, 19, 8), (10, 9, 9)])
def test_refused_sizes(cube: Size) -> None:
    with pytest.raises(
        ValueError, match=r"sizes: found cube of \(.*\), allowed no more than a sample of \(20, 18, 8\)"
    ):
        MosaicDataset(patches(cube=cube))


def test_refused_groups() -> None:
    with pytest.raises(ValueError, match="group: found 3, allowed 4 or more, so many of cube fit"):
        MosaicDataset(patches(group=3))
    with pytest.raises(ValueError, match="group: found 4, allowed 8 or more"):
        MosaicDataset(patches(cube=(10, 9, 4)))
    assert len(MosaicDataset(patches(cube=(11, 9, 8), group=2))) == 4
