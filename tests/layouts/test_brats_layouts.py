"""Four sequences and their regions are the same whichever layout of brain tumour data they come in."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import nibabel
import numpy as np
import pytest
from brats_files import (
    AFFINE,
    FOUR,
    patient,
    renumber,
    write_2013,
    write_2020,
    write_2023,
    write_decathlon,
    write_dicom,
    write_nnunet,
)
from study_files import save, store

from medseg_ext.errors import InputError
from medseg_ext.layouts import (
    BRATS_CHANNELS,
    BRATS_RULES,
    AlignedStudy,
    PatientError,
    find_studies,
    load_aligned,
    regions_from_labels,
    study_from_files,
    study_from_path,
)

IMAGE, LABELS = patient()
REGIONS = regions_from_labels(LABELS, "brats2017")
WRITERS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "2020": (lambda root: write_2020(root, IMAGE, LABELS), "BraTS20_Training_001", "nifti", "brats2017"),
    "2018, uncompressed": (
        lambda root: write_2020(root / "HGG", IMAGE, LABELS, "Brats18_TCIA02_117_1", suffix=".nii"),
        "Brats18_TCIA02_117_1",
        "nifti",
        "brats2017",
    ),
    "2023": (
        lambda root: write_2023(root, IMAGE, renumber(LABELS, (1, 2, 3))),
        "BraTS-GLI-00001-000",
        "nifti",
        "brats2023",
    ),
    "decathlon": (lambda root: write_decathlon(root, IMAGE, renumber(LABELS, (2, 1, 3))), "BRATS_001", "nnunet", ""),
    "nnunet": (lambda root: write_nnunet(root, IMAGE, renumber(LABELS, (2, 1, 3))), "case_001", "nnunet", ""),
    "dicom": (lambda root: write_dicom(root / "patient1", IMAGE), "patient1", "dicom", "none"),
}


def find(root: Path, masks: str = "required"):
    return find_studies(root, channel_order=BRATS_CHANNELS, masks=masks, rules=BRATS_RULES)


def load(root: Path, labels: bool = True, **options) -> AlignedStudy:
    studies, errors = find(root, "required" if labels else "ignore")
    assert not errors
    (study,) = studies
    return load_aligned(study, labels=labels, **options)


def errors_of(root: Path, masks: str = "required", **options) -> list[InputError]:
    studies, errors = find(root, masks)
    for study in studies:
        try:
            load_aligned(study, labels=masks == "required", **options)
        except InputError as error:
            errors.append(error)
    return errors


@pytest.mark.parametrize("layout", WRITERS)
def test_the_arrays_are_the_same(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, name, kind, convention = WRITERS[layout]
    write(tmp_path)
    loaded = load(tmp_path, labels=convention != "none")
    assert (loaded.study.patient, loaded.study.layout) == (name, kind)
    assert loaded.image.dtype == np.float32
    np.testing.assert_array_equal(loaded.image, IMAGE)
    np.testing.assert_allclose(loaded.grid.affine, AFFINE, atol=1e-6)
    assert loaded.present.tolist() == [True] * 4
    assert loaded.air == (0, 0, 0, 0)
    assert loaded.skull_stripped
    if convention == "none":
        assert loaded.regions is None
    else:
        assert loaded.convention == (convention or "decathlon")
        assert loaded.regions is not None
        np.testing.assert_array_equal(loaded.regions, REGIONS)
    assert capsys.readouterr().err == ""


def test_2013(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[0, 0, 0] = 3
    write_2013(tmp_path, IMAGE, labels)
    loaded = load(tmp_path)
    assert loaded.study.patient == "brats_2013_pat0002_1"
    assert loaded.present.tolist() == [False, True, False, True]
    assert not loaded.image[[0, 2]].any()
    np.testing.assert_allclose(loaded.image[1] * IMAGE[1].std() + IMAGE[1].mean(), IMAGE[1], atol=0.01)
    assert loaded.air[1] == loaded.image[1].min() < 0
    assert loaded.convention == "brats2013"
    np.testing.assert_array_equal(loaded.regions, regions_from_labels(labels, "brats2013"))


def test_the_label_map_that_kept_its_old_name(tmp_path: Path) -> None:
    folder = write_2020(tmp_path, IMAGE, LABELS, "BraTS20_Training_355", suffix=".nii")
    (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    loaded = load(tmp_path)
    assert loaded.convention == "brats2017"
    np.testing.assert_array_equal(loaded.regions, REGIONS)


def test_resection_cavities_are_in_no_region(tmp_path: Path) -> None:
    # without any enhancement left, when the values alone would say 2017
    write_2023(tmp_path, IMAGE, LABELS, "BraTS-GLI-02000-101")
    loaded = load(tmp_path)
    assert loaded.convention == "brats2024"
    np.testing.assert_array_equal(loaded.regions[1], (LABELS > 0) & (LABELS < 4))
    assert not loaded.regions[2].any()


@pytest.mark.parametrize("names", [c for n in (1, 2, 3) for c in combinations(FOUR, n)], ids="-".join)
def test_any_subset_of_the_sequences(
    tmp_path: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    index = [FOUR.index(name) for name in names]
    write_2020(tmp_path, IMAGE[index], LABELS, names=names)
    loaded = load(tmp_path)
    assert loaded.present.tolist() == [name in names for name in FOUR]
    np.testing.assert_array_equal(loaded.image, IMAGE * loaded.present[:, None, None, None])
    missing = " and no ".join(name for name in FOUR if name not in names)
    assert (
        f"note: {tmp_path / 'BraTS20_Training_001'}: no {missing}; the result may be worse" in capsys.readouterr().err
    )


def test_the_reference_image(tmp_path: Path) -> None:
    for names, expected in ((FOUR, "t1ce"), (("t1", "t2", "flair"), "flair"), (("t1", "t2"), "t1"), (("t2",), "t2")):
        root = tmp_path / "_".join(names)
        write_2020(root, IMAGE[[FOUR.index(name) for name in names]], None, names=names)
        assert load(root, labels=False).native.path.name == f"BraTS20_Training_001_{expected}.nii.gz"


def test_one_4d_file_by_declared_order(tmp_path: Path) -> None:
    save(tmp_path / "p.nii.gz", *store(np.moveaxis(IMAGE[::-1], 0, -1), "RAS", AFFINE))
    study = study_from_path(tmp_path / "p.nii.gz", channel_order=BRATS_CHANNELS, rules=BRATS_RULES)
    assert study.layout == "nifti-stack"
    np.testing.assert_array_equal(load_aligned(study).image, IMAGE[::-1])
    np.testing.assert_array_equal(load_aligned(study, stack_order=FOUR[::-1]).image, IMAGE)
    loaded = load_aligned(study, stack_order=("T2f", "t2w", "t1gd", "t1n"), channel_order=("flair", "t1"))
    np.testing.assert_array_equal(loaded.image, IMAGE[[3, 0]])
    with pytest.raises(PatientError, match=r"p.nii.gz: found 4 channels \(7x8x6x4\), allowed 3 \(t1, t2, flair\)"):
        load_aligned(study, stack_order=("t1", "t2", "flair"))
    save(tmp_path / "q.nii.gz", *store(np.moveaxis(IMAGE[:3], 0, -1), "RAS", AFFINE))
    with pytest.raises(
        PatientError, match=r"q.nii.gz: found 3 channels \(7x8x6x3\), allowed 4 \(t1, t1ce, t2, flair\)"
    ):
        load_aligned(study_from_path(tmp_path / "q.nii.gz", rules=BRATS_RULES))


def test_files_by_name(tmp_path: Path) -> None:
    folder = write_2020(tmp_path, IMAGE, LABELS)
    paths = {name: folder / f"BraTS20_Training_001_{name}.nii.gz" for name in FOUR}
    shutil.copy(paths["flair"], folder / "x.nii.gz")
    for files in (paths, list(paths.values())[::-1], {"T1Gd": paths["t1ce"], "t2f": folder / "x.nii.gz"}):
        study = study_from_files(files)
        np.testing.assert_array_equal(load_aligned(study).image[[1, 3]], IMAGE[[1, 3]])
    with pytest.raises(InputError, match=r"x.nii.gz: found no sequence in the name \(files: BraTS20.*x.nii.gz\)"):
        study_from_files([paths["t1"], folder / "x.nii.gz"])
    with pytest.raises(InputError, match="a second t1ce file"):
        study_from_files({"t1gd": paths["t1ce"], "t1c": paths["t1"]})
    with pytest.raises(InputError, match="no files"):
        study_from_files([])


def shifted(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: found no such folder, allowed NIfTI files .*, or DICOM series"):
        find(tmp_path / "absent")


def change_byte(path: Path) -> None:
    """Another voxel, in a file that is not shorter: only the checksum at its end tells."""
    packed = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    packed[len(packed) // 2] ^= 1
    path.write_bytes(packed)


def enlarge(path: Path, factor: float) -> None:
    image = nibabel.load(path)
    save(path, np.asarray(image.dataobj), image.affine @ np.diag([factor, factor, factor, 1]))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "doubled": (
        lambda p: shutil.copy(p / "c1_t1.nii.gz", p / "c1_t1n.nii.gz"),
        "c1_t1n.nii.gz: found a second t1 file (also c1_t1.nii.gz), allowed one a sequence",
    ),
    "misspelt": (
        lambda p: (p / "c1_t2.nii.gz").rename(p / "c1_tt2.nii.gz"),
        "c1_tt2.nii.gz: found no t2, but unknown sequences (c1_tt2.nii.gz), allowed",
    ),
    "elsewhere": (
        lambda p: save(p / "c1_flair.nii.gz", *store(IMAGE[3], "LPS", shifted(300))),
        "c1_flair.nii.gz: found a volume elsewhere in space (it covers 0% of c1_t1ce.nii.gz), allowed one that",
    ),
    "no affine and another shape": (
        lambda p: nibabel.save(nibabel.Nifti1Image(IMAGE[0][1:], None), p / "c1_t1.nii.gz"),
        "c1_t1.nii.gz: found 7x7x6 voxels and no affine in one of the files, allowed the grid of c1_t1ce.nii.gz",
    ),
    "all zero": (
        lambda p: save(p / "c1_t2.nii.gz", *store(IMAGE[2] * 0, "LPS", AFFINE)),
        "c1_t2.nii.gz: found an all-zero volume, allowed a sequence that shows a head, or none",
    ),
    "constant": (
        lambda p: save(p / "c1_t2.nii.gz", *store(IMAGE[2] * 0 + 7, "LPS", AFFINE)),
        "c1_t2.nii.gz: found a constant volume (7 everywhere), allowed a sequence",
    ),
    "nan": (
        lambda p: save(p / "c1_t1ce.nii.gz", *store(np.where(IMAGE[1] == 0, np.nan, IMAGE[1]), "LPS", AFFINE)),
        f"c1_t1ce.nii.gz: found NaN or infinite values in {int((IMAGE[1] == 0).sum())} voxels",
    ),
    "truncated": (
        lambda p: (p / "c1_t1ce.nii.gz").write_bytes((p / "c1_t1ce.nii.gz").read_bytes()[:-200]),
        "c1_t1ce.nii.gz: found not a NIfTI file, or a truncated one",
    ),
    "bytes changed on the way": (
        lambda p: change_byte(p / "c1_t2.nii.gz"),
        "c1_t2.nii.gz: found a truncated or damaged NIfTI file",
    ),
    "voxels of centimetres": (
        lambda p: [enlarge(path, 100) for path in p.glob("*.nii.gz")],
        "c1_t1ce.nii.gz: found voxels of 100 x 100 x 100 mm, to be worked on as 712 x 612 x 512 of 1 mm,",
    ),
    "4-D": (
        lambda p: save(p / "c1_t1ce.nii.gz", *store(np.moveaxis(IMAGE[:3], 0, -1), "LPS", AFFINE)),
        "c1_t1ce.nii.gz: found a volume of 7x8x6x3, allowed 3-D",
    ),
    "label outside the convention": (
        lambda p: save(p / "c1_seg.nii.gz", *store(renumber(LABELS, (1, 2, 3)), "LPS", AFFINE)),
        "c1_seg.nii.gz: found label values 1, 2, 3, allowed 0, 1, 2, 4 (brats2017)",
    ),
    "half a label": (
        lambda p: save(p / "c1_seg.nii.gz", *store(LABELS * 0.5, "LPS", AFFINE)),
        "c1_seg.nii.gz: found values such as 0.5 in the label map, allowed whole numbers from 0",
    ),
    "label map elsewhere": (
        lambda p: save(p / "c1_seg.nii.gz", *store(LABELS, "LPS", shifted(300))),
        "c1_seg.nii.gz: found a label map on another grid, of 0% of c1_t1ce.nii.gz, allowed the grid of",
    ),
    "label map of fewer rows": (
        lambda p: save(p / "c1_seg.nii.gz", *store(LABELS[1:], "LPS", AFFINE)),
        "c1_seg.nii.gz: found a label map on another grid, of ",
    ),
    "no label map": (lambda p: (p / "c1_seg.nii.gz").unlink(), "found no mask for the images"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_bad_input(tmp_path: Path, fault: str) -> None:
    spoil, message = SPOILED[fault]
    write_2020(tmp_path, IMAGE, LABELS, "good1")
    spoil(write_2020(tmp_path, IMAGE, LABELS, "c1"))
    (error,) = errors_of(tmp_path)
    assert message in str(error)
    assert isinstance(error, PatientError)
    assert error.patient == "c1"
    assert "\n" not in str(error)


def test_an_ambiguous_label_map(tmp_path: Path) -> None:
    labels = np.where(LABELS == 4, 0, LABELS)
    write_2020(tmp_path, IMAGE, labels, "c1", names=FOUR)
    assert load(tmp_path).convention == "brats2017"  # told by the names
    (tmp_path / "c1" / "c1_seg.nii.gz").rename(tmp_path / "c1" / "c1_label.nii.gz")
    (error,) = errors_of(tmp_path)
    assert "c1_label.nii.gz: found label values 1, 2, which brats2017 and decathlon read differently" in str(error)
    loaded = load(tmp_path, convention="decathlon")
    np.testing.assert_array_equal(loaded.regions[0], labels == 2)


def test_pictures_are_no_volumes(tmp_path: Path) -> None:
    from study_files import random_patient, write_slices

    image, mask = random_patient()
    write_slices(tmp_path / "kaggle_3m" / "p1", image, mask)
    (error,) = errors_of(tmp_path, "ignore")
    assert "p1: found pictures without a voxel size, allowed NIfTI files or DICOM series" in str(error)


def test_none_of_the_wanted(tmp_path: Path) -> None:
    write_2020(tmp_path, IMAGE[:1], None, names=("t1",))
    study = study_from_path(tmp_path / "BraTS20_Training_001", rules=BRATS_RULES)
    with pytest.raises(PatientError, match=r"found none of t2, flair \(only t1\), allowed at least one"):
        load_aligned(study, channel_order=("t2", "flair"))


def test_lgg_still_wants_flair(tmp_path: Path) -> None:
    write_2020(tmp_path, IMAGE[:3], LABELS, names=FOUR[:3])
    assert "found no flair (only t1, t1ce, t2)" in str(find_studies(tmp_path)[1][0])


def test_sequences_on_other_grids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_2020(tmp_path, IMAGE, LABELS)
    # no two voxels alike, or one of the values would be taken for air
    ramp = (np.arange(100, 103) + 1e-4 * np.arange(56).reshape(8, 7, 1)).astype(np.float32)
    thick = AFFINE @ np.diag([1, 1, 2, 1])
    thick[2, 3] += 0.5  # slices of 2 mm over the same 6 mm
    save(folder / "BraTS20_Training_001_flair.nii.gz", *store(ramp, "RAS", thick))
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.image[:3], IMAGE[:3])
    np.testing.assert_allclose(loaded.image[3, 0, 0], [100, 100.25, 100.75, 101.25, 101.75, 102], atol=0.01)
    note = f"{folder}: flair on another grid than BraTS20_Training_001_t1ce.nii.gz, resampled"
    assert capsys.readouterr().err.count(note) == 1
    load(tmp_path)
    assert note not in capsys.readouterr().err  # said once, not every epoch


def test_an_oblique_field_of_view_is_worked_on_where_the_head_is(tmp_path: Path) -> None:
    turn = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = np.zeros((60, 60, 20), np.float32)
    image[20:40, 26:36, 5:15] = 500
    save(tmp_path / "c1" / "c1_t2.nii", image, turn @ AFFINE)
    loaded = load(tmp_path, labels=False)
    assert loaded.native.shape == (60, 60, 20)
    # 20 x 10 mm, turned: 20 * .8 + 10 * .6 by 20 * .6 + 10 * .8, with 8 to 12 mm around it
    assert all(extent <= size <= extent + 24 for size, extent in zip(loaded.grid.shape, (22, 20, 10), strict=True))
    assert loaded.image[2].sum() == pytest.approx(image.sum(), rel=0.01)
    inside = np.argwhere(loaded.image[2] > 250).mean(0)
    np.testing.assert_allclose(
        (loaded.grid.affine @ [*inside, 1])[:3], (turn @ AFFINE @ [29.5, 30.5, 9.5, 1])[:3], atol=0.3
    )


@pytest.mark.parametrize("unplaced", ["RAS", "LPS", "PLS", "SAR"])
def test_files_that_do_not_say_how_the_head_lies(
    tmp_path: Path, unplaced: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "c1"
    for name, channel in zip(FOUR, IMAGE, strict=True):
        save(folder / f"c1_{name}.nii.gz", store(channel, unplaced, AFFINE)[0], np.eye(4))
    loaded = load(tmp_path, labels=False, unplaced=unplaced)
    np.testing.assert_array_equal(loaded.image, IMAGE)
    assert nibabel.aff2axcodes(loaded.grid.affine) == ("P", "L", "S")
    assert f"c1_t1ce.nii.gz: the affine does not say how the head lies, taken as {unplaced}" in capsys.readouterr().err


def test_one_file_without_an_affine_is_paired_as_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_2020(tmp_path, IMAGE, LABELS)
    stored = store(IMAGE[0], "LPS", AFFINE)[0]
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), None), folder / "BraTS20_Training_001_t1.nii.gz")
    np.testing.assert_array_equal(load(tmp_path).image, IMAGE)
    assert "has an affine, paired as stored" in capsys.readouterr().err
