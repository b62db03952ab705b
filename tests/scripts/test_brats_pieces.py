"""Packing the partial BraTS sets: where cubes, slices and heads come to lie, on synthetic ones."""

from __future__ import annotations

import json
from pathlib import Path

import brats_pieces
import brats_sources as sources
import numpy as np
import pytest
from brats_sources import STEP, BratsSets
from PIL import Image

from medseg_ext.training import read_pieces

PATIENT, TRAIN_HEAD = "BraTS20_Training_011", "BraTS20_Training_280"
START = np.array([40, 60, 30])


def ramp(places: list[np.ndarray]) -> np.ndarray:
    """(4, ...) values that tell the mm along each axis, and their sum."""
    x, y, z = np.meshgrid(*places, indexing="ij")
    return np.stack([x, y, z, x + y + z]) / 50 + 1


def labels() -> np.ndarray:
    """A ball of edema with an enhancing middle about the middle of the cube, on the coarse grid."""
    whole = np.zeros((128,) * 3, np.uint8)
    distance = np.sqrt(((np.indices((32,) * 3) - 15.5) ** 2).sum(0))
    part = np.zeros((32,) * 3, np.uint8)
    part[distance < 9], part[distance < 4] = 2, 4
    whole[tuple(slice(s, s + 32) for s in START)] = part
    return whole


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BratsSets:
    monkeypatch.setattr(sources, "CASES_2013", {})
    brats = tmp_path / "data" / "brats"
    brats.mkdir(parents=True)
    rows = [f"{PATIENT},Private Collection,1,", f"{TRAIN_HEAD},TCGA-LGG,13,TCGA_XX_1"]
    (brats / "patients.csv").write_text("\n".join(["brats2020,cohort,site,lgg_folder", *rows]))
    whole = labels()
    window = tuple(slice(s, s + 32) for s in START)
    cube = ramp([np.arange(s, s + 32) * step for s, step in zip(START, STEP, strict=True)]).astype(np.float32)
    cube[..., :3] = cube[..., 29:] = 0  # what is 4 voxels and more from the box of the lesion
    cube[:, :, :3] = cube[:, :, 29:] = cube[:, :3] = cube[:, 29:] = 0
    np.savez(tmp_path / "lesions.npz", image=cube[None], label=whole[window][None], id=[f"{PATIENT}_7"])
    np.savez(tmp_path / "labels128.npz", label=np.stack([whole, whole]), id=[PATIENT, TRAIN_HEAD])
    plane = 54  # coarse 44.5
    values = ramp([np.arange(240.0), np.arange(240.0), np.array([float(plane)])])[..., 0]
    planes = np.zeros((3, 240, 240), np.uint8)
    planes[1, 100:105, 140:150] = 1
    stored = np.stack([(values[["t1", "t1ce", "t2", "flair"].index(name)] - 2) * 3 for name in sources.SLICE_CHANNELS])
    stored[:, :50] = stored[:, 200:] = -30
    np.savez(tmp_path / "slices.npz", image=stored[None], label=planes[None], id=[f"{PATIENT} slice {plane}"])
    return BratsSets(tmp_path / "data", tmp_path, tmp_path / "heads")


def test_interpolation_is_exact_on_lines_and_at_voxels() -> None:
    line = np.array([1.0, 3.0, 5.0, 7.0])
    for degree in (1, 3):
        np.testing.assert_allclose(sources.interpolation(4, np.array([0, 0.25, 2.5, 9]), degree) @ line, [1, 1.5, 6, 7])
    values = np.random.default_rng(0).normal(size=6)
    np.testing.assert_allclose(sources.interpolation(6, np.arange(6.0), 3) @ values, values, atol=1e-12)
    assert sources.interpolation(1, np.array([0.0, 3.0]), 3).tolist() == [[1], [1]]


def test_atlas_voxels_between_coarse_ones() -> None:
    # coarse voxels 10 to 12 lie at 18.82 to 22.58 mm in the plane, 12.13 to 14.55 mm across
    voxels = sources.fine_voxels(np.array([10, 0, 10]), np.array([13, 2, 13]))
    assert [v.tolist() for v in voxels] == [[19, 20, 21, 22], [0, 1], [13, 14]]


def test_a_cube_is_found(sets: BratsSets) -> None:
    (place,) = sets.places.values()
    assert place.start.tolist() == START.tolist()
    # the ball's 18 voxels and 4 on each side
    assert (place.low - place.start).tolist() == [3, 3, 3]
    assert (place.high - place.start).tolist() == [29, 29, 29]


