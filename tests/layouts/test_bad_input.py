"""Every kind of bad input: one error that names the file, and the other patients all the same."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from study_files import (
    ORDER,
    PLS_AFFINE,
    random_patient,
    save,
    store,
    write_grey_slices,
    write_nnunet,
    write_png16,
    write_sequences,
    write_slices,
    write_stack,
)

from medseg_ext.errors import InputError
from medseg_ext.layouts import PatientError, find_studies, load_study, study_from_path
from medseg_ext.layouts.pictures import read_picture


def errors_of(root: Path, masks: str = "required", **options) -> list[PatientError]:
    """Errors of a folder: those of finding and those of loading what was found."""
    studies, errors = find_studies(root, masks=masks)
    for study in studies:
        with contextlib.suppress(InputError):
            load_study(study, masks=masks, **options)
            continue
        with pytest.raises(InputError) as caught:
            load_study(study, masks=masks, **options)
        errors.append(caught.value)
    return errors


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two whole patients, ``good`` and ``p``, in Kaggle's layout."""
    image, mask = random_patient()
    for name in ("good", "p"):
        write_slices(tmp_path / "kaggle_3m" / name, image, mask)
    return tmp_path / "kaggle_3m"


def truncate(path: Path, part: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def repaint(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path)


def blacken(folder: Path) -> None:
    for path in folder.glob("p_?.tif"):
        repaint(path, np.zeros((6, 5, 3), np.uint8))


ZERO = np.zeros((6, 5), np.uint8)
CASES: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("truncated", lambda p: truncate(p / "p_2.tif"), "p_2.tif", "found not a PNG or TIFF, or a truncated one"),
    (
        "truncated mask",
        lambda p: truncate(p / "p_2_mask.tif"),
        "p_2_mask.tif",
        "found not a PNG or TIFF, or a truncated one",
    ),
    ("truncated late", lambda p: truncate(p / "p_2.tif", 0.9), "p_2.tif", "found a"),
    (
        "no image",
        lambda p: (p / "p_2.tif").write_text("hello"),
        "p_2.tif",
        "found not a PNG or TIFF, or a truncated one",
    ),
    (
        "empty file",
        lambda p: (p / "p_2.tif").write_bytes(b""),
        "p_2.tif",
        "found not a PNG or TIFF, or a truncated one",
    ),
    (
        "jpeg in disguise",
        lambda p: Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(p / "p_2.tif", format="JPEG"),
        "p_2.tif",
        "found not a PNG or TIFF",
    ),
    (
        "no mask",
        lambda p: (p / "p_2_mask.tif").unlink(),
        "p_2.tif",
        "found no mask for the slice, allowed p_2_mask.tif",
    ),
    ("no slice", lambda p: (p / "p_4.tif").unlink(), "p_4_mask.tif", "found a mask without its slice, allowed p_4.tif"),
    ("mask size", lambda p: repaint(p / "p_2_mask.tif", ZERO[:5]), "p_2_mask.tif", "found a mask of 5x5, allowed 6x5"),
    (
        "grey mask",
        lambda p: repaint(p / "p_2_mask.tif", ZERO + np.uint8(7)),
        "p_2_mask.tif",
        "found grey values in the mask (7), allowed only 0 and 255, or only 0 and 1",
    ),
    (
        "mask of 0, 1 and 255",
        lambda p: repaint(p / "p_2_mask.tif", np.array([[0, 1, 255, 0, 0]] * 6, np.uint8)),
        "p_2_mask.tif",
        "found grey values in the mask (0, 1, 255)",
    ),
    (
        "colour mask",
        lambda p: repaint(p / "p_2_mask.tif", np.zeros((6, 5, 3), np.uint8)),
        "p_2_mask.tif",
        "found a mask of 3 channels, allowed 1 channel",
    ),
    (
        "slice size",
        lambda p: repaint(p / "p_1.tif", np.zeros((6, 7, 3), np.uint8)),
        "p_1.tif",
        "found a slice of 6x7, allowed 6x5 as in the patient's other slices",
    ),
    ("one channel", lambda p: repaint(p / "p_2.tif", ZERO), "p_2.tif", "found 1 channel, allowed 3 (t1, flair, t1ce)"),
    ("two channels", lambda p: Image.new("LA", (5, 6)).save(p / "p_2.tif"), "p_2.tif", "found 2 channels, allowed 3"),
    (
        "four channels",
        lambda p: Image.new("RGBA", (5, 6)).save(p / "p_2.tif"),
        "p_2.tif",
        "found 4 channels, allowed 3",
    ),
    (
        "missing numbers",
        lambda p: [(p / name).unlink() for name in ("p_2.tif", "p_2_mask.tif", "p_3.tif", "p_3_mask.tif")],
        "",
        "found missing slice numbers 2, 3 of 1 to 4, allowed consecutive numbers",
    ),
    (
        "number twice",
        lambda p: shutil.copy(p / "p_2.tif", p / "p_02.tif"),
        "p_2.tif",
        "found slice 2 twice (also p_02.tif), allowed each slice once",
    ),
    (
        "two patients in a folder",
        lambda p: shutil.copy(p / "p_2.tif", p / "q_2.tif"),
        "q_2.tif",
        "found slices named p_* and q_* in one folder, allowed one patient a folder",
    ),
    ("no number", lambda p: shutil.copy(p / "p_2.tif", p / "p_x.tif"), "p_x.tif", "found no slice number in the name"),
    ("all black", blacken, "", "found an all-black volume (flair is 0 everywhere), allowed slices that show a head"),
    ("broken link", lambda p: (p / "p_5.tif").symlink_to("nowhere"), "p_5.tif", "found no mask for the slice"),
    (
        "no pictures",
        lambda p: [path.rename(path.with_suffix(".jpg")) for path in p.iterdir()],
        "",
        "found no slices or volumes (only .jpg), allowed patients' folders of numbered PNG or TIFF slices",
    ),
    ("empty folder", lambda p: [path.unlink() for path in p.iterdir()], "", "found an empty folder, allowed patients'"),
    (
        "several pages",
        lambda p: Image.new("RGB", (5, 6)).save(p / "p_2.tif", save_all=True, append_images=[Image.new("RGB", (5, 6))]),
        "p_2.tif",
        "found 2 pages, allowed one slice a file",
    ),
    (
        "palette",
        lambda p: Image.new("P", (5, 6)).save(p / "p_2.tif"),
        "p_2.tif",
        "found a palette picture, allowed grey",
    ),
    (
        "32-bit colour",
        lambda p: tifffile.imwrite(p / "p_2.tif", np.zeros((6, 5, 3), np.uint32), photometric="rgb"),
        "p_2.tif",
        "found ",
    ),
]


