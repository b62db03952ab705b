from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg_ext.phantoms import WRITERS, Phantom, make_phantom
from medseg_ext.phantoms.__main__ import main
from medseg_ext.phantoms.contrast import SEQUENCES


@pytest.fixture(scope="module")
def study() -> Phantom:
    return make_phantom(3, (48, 56, 20), sequences=("t1", "flair", "t1ce", "t2"), kind="high", volume_ml=60.0)


def _canonical(path: Path) -> tuple[np.ndarray, nib.Nifti1Image]:
    """The array turned back to rows posterior, columns left, slices superior, whatever the file's orientation."""
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(("P", "L", "S"))
    )
    return nib.orientations.apply_orientation(np.asanyarray(image.dataobj), turn), image


@pytest.mark.parametrize(("layout", "ending"), [("kaggle", "tif"), ("slices", "png")])
def test_slice_layouts(tmp_path: Path, study: Phantom, layout: str, ending: str) -> None:
    folder = WRITERS[layout](study, tmp_path, None)
    if layout == "kaggle":
        assert folder == tmp_path / "kaggle_3m" / "PHANTOM_00_0003_20000101"
    masks = sorted(folder.glob(f"*_mask.{ending}"))
    assert len(list(folder.iterdir())) == 40
    assert len(masks) == 20
    for k in range(20):
        number = f"{k + 1:03d}" if layout == "slices" else str(k + 1)
        mask = np.asarray(Image.open(folder / f"{folder.name}_{number}_mask.{ending}"))
        image = np.asarray(Image.open(folder / f"{folder.name}_{number}.{ending}"))
        assert image.shape == (48, 56, 3)
        assert image.dtype == mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, study.mask[:, :, k] * 255)
        for channel, name in enumerate(("t1", "flair", "t1ce")):
            plane = study.images[name][:, :, k]
            if k == 10:
                assert np.corrcoef(image[..., channel].ravel(), plane.ravel())[0, 1] > 0.99


def test_nifti_one_file_a_sequence(tmp_path: Path, study: Phantom) -> None:
    folder = WRITERS["nifti"](study, tmp_path, "a")
    for name in SEQUENCES:
        array, image = _canonical(folder / f"a_{name}.nii.gz")
        np.testing.assert_array_equal(array, np.rint(study.images[name]))
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(sorted(image.header.get_zooms()), sorted(study.spacing), rtol=1e-5)
    np.testing.assert_array_equal(_canonical(folder / "a_mask.nii.gz")[0], study.mask)


def test_turning_keeps_places(tmp_path: Path, study: Phantom) -> None:
    """The centre of the lesion in patient millimetres is the same from the phantom and from each file."""
    wanted = nib.affines.apply_affine(study.affine, np.argwhere(study.mask).mean(0))
    for layout, name in (
        ("nifti", "a/a_mask.nii.gz"),
        ("nifti-stack", "a/a_mask.nii.gz"),
        ("brats2020", "a/a_seg.nii.gz"),
    ):
        WRITERS[layout](study, tmp_path / layout, "a")
        image = nib.load(tmp_path / layout / name)
        found = nib.affines.apply_affine(image.affine, np.argwhere(np.asanyarray(image.dataobj)).mean(0))
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_nifti_stack(tmp_path: Path, study: Phantom) -> None:
    folder = WRITERS["nifti-stack"](study, tmp_path, "a")
    image = nib.load(folder / "a.nii.gz")
    assert image.shape == (48, 56, 20, 4)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj)[..., 1], np.rint(study.images["flair"]))
    np.testing.assert_array_equal(np.asanyarray(nib.load(folder / "a_mask.nii.gz").dataobj), study.mask)


def test_nnunet(tmp_path: Path, study: Phantom) -> None:
    WRITERS["nnunet"](study, tmp_path, "case_0")
    WRITERS["nnunet"](study, tmp_path, "case_1")
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "t1", "1": "flair", "2": "t1ce", "3": "t2"}
    assert description["numTraining"] == 2
    assert description["file_ending"] == ".nii.gz"
    array, _ = _canonical(tmp_path / "imagesTr" / "case_1_0002.nii.gz")
    np.testing.assert_array_equal(array, np.rint(study.images["t1ce"]))
    np.testing.assert_array_equal(_canonical(tmp_path / "labelsTr" / "case_1.nii.gz")[0], study.mask)


