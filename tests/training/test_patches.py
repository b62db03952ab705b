"""Patches: a number decides a sample, what is not known is marked, kinds and sizes are drawn as asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch.utils.data import DataLoader

from medseg_ext.errors import InputError
from medseg_ext.layouts import find_studies
from medseg_ext.layouts.study import BRATS_RULES
from medseg_ext.training import CountingSampler, LesionPatchDataset, Piece, make_piece, pack_studies
from medseg_ext.transforms import Implantation, LoadSequencesd, VolumeAugmentation, ZScoreHeadd
from medseg_ext.workflow.patients import as_items

SIZE = (20, 18, 16)
AUGMENTATION = VolumeAugmentation(size=SIZE)
STILL = VolumeAugmentation(
    size=SIZE, still=1, flip=(0, 0, 0), thick=0, blur=0, gamma=1, contrast=1, brightness=0, bias=0, noise=0, drop=0,
    strip=0, shave=0,
)  # fmt: skip


def piece(
    kind: str,
    seed: int = 0,
    shape: tuple[int, int, int] = (30, 28, 24),
    missing: tuple[int, ...] = (),
    tumour: bool = True,
    **options: Any,
) -> Piece:
    """A brain of noise about 0 with a bright tumour, enhancing in its middle; a head of kind "head" has scalp."""
    rng = np.random.default_rng((seed, len(kind)))
    grid = np.indices(shape)
    centre = (np.array(shape) - 1) / 2
    radius = np.sqrt((((grid.T - centre) / (centre + 0.5)) ** 2).sum(-1).T)
    head = radius < 1
    brain = radius < 0.8 if kind == "head" else head
    distance = np.sqrt(((grid.T - centre * (1, 0.8, 1)) ** 2).sum(-1).T)
    label = np.stack([distance < 3, distance < 5, distance < 2]) * tumour * brain
    image = rng.normal(size=(4, *shape)) * 0.3 + 3 * label[1]
    image = np.where(brain, image, 5) * head
    image[list(missing)] = 0
    item = {"image": image, "label": label, "brain": brain, "patient": f"{kind}{seed}", "present": image.any((1, 2, 3))}
    return make_piece({**item, **options}, kind)


def pieces() -> list[Piece]:
    return [
        piece("study", 0),
        piece("study", 1, missing=(2,)),
        piece("cube", 0, (14, 13, 10), complete=False),
        piece("cube", 1, (14, 13, 10), complete=False),
        piece("slice", 0, (30, 28, 1), complete=False),
        piece("head", 0, (34, 32, 26), missing=(2,), complete=False, skull_scale=[(0.5, 1.0)] * 3),
        piece("healthy", 0, tumour=False),
    ]


def dataset(**options: Any) -> LesionPatchDataset:
    return LesionPatchDataset(pieces(), **({"augmentation": AUGMENTATION} | options))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("image", "label", "present"))


def test_samples_are_what_they_say() -> None:
    data = dataset(implants={"healthy": 1.0, "study": 0.5})
    for i in range(40):
        sample = data[i]
        assert sample["image"].shape == (4, *SIZE)
        assert sample["label"].shape == (3, *SIZE)
        assert sample["image"].dtype == sample["label"].dtype == torch.float32
        assert sample["present"].dtype == torch.bool
        assert torch.isfinite(sample["image"]).all()
        assert set(sample["label"].unique().tolist()) <= {-1.0, 0.0, 1.0}
        assert sample["present"].any()
        assert (sample["image"][~sample["present"]] == 0).all()
        core, whole, enhancing = sample["label"]
        assert (whole[core == 1] == 1).all()
        assert (core[enhancing == 1] == 1).all()


def test_a_number_is_a_sample_in_any_order() -> None:
    first, again = dataset(), dataset()
    wanted = [first[i] for i in range(10)]
    assert all(same(again[i], wanted[i]) for i in reversed(range(10)))
    other = dataset(seed=1)
    assert not any(same(other[i], wanted[i]) for i in range(10))


def test_worker_processes_and_epochs_change_nothing() -> None:
    data = dataset()
    sampler = CountingSampler(4)
    sampler.set_epoch(1)
    (batch,) = DataLoader(data, batch_size=4, sampler=sampler, num_workers=1)
    for place, number in enumerate(range(4, 8)):
        assert same({key: values[place] for key, values in batch.items()}, data[number])


def test_a_still_patch_is_cut_as_it_is() -> None:
    source = piece("study", 3, (30, 28, 24))
    data = LesionPatchDataset([source], STILL, lesion_share=1.0)
    stored = torch.from_numpy(source.image.astype(np.float32))
    seen = 0
    for i in range(5):
        sample = data[i]
        windows = stored.unfold(1, SIZE[0], 1).unfold(2, SIZE[1], 1).unfold(3, SIZE[2], 1)
        hits = (windows == sample["image"][:, None, None, None]).flatten(4).all(-1).all(0)
        assert hits.sum() == 1
        seen += int((sample["label"][1] == 1).any())
    assert seen == 5


def test_beyond_a_piece() -> None:
    cube, study = piece("cube", 0, (14, 13, 10), complete=False), piece("study", 0, (14, 13, 10))
    for source, outside in ((cube, -1), (study, 0)):
        sample = LesionPatchDataset([source], STILL)[0]
        known = (
            int((sample["label"][1] != outside).sum()) if outside == -1 else int((sample["image"] != 0).any(0).sum())
        )
        assert known == (14 * 13 * 10 if outside == -1 else int((source.truth & 128 != 0).sum()))
        assert (sample["image"] != 0).any(0).sum() == (source.truth & 128 != 0).sum()
        if outside == 0:
            assert (sample["label"] != -1).all()


def test_small_pieces_lie_anywhere_in_full() -> None:
    data = LesionPatchDataset([piece("cube", 0, (14, 13, 10), complete=False)], STILL)
    corners = {tuple((data[i]["label"][1] != -1).nonzero().min(0).values.tolist()) for i in range(12)}
    assert len(corners) > 4
    assert all((data[i]["label"][1] != -1).sum() == 14 * 13 * 10 for i in range(12))


def test_slices_become_slabs() -> None:
    data = LesionPatchDataset([piece("slice", 0, (30, 28, 1), complete=False)], STILL, slab=(3, 5))
    depths = set()
    for i in range(8):
        shown = (data[i]["label"][1] != -1).any(0).any(0)
        depths.add(int(shown.sum()))
        image = data[i]["image"][..., shown]
        assert (image == image[..., :1]).all()
    assert depths == {3, 4, 5}


def test_shares_sizes_and_groups() -> None:
    shares = {"study": 1.0, "cube": 3.0, "slice": 0.0}
    data = dataset(shares=shares, sizes={"cube": [14, 14, 10]}, group=2)
    shapes = [tuple(data[i]["image"].shape[1:]) for i in range(80)]
    assert set(shapes) == {SIZE, (14, 14, 10)}
    assert 40 < Counter(shapes)[14, 14, 10] < 76
    assert all(shapes[i] == shapes[i + 1] for i in range(0, 80, 2))
    assert [batch["image"].shape[0] for batch in DataLoader(data, batch_size=2, sampler=CountingSampler(8))] == [2] * 4


def test_refused_shares() -> None:
    with pytest.raises(InputError, match="no pieces of kind tube"):
        dataset(shares={"tube": 1.0, "cube": 1.0})
    with pytest.raises(InputError, match="no share above 0"):
        dataset(shares={"cube": 0.0})


def test_lesions_are_put_into_tumour_free_brains() -> None:
    for in_place in (0.0, 1.0):
        data = dataset(shares={"healthy": 1.0}, implants={"healthy": 1.0}, in_place=in_place)
        seen = [bool((data[i]["label"][1] == 1).any()) for i in range(12)]
        assert sum(seen) >= 10
    without = dataset(shares={"healthy": 1.0})
    assert not any((without[i]["label"] == 1).any() for i in range(4))


def test_an_implanted_lesion_comes_to_its_place() -> None:
    cube = piece("cube", 0, (14, 13, 10), complete=False)
    # the cube's first voxel is voxel (15, 6, 12) of a brain as large as the other one
    cube = replace(cube, brain_box=((-15.0, -6.0, -12.0), (40.0, 45.0, 27.0)))
    healthy = piece("healthy", 0, (56, 52, 40), tumour=False)
    implantation = Implantation(whole=0.0, match=(1.0, 1.0), contrast=(1.0, 1.0))
    data = LesionPatchDataset(
        [cube, healthy],
        replace(STILL, size=(56, 52, 40)),
        shares={"healthy": 1.0},
        implants={"healthy": 1.0},
        in_place=1.0,
        implantation=implantation,
    )
    wanted = np.argwhere(cube.truth & 2).mean(0) + np.array([15, 6, 12])
    mirrored = wanted * (1, -1, 1) + np.array([0, 51, 0])
    sides = set()
    for i in range(8):
        place = (data[i]["label"][1] == 1).nonzero().double().mean(0).numpy()
        off = [np.abs(place - wanted).max(), np.abs(place - mirrored).max()]
        assert min(off) < 4
        sides.add(int(np.argmin(off)))
    assert sides == {0, 1}


def test_skull_on_and_off() -> None:
    head = piece("head", 0, (34, 32, 26), missing=(2,), complete=False, skull_scale=[(0.5, 1.0)] * 3)
    on = LesionPatchDataset([head], replace(STILL, size=(34, 32, 26)))[0]
    stored = torch.from_numpy(head.image.astype(np.float32))
    inside = torch.from_numpy(head.truth & 128 != 0)
    expected = torch.where(inside, 0.5 * stored + 1, 0)
    torch.testing.assert_close(on["image"][torch.tensor(head.present)], expected)
    assert (on["image"][2] == 0).all()
    off = LesionPatchDataset([head], replace(STILL, size=(34, 32, 26), strip=1.0, strip_shift=0.0))[0]
    brain = torch.from_numpy(head.truth & 64 != 0)
    torch.testing.assert_close(off["image"][torch.tensor(head.present)], stored * brain)
    assert torch.equal(off["label"], on["label"])


def test_tumour_cut_off_with_the_skull_is_not_known() -> None:
    head = piece("head", 0, (34, 32, 26), complete=False, skull_scale=[(1.0, 0.0)] * 4)
    truth = head.truth.copy()
    outside = tuple(np.argwhere((truth & 192) == 128)[0])
    truth[outside] |= 2
    data = LesionPatchDataset(
        [replace(head, truth=truth)], replace(STILL, size=(34, 32, 26), strip=1.0, strip_shift=0.0)
    )
    assert data[0]["label"][(slice(None), *outside)].tolist() == [-1, -1, -1]


def test_sequences_are_dropped() -> None:
    data = dataset(augmentation=replace(AUGMENTATION, drop=1.0), shares={"cube": 1.0})
    subsets = {tuple(data[i]["present"].tolist()) for i in range(120)}
    assert len(subsets) == 15


def test_from_the_files_of_a_study(tmp_path: Path) -> None:
    source = piece("study", 0, (30, 28, 24))
    case = tmp_path / "sets" / "BraTS20_Training_002"
    case.mkdir(parents=True)
    affine = np.array([[0.0, -1, 0, 14], [-1, 0, 0, 15], [0, 0, 1, -12], [0, 0, 0, 1]])
    label = np.select([source.truth & bit != 0 for bit in (4, 1, 2)], [4, 1, 2]).astype(np.uint8)
    volumes = {
        name: np.pad(1000 + 100 * channel.astype(np.float32), 2) * np.pad(source.truth & 128 != 0, 2)
        for name, channel in zip(("t1", "t1ce", "flair"), source.image[[0, 1, 3]], strict=True)
    }
    for name, volume in {**volumes, "seg": np.pad(label, 2)}.items():
        image = nibabel.Nifti1Image(volume.astype(np.int16), affine)
        nibabel.save(image, case / f"BraTS20_Training_002_{name}.nii.gz")
    studies, errors = find_studies(tmp_path / "sets", masks="required", rules=BRATS_RULES)
    assert not errors
    transform = Compose([LoadSequencesd("image", "label"), ZScoreHeadd("image")])
    (packed,) = pack_studies(as_items(studies, labels=True), transform, tmp_path / "cache", progress=False)
    assert packed.shape == source.shape
    assert packed.present == (True, True, False, True)
    np.testing.assert_array_equal(packed.truth, source.truth)
    sample = LesionPatchDataset([packed], AUGMENTATION)[0]
    assert sample["image"].shape == (4, *SIZE)
    assert (sample["image"][2] == 0).all()
    assert set(sample["label"].unique().tolist()) <= {0.0, 1.0}