@pytest.mark.parametrize(("spoil", "file", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_slices(data: Path, spoil: Callable[[Path], object], file: str, message: str) -> None:
    spoil(data / "p")
    (error,) = errors_of(data)
    path = data / "p" / file if file else data / "p"
    assert str(error).startswith(f"{path}: {message}")
    assert "\n" not in str(error)
    assert error.patient == "p"
    studies, _ = find_studies(data, masks="required")
    assert load_study(studies[0]).study.patient == "good"


def test_masks_are_left_alone_where_none_are_asked_for(data: Path) -> None:
    (data / "p" / "p_2_mask.tif").unlink()
    (data / "p" / "p_3_mask.tif").write_text("damaged")
    shutil.copy(data / "p" / "p_1_mask.tif", data / "p" / "elsewhere_mask.tif")
    write_slices(data / "masks_only", *random_patient())
    for path in (data / "masks_only").glob("masks_only_?.tif"):
        path.unlink()
    assert errors_of(data, "ignore") == []
    studies, _ = find_studies(data, masks="ignore")
    assert [(study.patient, len(study.images), study.masks) for study in studies] == [("good", 4, ()), ("p", 4, ())]
    assert load_study(studies[1], masks="ignore").mask is None
    with pytest.raises(PatientError, match="found no mask, allowed a mask beside the images"):
        load_study(studies[0], masks="required")


def test_no_masks_at_all(tmp_path: Path) -> None:
    image, _ = random_patient()
    write_slices(tmp_path / "p", image, None)
    (error,) = errors_of(tmp_path)
    assert str(error).startswith(
        f"{tmp_path}/p/p_1.tif: found no mask for the slice (nor for 3 more), allowed p_1_mask"
    )
    assert errors_of(tmp_path, "optional") == []


def test_masks_of_0_and_1(data: Path) -> None:
    repaint(data / "p" / "p_2_mask.tif", np.eye(6, 5, dtype=np.uint8))
    Image.fromarray(np.eye(6, 5, dtype=bool)).save(data / "p" / "p_3_mask.tif")
    loaded = load_study(study_from_path(data / "p", masks="required"))
    np.testing.assert_array_equal(loaded.mask[..., 1], np.eye(6, 5))
    np.testing.assert_array_equal(loaded.mask[..., 2], np.eye(6, 5))


def test_grey_slices(tmp_path: Path) -> None:
    image, _ = random_patient()
    write_grey_slices(tmp_path / "no_flair", image[[0, 2]], ("t1", "t1ce"))
    (write_grey_slices(tmp_path / "hole", image) / "hole_2_t1.png").unlink()
    write_slices(write_grey_slices(tmp_path / "mixed", image), image, None, ".png", first=4)
    repaint(write_grey_slices(tmp_path / "colour", image) / "colour_1_t1.png", np.zeros((6, 5, 3), np.uint8))
    found = {error.patient: str(error) for error in errors_of(tmp_path, "ignore")}
    assert "found no flair (only t1, t1ce), allowed a flair file" in found["no_flair"]
    assert "found slice 2 without a t1 file, allowed t1, t1ce, flair of each slice" in found["hole"]
    assert "found no sequence in the name while other slices have one" in found["mixed"]
    assert "colour_1_t1.png: found 3 channels, allowed 1 (grey)" in found["colour"]


def test_floats_with_nan(tmp_path: Path) -> None:
    image, _ = random_patient()
    folder = write_grey_slices(tmp_path / "p1", image.astype(np.float32), suffix=".tif")
    assert errors_of(folder, "ignore") == []
    Image.fromarray(np.full((6, 5), np.nan, np.float32)).save(folder / "p1_1_t1.tif")
    (error,) = errors_of(folder, "ignore")
    assert "found NaN or infinite values" in str(error)


def test_a_picture_of_absurd_size(tmp_path: Path) -> None:
    path = tmp_path / "p_1.png"
    write_png16(path, np.zeros((2, 2, 3), np.uint16))
    content = bytearray(path.read_bytes())
    for side in (9000, 30000):
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
        path.write_bytes(content)
        with pytest.raises(InputError, match="allowed at most 16777216 pixels"):
            read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_is_read_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    picture = np.random.default_rng(0).integers(0, 2**16, (60, 50, 3)).astype(np.uint16)
    path = tmp_path / f"p_1{suffix}"
    if suffix == ".png":
        write_png16(path, picture)
    else:
        tifffile.imwrite(path, picture, photometric="rgb", compression="zlib")
    read = read_picture(path)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, picture)
    truncate(path)
    with pytest.raises(InputError, match="truncated"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_truncated_anywhere(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"p_1{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    truncate(path, part)
    with pytest.raises(
        InputError, match=r"found (a truncated or damaged picture|not a PNG or TIFF, or a truncated one)"
    ):
        read_picture(path)


def test_16_bit_rgba(tmp_path: Path) -> None:
    write_png16(tmp_path / "p_1.png", np.ones((6, 5, 4), np.uint16))
    (error,) = errors_of(tmp_path, "ignore")
    assert "found 4 channels" in str(error)


def stack(path: Path, **change) -> Path:
    image = random_patient()[0].astype(np.float32)
    data = np.moveaxis(image, 0, -1).copy()
    if "value" in change:
        data[1, 2, 3, 0] = change["value"]
    return save(path, data[..., : change.get("channels", 3)], np.eye(4))


NIFTI: list[tuple[str, Callable[[Path], object], str]] = [
    ("nan", lambda p: stack(p, value=np.nan), "found NaN or infinite values in 1 voxels, allowed finite"),
    ("inf", lambda p: stack(p, value=-np.inf), "found NaN or infinite values in 1 voxels, allowed finite"),
    ("two channels", lambda p: stack(p, channels=2), "found 2 channels (6x5x4x2), allowed 3 (t1, flair, t1ce) on the"),
    (
        "four channels",
        lambda p: save(p, np.ones((6, 5, 7, 4), np.uint8), np.eye(4)),
        "found 4 channels (6x5x7x4), allowed 3 (t1, flair, t1ce)",
    ),
    (
        "one volume",
        lambda p: stack(p, channels=1),
        "found one volume and no sequence in the name (files: case.nii.gz, good.nii",
    ),
    ("black", lambda p: save(p, np.zeros((6, 5, 4, 3), np.uint8), np.eye(4)), "found an all-black volume"),
    ("constant", lambda p: save(p, np.full((6, 5, 4, 3), 7, np.uint8), np.eye(4)), "found a constant volume"),
    ("truncated", lambda p: truncate(stack(p)), "found "),
    ("text", lambda p: p.write_text("hello"), "found not a NIfTI file, or a truncated one, allowed a readable NIfTI"),
    ("empty", lambda p: p.write_bytes(b""), "found not a NIfTI file, or a truncated one, allowed a readable NIfTI"),
    ("complex", lambda p: save(p, np.ones((6, 5, 4, 3), np.complex64), np.eye(4)), "found voxels of type complex64"),
]


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in NIFTI], ids=[case[0] for case in NIFTI])
def test_nifti_stacks(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    write_stack(tmp_path / "good.nii.gz", random_patient()[0])
    spoil(tmp_path / "case.nii.gz")
    (error,) = errors_of(tmp_path, "ignore")
    assert str(error).startswith(f"{tmp_path}/case.nii.gz: {message}")
    assert error.patient == "case"


def test_truncated_uncompressed_nifti(tmp_path: Path) -> None:
    truncate(stack(tmp_path / "case.nii"))
    (error,) = errors_of(tmp_path, "ignore")
    assert str(error).startswith(f"{tmp_path}/case.nii: found a truncated or damaged NIfTI file")


def test_a_flat_affine(tmp_path: Path) -> None:
    nifti = nibabel.load(stack(tmp_path / "case.nii"))
    nifti.header["srow_x"] = nifti.header["srow_y"]
    nifti.header["sform_code"] = 1
    nibabel.Nifti1Image(np.asarray(nifti.dataobj), None, nifti.header).to_filename(tmp_path / "case.nii")
    (error,) = errors_of(tmp_path, "ignore")
    assert "found an affine that is not invertible" in str(error)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    image, mask = random_patient()
    return write_sequences(tmp_path / "p1", image, mask, "RAS")


def test_nifti_masks(sequences: Path) -> None:
    _, mask = random_patient()
    seg = sequences / "p1_seg.nii.gz"
    for spoil, message in (
        (lambda: save(seg, *store(mask[1:], "RAS")), "found a mask of 5x5x4, allowed 5x6x4 as the image"),
        (lambda: save(seg, *store(mask * np.float32(0.5), "RAS")), "found values such as 0.5 in the mask"),
        (lambda: save(seg, *store(-mask.astype(np.int8), "RAS")), "found values such as -1 in the mask"),
        (lambda: save(seg, *store(mask, "RAS", shifted(9))), "found a mask elsewhere in space"),
    ):
        spoil()
        (error,) = errors_of(sequences)
        assert str(error).startswith(f"{seg}: {message}")
    save(seg, *store(mask * 4, "LPS"))
    np.testing.assert_array_equal(load_study(study_from_path(sequences, masks="required")).mask, mask)
    seg.rename(sequences / "p1-label.nii.gz")
    assert errors_of(sequences) == []
    shutil.copy(sequences / "p1-label.nii.gz", seg)
    (error,) = errors_of(sequences)
    assert str(error).startswith(f"{seg}: found a second mask (also p1-label.nii.gz)")
    for path in (seg, sequences / "p1-label.nii.gz"):
        path.unlink()
    (error,) = errors_of(sequences)
    assert "p1_flair.nii.gz: found no mask for the images, allowed NAME_mask.nii.gz" in str(error)


def shifted(millimetres: float) -> np.ndarray:
    affine = PLS_AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


def test_a_mask_without_orientation_is_paired_as_stored(sequences: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, mask = random_patient()
    save(sequences / "p1_seg.nii.gz", store(mask, "RAS")[0], np.eye(4))
    np.testing.assert_array_equal(load_study(study_from_path(sequences, masks="required")).mask, mask)
    assert "only one of it and p1_flair.nii.gz has an orientation, paired as stored" in capsys.readouterr().err


def test_nifti_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = random_patient()
    write_sequences(tmp_path / "good1", image, mask)
    shutil.copy(
        write_sequences(tmp_path / "twice1", image, mask) / "twice1_t1.nii.gz",
        tmp_path / "twice1" / "twice1_t1n.nii.gz",
    )
    write_sequences(tmp_path / "noflair1", image[[0, 2]], mask, names=("t1", "t1ce"))
    write_sequences(tmp_path / "typo1", image, mask, names=("t1", "flair", "t1cee"))
    write_sequences(tmp_path / "unknown1", image, mask, names=("adc", "dwi", "pd"))
    elsewhere = write_sequences(tmp_path / "elsewhere1", image, mask)
    save(elsewhere / "elsewhere1_t1.nii.gz", *store(image[0], "PLS", shifted(500)))
    unplaced = write_sequences(tmp_path / "unplaced1", image, mask)
    save(unplaced / "unplaced1_t1.nii.gz", image[0][1:], np.eye(4))
    damaged = write_sequences(tmp_path / "damaged1", image, mask)
    truncate(damaged / "damaged1_t1.nii.gz")
    found: dict[str, str] = {}
    for error in errors_of(tmp_path):
        found[error.patient] = str(error)
    assert sorted(found) == [
        "damaged1", "elsewhere1", "noflair1", "twice1", "typo1", "unknown1", "unplaced1",
    ]  # fmt: skip
    assert "twice1_t1n.nii.gz: found a second t1 file (also twice1_t1.nii.gz)" in found["twice1"]
    assert "found no flair (only t1, t1ce), allowed a flair file in every study" in found["noflair1"]
    assert "typo1_t1cee.nii.gz: found no t1ce, but unknown sequences (typo1_t1cee.nii.gz)" in found["typo1"]
    assert (
        "unknown1_adc.nii.gz: found one volume and no sequence in the name (files: unknown1_adc.nii.gz, unk"
        in (found["unknown1"])
    )
    assert "elsewhere1_t1.nii.gz: found a volume elsewhere in space" in found["elsewhere1"]
    assert "unplaced1_t1.nii.gz: found 5x5x4 voxels and no orientation in one of the files" in found["unplaced1"]
    assert "damaged1_t1.nii.gz: found not a NIfTI file, or a truncated one" in found["damaged1"]
    # What nobody asks for does not matter.
    save(tmp_path / "good1" / "brainmask.nii.gz", *store(mask, "PLS"))
    save(tmp_path / "good1" / "good1_brain_mask.nii.gz", *store(mask, "PLS"))
    (tmp_path / "good1" / "good1_t2.nii.gz").write_text("damaged, but not needed")
    capsys.readouterr()
    assert errors_of(tmp_path / "good1") == []
    notes = capsys.readouterr().err
    assert "brainmask.nii.gz: a mask or a map by its name, left alone" in notes
    assert "good1_brain_mask.nii.gz: belongs to no images by its name, left alone" in notes


def test_one_error_for_a_study_with_other_files_beside_it(sequences: Path) -> None:
    (sequences / "p1_seg.nii.gz").rename(sequences / "OTMultiClass.nii.gz")
    shutil.copy(sequences / "OTMultiClass.nii.gz", sequences / "brainmask.nii.gz")
    (error,) = errors_of(sequences)
    assert "p1_flair.nii.gz: found no mask for the images" in str(error)


def test_a_t2_cannot_be_made_up(sequences: Path) -> None:
    study = study_from_path(sequences)
    with pytest.raises(PatientError, match=r"p1: found no t2 \(only t1, t1ce, flair\), allowed t1, t1ce, t2, flair"):
        load_study(study, channel_order=("t1", "t1ce", "t2", "flair"))


def test_flat_folder_with_a_mask_too_many(tmp_path: Path) -> None:
    image, mask = random_patient()
    for name in ("a", "b"):
        write_stack(tmp_path / f"{name}.nii.gz", image)
        save(tmp_path / f"{name}_mask.nii.gz", mask, np.eye(4))
    shutil.copy(tmp_path / "b_mask.nii.gz", tmp_path / "c_mask.nii.gz")
    save(tmp_path / "d" / "d_seg.nii.gz", mask, np.eye(4))
    (tmp_path / "b_mask.nii.gz").unlink()
    assert sorted(str(error).replace(str(tmp_path), "") for error in errors_of(tmp_path)) == [
        "/b.nii.gz: found no mask for the images, allowed NAME_mask.nii.gz, NAME_seg.nii.gz or NAME_label.nii.gz",
        "/c_mask.nii.gz: found a mask without its images, allowed images of the same name beside it",
        "/d/d_seg.nii.gz: found a mask without its images, allowed images of the same name beside it",
    ]
    assert errors_of(tmp_path, "ignore") == []


def test_nnunet(tmp_path: Path) -> None:
    image, mask = random_patient()
    for case in ("a", "b", "c", "d"):
        write_nnunet(tmp_path, image, mask, case)
    (tmp_path / "imagesTr" / "a_0001.nii.gz").unlink()
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    for path in (tmp_path / "imagesTr").glob("c_*"):
        path.unlink()
    errors = {error.patient: str(error) for error in errors_of(tmp_path)}
    assert sorted(errors) == ["a", "b", "c"]
    assert (
        "a_0000.nii.gz: found channels 0000, 0002 of case a, allowed 0000 to 0002 (t1, flair, t1ce in dataset.json)"
        in (errors["a"])
    )
    assert f"b_0000.nii.gz: found no mask for the case, allowed {tmp_path}/labelsTr/b.nii.gz" in errors["b"]
    assert "c.nii.gz: found a mask without its images, allowed imagesTr/c_0000.nii.gz" in errors["c"]
    assert sorted(error.patient for error in errors_of(tmp_path, "ignore")) == ["a"]
    for text, message in (
        ('{"channel_names": {"0": "CT"}}', "found channels CT, allowed each a sequence"),
        ('{"channel_names": {"0": "T1", "1": "T2"}}', "found no flair (only t1, t2)"),
        ('{"channel_names": ["T1"]}', "found channel_names ['T1'], allowed channel_names such as"),
        (
            '{"channel_names": {"0": "FLAIR"}, "file_ending": ".mha"}',
            "found file_ending '.mha', allowed .nii.gz or .nii",
        ),
        ("{", "found no readable JSON"),
    ):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(InputError) as caught:
            find_studies(tmp_path)
        assert str(caught.value).startswith(f"{tmp_path}/dataset.json: {message}")


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for path, message in (
        (tmp_path / "absent", "found no such folder, allowed patients' folders of numbered PNG or TIFF slices"),
        (tmp_path / "empty", "found no studies in the folder"),
        (tmp_path / "file.txt", "found a file, allowed a folder"),
    ):
        with pytest.raises(InputError) as caught:
            find_studies(path)
        assert str(caught.value).startswith(f"{path}: {message}")

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        InputError, match=r"empty: found an unreadable folder \(Permission denied\), allowed a readable"
    ):
        find_studies(tmp_path / "empty")


def test_an_unreadable_patient_among_others(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "p":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (error,) = errors_of(data)
    assert (error.patient, str(error)) == (
        "p", f"{data}/p: found an unreadable folder (Permission denied), allowed a readable folder"
    )  # fmt: skip


def test_unreadable_files(data: Path, sequences: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    for path, folder in ((data / "p" / "p_2.tif", data), (sequences / "p1_t1.nii.gz", sequences)):
        path.chmod(0)
        (error,) = errors_of(folder)
        assert str(error).startswith(f"{path}: found an unreadable file (Permission denied)")


def test_one_patient_in_two_folders(tmp_path: Path) -> None:
    for site in ("a", "b"):
        write_slices(tmp_path / site / "p", *random_patient())
    (error,) = errors_of(tmp_path)
    assert str(error) == f"{tmp_path}/b/p: found patient p again (also in {tmp_path}/a/p), allowed each patient once"


def test_single_paths(tmp_path: Path, data: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    for path, message in (
        (tmp_path / "no.nii", "found no such file or folder"),
        (tmp_path / "x.txt", "found a file of type .txt"),
        (data, "found 2 studies, allowed one study"),
    ):
        with pytest.raises(InputError) as caught:
            study_from_path(path)
        assert str(caught.value).startswith(f"{path}: {message}")
    assert study_from_path(data / "p" / "p_2.tif").patient == "p"
    folder = write_sequences(tmp_path / "s1", *random_patient())
    assert study_from_path(str(folder / "s1_t1ce.nii.gz")).sequences == ("t1", "t1ce", "flair")
    write_stack(tmp_path / "flat" / "post_7.nii.gz", random_patient()[0])
    save(tmp_path / "flat" / "post_7_mask.nii.gz", random_patient()[1], np.eye(4))
    study = study_from_path(tmp_path / "flat" / "post_7.nii.gz", masks="optional")
    assert (study.patient, study.layout, len(study.masks)) == ("post_7", "nifti-stack", 1)
    assert ORDER == ("t1", "flair", "t1ce")


def test_unknown_options(data: Path) -> None:
    with pytest.raises(InputError, match="masks: found 'maybe', allowed required or optional or ignore"):
        find_studies(data, masks="maybe")
    with pytest.raises(InputError, match="sequence name: found 'adc'"):
        find_studies(data, channel_order=("adc",))


def test_errors_travel_between_processes() -> None:
    error = PatientError("p/1.tif", "x", "y", "p")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.patient) == (PatientError, "p/1.tif: found x, allowed y", "p")