def test_brats_layouts_and_label_conventions(tmp_path: Path, study: Phantom) -> None:
    old, new = WRITERS["brats2020"](study, tmp_path, "o"), WRITERS["brats2023"](study, tmp_path, "n")
    assert {p.name for p in old.iterdir()} == {f"o_{n}.nii.gz" for n in ("flair", "t1", "t1ce", "t2", "seg")}
    assert {p.name for p in new.iterdir()} == {f"n-{n}.nii.gz" for n in ("t1c", "t1n", "t2f", "t2w", "seg")}
    seg, image = _canonical(old / "o_seg.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_array_equal(seg, study.label)
    newer, _ = _canonical(new / "n-seg.nii.gz")
    np.testing.assert_array_equal(newer == 3, study.label == 4)
    np.testing.assert_array_equal(newer % 3, study.label % 4)
    flair, _ = _canonical(new / "n-t2f.nii.gz")
    np.testing.assert_array_equal(flair, np.rint(study.images["flair"]))


def test_nnunet_with_the_labels_of_brats(tmp_path: Path, study: Phantom) -> None:
    folder = WRITERS["nnunet-brats"](study, tmp_path, "case_0")
    label, _ = _canonical(folder / "labelsTr" / "case_0.nii.gz")
    for ours, theirs in ((2, 1), (1, 2), (4, 3)):
        np.testing.assert_array_equal(label == theirs, study.label == ours)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"]["tumor core"] == [2, 3]
    assert description["numTraining"] == 1


def test_decathlon(tmp_path: Path, study: Phantom) -> None:
    folder = WRITERS["decathlon"](study, tmp_path, "BRATS_900")
    array, image = _canonical(folder / "imagesTr" / "BRATS_900.nii.gz")
    assert image.shape[3] == 4
    for channel, name in enumerate(("flair", "t1", "t1ce", "t2")):
        np.testing.assert_array_equal(array[..., channel], study.images[name])
    label, _ = _canonical(folder / "labelsTr" / "BRATS_900.nii.gz")
    for ours, theirs in ((2, 1), (1, 2), (4, 3)):
        np.testing.assert_array_equal(label == theirs, study.label == ours)
    description = json.loads((folder / "dataset.json").read_text())
    assert list(description["modality"].values()) == ["FLAIR", "T1w", "t1gd", "T2w"]
    assert description["training"] == [{"image": "./imagesTr/BRATS_900.nii.gz", "label": "./labelsTr/BRATS_900.nii.gz"}]


def test_decathlon_needs_all_sequences(tmp_path: Path) -> None:
    phantom = make_phantom(0, (32, 32, 6), sequences=("flair",))
    with pytest.raises(ValueError, match="found no t1, t1ce, t2"):
        WRITERS["decathlon"](phantom, tmp_path, None)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--shape", "32", "32", "6", "--quiet"]
    assert main([str(tmp_path), "--count", "2", "--seed", "5", "--split", "test", *arguments]) == 0
    assert "2 studies" in capsys.readouterr().out
    names = ["PHANTOM_00_0005_20000101", "PHANTOM_00_0006_20000101"]
    assert sorted(p.name for p in (tmp_path / "kaggle_3m").iterdir()) == names
    assert json.loads((tmp_path / "split.json").read_text()) == {"train": [], "val": [], "test": names}
    assert main([str(tmp_path), "--count", "1", "--seed", "6", "--split", "val", *arguments]) == 0
    split = json.loads((tmp_path / "split.json").read_text())
    assert split == {"train": [], "val": names[1:], "test": names[:1]}


def test_files_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for run in ("a", "b"):
        assert main([str(tmp_path / run), "--count", "1", "--shape", "32", "32", "4", "--quiet"]) == 0
    first, second = (sorted((tmp_path / run).rglob("*.tif")) for run in ("a", "b"))
    assert len(first) == 8
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_command_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--count", "0", "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("error: --count 0")
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--layout" in capsys.readouterr().out