def test_cubes_at_one_millimetre(sets: BratsSets) -> None:
    (item,) = sets.cube_items()
    voxels = sources.fine_voxels(START + 3, START + 29)
    expected = sources.canonical(ramp([v.astype(float) for v in voxels]))
    np.testing.assert_allclose(item["image"], expected, atol=1e-4)
    assert item["fold"] == 0
    # ball of radius 9 coarse voxels: 4/3 pi 9^3 of 4.29 mm3
    assert abs(item["label"][1].sum() / (4 / 3 * np.pi * 9**3 * STEP.prod()) - 1) < 0.06
    assert (item["label"][0] == item["label"][2]).all()
    rows, columns, slices = np.argwhere(item["label"][1]).mean(0) + [v[0] for v in (voxels[1], voxels[0], voxels[2])]
    np.testing.assert_allclose([columns, rows, slices], (START + 15.5) * STEP, atol=0.6)


def test_slices_on_the_scale_of_the_cubes(sets: BratsSets) -> None:
    (item,) = sets.slice_items()
    image = sources.canonical(item["image"])  # back to L, P, S
    expected = ramp([np.arange(240.0), np.arange(240.0), np.array([54.0])])
    np.testing.assert_allclose(image[0, 60:190], expected[0, 60:190], atol=0.02)
    np.testing.assert_allclose(image[1, 60:190], expected[1, 60:190], atol=0.02)
    np.testing.assert_allclose(image[3, 60:190], expected[3, 60:190], atol=0.02)
    assert (image[:, :50] == 0).all()
    assert item["label"].shape == (3, 240, 240, 1)
    assert np.argwhere(item["label"][1, ..., 0]).min(0).tolist() == [140, 100]
    assert not item["label"][0].any()


def test_a_stack_comes_to_the_atlas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ATLAS_SHAPE", (12, 10, 8))
    stack = np.stack([np.indices((4, 20, 16))[axis].astype(np.float32) for axis in range(3)])
    # slice = k / 2 - 1, row = 2 j, column = i + 2
    matrix = np.array([[0, 0, 0.5, -1.0], [0, 2, 0, 0], [1, 0, 0, 2]])
    image, reached = sources.on_atlas(stack, matrix)
    assert image.shape == (3, 10, 12, 8)
    assert reached[5, 5].tolist() == [False, False, True, True, True, True, True, True]
    np.testing.assert_allclose(image[:, 3, 4, 5], [1.5, 6, 6], atol=1e-4)
    np.testing.assert_allclose(image[:, 9, 11, 7], [2.5, 18, 13], atol=1e-4)


def test_every_site_has_a_fold() -> None:
    assert sorted(map(int, sources.FOLD_OF_SITE)) == list(range(1, 18))
    assert set(sources.FOLD_OF_SITE.values()) == set(range(5))


def test_packed(sets: BratsSets, tmp_path: Path) -> None:
    pair = {"brats2020": TRAIN_HEAD, "lgg_folder": "TCGA_XX_1", "split": "train", "poor": False}
    # slices of 7 mm from k = 0 on, pixels of 1 mm
    pair |= {"matrix": [[0, 0, 1 / 7, 0], [0, 1, 0, 0], [1, 0, 0, 0]], "ncc": {"t1": 0.9, "flair": 0.9}}
    pairs = [pair, {**pair, "poor": True}, {**pair, "split": "test"}]
    (sets.data / "brats" / "lgg_pairs.json").write_text(json.dumps(pairs))
    folder = sets.heads / "TCGA_XX_1"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    slices = np.zeros((23, 240, 240, 3), np.uint8)
    slices[1:22, 20:220, 30:210] = rng.integers(60, 120, (21, 200, 180, 3))
    for number, values in enumerate(slices, 1):
        Image.fromarray(values).save(folder / f"TCGA_XX_1_{number}.tif")
        Image.fromarray(values[..., 0]).save(folder / f"TCGA_XX_1_{number}_mask.tif")
    counts = brats_pieces.pack(sets, tmp_path / "pieces", ["cube", "slice", "head"])
    assert counts == {"cube": 1, "slice": 1, "head": 1}
    cube, head, plane = read_pieces(tmp_path / "pieces")
    assert [p.kind for p in (cube, head, plane)] == ["cube", "head", "slice"]
    assert head.present == (True, False, False, True)
    assert not head.complete
    assert head.fold == 3
    assert head.skull_scale is not None and len(head.skull_scale) == 2
    brain = (head.truth & 64) != 0
    for channel in head.image.astype(np.float32):
        assert abs(channel[brain].mean()) < 0.01
        assert abs(channel[brain].std() - 1) < 0.01
    # head and cube share a label map: its place in the brain is the same
    assert np.ptp([p.aims["wt"].mean(0) - p.brain_box[0] for p in (cube, head)], axis=0).max() < 2
    assert plane.shape[2] == 1
