"""One patient gives one array, whichever layout it came in, and its mask goes back the way it came."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from study_files import (
    ORDER,
    PLS_AFFINE,
    random_patient,
    save,
    store,
    write_grey_slices,
    write_nnunet,
    write_sequences,
    write_slices,
    write_stack,
)

from medseg_ext.layouts import find_studies, load_study, study_from_path, write_mask

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]


def rotated(degrees: float = 20) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle / 2), -np.sin(angle / 2)], [np.sin(angle / 2), np.cos(angle / 2)]]
    return turn @ tilt @ PLS_AFFINE


def writers(bits: int):
    yield "slices-tif", lambda root, image, mask: write_slices(root / "p1", image, mask, ".tif", first=0, stem="s")
    yield "slices-png", lambda root, image, mask: write_slices(root / "p1", image, mask, ".png", first=7)
    yield "slices-grey", lambda root, image, mask: write_grey_slices(root / "p1", image)
    yield "stack-eye", lambda root, image, mask: write_stack(root / "p1.nii.gz", image)
    yield "stack-spacing", lambda root, image, mask: write_stack(root / "p1.nii", image, np.diag([0.9, 0.9, 5, 1.0]))
    yield "stack-uncoded", lambda root, image, mask: save_uncoded(root / "p1.nii.gz", image)
    yield "stack-RAS", lambda root, image, mask: write_stack(root / "p1.nii.gz", image, axcodes="RAS")
    yield (
        "stack-5d",
        lambda root, image, mask: save(root / "p1.nii.gz", np.moveaxis(image, 0, -1)[:, :, :, None], np.eye(4)),
    )
    yield "stack-first", lambda root, image, mask: save(root / "p1.nii.gz", image, np.eye(4))
    for axcodes in ("PLS", "RAS", "LPS", "SAR"):
        yield f"nifti-{axcodes}", lambda root, image, mask, a=axcodes: write_sequences(root / "p1", image, mask, a)
    yield "nifti-oblique", lambda root, image, mask: write_sequences(root / "p1", image, mask, "LPI", affine=rotated())
    yield "nnunet", lambda root, image, mask: write_nnunet(root / "Dataset001", image, mask, "p1")
    if bits == 8:
        yield "kaggle", lambda root, image, mask: write_slices(root / "kaggle_3m" / "p1", image, mask)


def save_uncoded(path: Path, image: np.ndarray) -> None:
    """No code for either form: nibabel then invents an affine that flips the first axis."""
    nifti = nibabel.Nifti1Image(np.moveaxis(image, 0, -1), None)
    assert nifti.header["sform_code"] == nifti.header["qform_code"] == 0
    nibabel.save(nifti, path)
    assert nibabel.load(path).affine[0, 0] < 0


@pytest.mark.parametrize("bits", [8, 16])
def test_the_array_is_the_same_in_every_layout_and_orientation(tmp_path: Path, bits: int) -> None:
    image, mask = random_patient(bits=bits)
    for name, write in writers(bits):
        root = tmp_path / name
        root.mkdir()
        write(root, image, mask)
        studies, errors = find_studies(root)
        assert not errors, name
        loaded = load_study(studies[0])
        assert (loaded.study.patient, loaded.image.dtype, loaded.image.shape) == ("p1", np.float32, image.shape), name
        np.testing.assert_array_equal(loaded.image, image, err_msg=name)
        assert (name.split("-")[0] == "stack" or name == "slices-grey") == (loaded.mask is None), name
        if loaded.mask is not None:
            assert loaded.mask.dtype == np.uint8
            np.testing.assert_array_equal(loaded.mask, mask, err_msg=name)


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    image, mask = random_patient()
    expected = {"kaggle": "kaggle", "stack-eye": "nifti-stack", "nifti-RAS": "nifti", "nnunet": "nnunet"}
    for name, write in writers(8):
        (tmp_path / name).mkdir()
        write(tmp_path / name, image, mask)
        layout = expected.get(name) or {"stack": "nifti-stack"}.get(name.split("-")[0], name.split("-")[0])
        assert [study.layout for study in find_studies(tmp_path / name)[0]] == [layout], name


def test_channels_come_in_the_order_asked_for(tmp_path: Path) -> None:
    image, _ = random_patient()
    write_stack(tmp_path / "p1.nii.gz", image)
    study = study_from_path(tmp_path / "p1.nii.gz")
    loaded = load_study(study, channel_order=("flair", "t1ce"), nifti_channel_order=("T1Gd", "t2f", "t1n"))
    np.testing.assert_array_equal(loaded.image, image[[1, 0]])


def test_spacing_and_affine(tmp_path: Path) -> None:
    image, mask = random_patient()
    assert load_study(study_from_path(write_slices(tmp_path / "a", image, mask))).spacing is None
    loaded = load_study(study_from_path(write_sequences(tmp_path / "b", image, mask, "RSA")))
    assert loaded.spacing == pytest.approx((0.8, 0.9, 5.0))
    np.testing.assert_allclose(loaded.affine, PLS_AFFINE, atol=1e-5)
    loaded = load_study(study_from_path(write_stack(tmp_path / "c.nii", image, np.diag([0.7, 0.6, 4, 1.0]))))
    assert loaded.spacing == pytest.approx((0.7, 0.6, 4.0))


def world(mask: np.ndarray, affine: np.ndarray) -> set[tuple[float, ...]]:
    """Positions in mm of a mask's voxels: brute force, by definition of the affine."""
    return {tuple(np.round(affine @ (*index, 1), 3)[:3] + 0.0) for index in np.argwhere(mask)}


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_a_written_mask_lies_where_it_did(tmp_path: Path, axcodes: str) -> None:
    assert len(set(ORIENTATIONS)) == 48
    image, mask = random_patient()
    folder = write_sequences(tmp_path / "in" / "p1", image, mask, axcodes)
    loaded = load_study(study_from_path(folder, masks="required"))
    np.testing.assert_array_equal(loaded.mask, mask)
    (path,) = write_mask(loaded, loaded.mask, tmp_path / "out")
    written, given_mask = nibabel.load(path), nibabel.load(folder / "p1_seg.nii.gz")
    assert path == tmp_path / "out" / "p1_mask.nii.gz"
    assert nibabel.aff2axcodes(written.affine) == tuple(axcodes)
    np.testing.assert_array_equal(written.dataobj, given_mask.dataobj)
    np.testing.assert_array_equal(written.affine, given_mask.affine)
    assert world(np.asarray(written.dataobj), written.affine) == world(mask, PLS_AFFINE)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    axcodes=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 5)] * 3).filter(lambda shape: np.prod(shape) > 1),
    angles=st.tuples(*[st.floats(-35, 35)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    shift=st.tuples(*[st.floats(-200, 200)] * 3),
    seed=st.integers(0, 9),
)
def test_round_trip_of_any_rigid_geometry(tmp_path: Path, axcodes, shape, angles, spacing, shift, seed) -> None:
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    base = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 1.0]])
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ base @ np.diag(spacing)
    affine[:3, 3] = shift
    image, mask = random_patient(seed, shape=shape)
    image[1].flat[0], image[1].flat[-1] = 0, 9
    folder = write_sequences(tmp_path / "in" / "p1", image, mask, axcodes, affine=affine)
    loaded = load_study(study_from_path(folder, masks="required"))
    (path,) = write_mask(loaded, loaded.mask, tmp_path / "out")
    written, original = nibabel.load(path), nibabel.load(folder / "p1_seg.nii.gz")
    np.testing.assert_array_equal(written.dataobj, original.dataobj)
    np.testing.assert_array_equal(written.affine, original.affine)


def test_codes_units_and_type_of_header_are_kept(tmp_path: Path) -> None:
    image, _ = random_patient(bits=16)
    for codes in ((1, 4), (2, 0), (0, 1), (0, 0)):
        data, affine = store(np.moveaxis(image, 0, -1), "RAS")
        nifti = nibabel.Nifti2Image(data.astype(np.int16), affine)
        nifti.set_sform(affine, codes[0])
        nifti.set_qform(affine, codes[1])
        nifti.header.set_xyzt_units("mm", "sec")
        nifti.header["scl_slope"], nifti.header["scl_inter"] = 0.5, -3
        nibabel.save(nifti, tmp_path / "p.nii")
        loaded = load_study(study_from_path(tmp_path / "p.nii"))
        (path,) = write_mask(loaded, np.ones(loaded.image.shape[1:], bool), tmp_path / "out")
        written, source = nibabel.load(path), nibabel.load(tmp_path / "p.nii")
        assert path.name == "p_mask.nii"
        assert isinstance(written, nibabel.Nifti2Image)
        assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == codes
        assert written.header.get_xyzt_units()[0] == "mm"
        assert written.get_data_dtype() == np.uint8
        assert written.shape == data.shape[:3]
        assert np.asarray(written.dataobj).min() == 1
        np.testing.assert_array_equal(written.affine, source.affine)
        np.testing.assert_array_equal(written.header.get_qform(), source.header.get_qform())


def test_masks_of_slices_keep_names_and_format(tmp_path: Path) -> None:
    image, mask = random_patient()
    cases = {
        write_slices(tmp_path / "in" / "a", image, None): [
            "a_1_mask.tif",
            "a_2_mask.tif",
            "a_3_mask.tif",
            "a_4_mask.tif",
        ],
        write_slices(tmp_path / "in" / "b", image, None, ".png", 9, "x-"): [
            f"x-_{i}_mask.png" for i in (9, 10, 11, 12)
        ],
        write_grey_slices(tmp_path / "in" / "T1_c", image): [f"T1_c_{i}_mask.png" for i in range(4)],
    }
    for folder, names in cases.items():
        study = study_from_path(folder)
        paths = write_mask(study, mask.astype(bool), tmp_path / "out")
        assert [path.relative_to(tmp_path / "out" / folder.name).name for path in paths] == names
        for i, path in enumerate(paths):
            with Image.open(path) as picture:
                assert (picture.mode, picture.format) == ("L", "PNG" if path.suffix == ".png" else "TIFF")
                np.testing.assert_array_equal(np.asarray(picture), mask[..., i] * 255)


def test_masks_of_nnunet_and_channels_first(tmp_path: Path) -> None:
    image, mask = random_patient()
    loaded = load_study(find_studies(write_nnunet(tmp_path / "in", image, mask))[0][0])
    assert write_mask(loaded, mask, tmp_path / "out") == [tmp_path / "out" / "case_001.nii.gz"]
    written = nibabel.load(tmp_path / "out" / "case_001.nii.gz")
    np.testing.assert_array_equal(written.dataobj, nibabel.load(tmp_path / "in/labelsTr/case_001.nii.gz").dataobj)
    loaded = load_study(study_from_path(save(tmp_path / "f.nii", image, np.eye(4))))
    (path,) = write_mask(loaded, mask, tmp_path / "out")
    np.testing.assert_array_equal(nibabel.load(path).dataobj, mask)


def test_decathlon_stacks_and_old_names(tmp_path: Path) -> None:
    image, mask = random_patient()
    write_stack(tmp_path / "imagesTr" / "BRATS_0001.nii.gz", image, axcodes="RAS")
    save(tmp_path / "labelsTr" / "BRATS_0001.nii.gz", *store(mask * 3, "RAS"))
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "T1w", "1": "FLAIR", "2": "t1gd"}}))
    loaded = load_study(find_studies(tmp_path, masks="required")[0][0])
    assert (loaded.study.patient, loaded.study.layout) == ("BRATS_0001", "nnunet")
    np.testing.assert_array_equal(loaded.image, image)
    np.testing.assert_array_equal(loaded.mask, mask)


def test_nnunet_without_names_goes_by_the_order_given(tmp_path: Path) -> None:
    image, mask = random_patient()
    write_nnunet(tmp_path, image, mask)
    (tmp_path / "dataset.json").unlink()
    for folder in (tmp_path, tmp_path / "imagesTr"):
        loaded = load_study(find_studies(folder)[0][0], nifti_channel_order=("t1ce", "flair", "t1"))
        np.testing.assert_array_equal(loaded.image, image[::-1])
    flat = tmp_path / "imagesTr"
    flat = flat.rename(tmp_path / "flat")
    assert [s.layout for s in find_studies(flat)[0]] == ["nnunet"]


def test_other_storage_of_a_sequence_and_another_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = random_patient(shape=(8, 7, 6))
    folder = write_sequences(tmp_path / "p1", image, mask, "LPS")
    save(folder / "p1_t1.nii.gz", *store(image[0], "SAR"))
    np.testing.assert_array_equal(load_study(study_from_path(folder)).image, image)
    assert "resampled" not in capsys.readouterr().err
    # A ramp along the rows on a grid of twice the spacing: linear interpolation restores it exactly.
    ramp = np.broadcast_to(np.arange(8.0, dtype=np.float32)[:, None, None], (8, 7, 6))
    coarse = PLS_AFFINE @ np.diag([7.0, 1, 1, 1])
    save(folder / "p1_t1.nii.gz", *store(ramp[::7], "PLS", coarse))
    loaded = load_study(study_from_path(folder))
    np.testing.assert_allclose(loaded.image[0], ramp, atol=1e-4)
    assert "p1_t1.nii.gz: another grid than p1_flair.nii.gz, resampled" in capsys.readouterr().err


def test_missing_contrast_is_a_copy_of_flair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, _ = random_patient()
    for folder in (
        write_sequences(tmp_path / "n1", image[:2], names=("T1", "t2_flair")),
        write_grey_slices(tmp_path / "s1", image[:2], names=("t1w", "FLAIR")),
    ):
        loaded = load_study(study_from_path(folder))
        np.testing.assert_array_equal(loaded.image, image[[0, 1, 1]])
        assert capsys.readouterr().err == (
            f"note: {folder}: no t1ce; a copy of flair takes the place, masks may be worse\n"
        )


def test_one_patient_folder_and_parents_of_kaggle(tmp_path: Path) -> None:
    image, mask = random_patient()
    data = tmp_path / "archive" / "kaggle_3m"
    for name in ("TCGA_CS_0001_19960909", "TCGA_DU_0002_20000101"):
        write_slices(data / name, image, mask)
    (data / "data.csv").write_text("Patient\n")
    (data / "README.md").write_text("LGG\n")
    (data / "TCGA_CS_0001_19960909" / "._TCGA_CS_0001_19960909_1.tif").write_bytes(b"macOS")
    write_slices(tmp_path / "archive" / "lgg-mri-segmentation" / "kaggle_3m" / "TCGA_DU_0002_20000101", image, mask)
    link = tmp_path / "link"
    link.symlink_to(data, target_is_directory=True)
    for folder in (data, data.parent, tmp_path, link):
        studies, errors = find_studies(folder, masks="required")
        found = [study.patient for study in studies]
        assert (found, errors) == (["TCGA_CS_0001_19960909", "TCGA_DU_0002_20000101"], [])
    one = find_studies(data / "TCGA_DU_0002_20000101")[0][0]
    assert one.images[-1].name == "TCGA_DU_0002_20000101_4.tif"
    assert ORDER == ("t1", "flair", "t1ce")


def test_slices_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    image, mask = random_patient(shape=(3, 3, 12))
    loaded = load_study(study_from_path(write_slices(tmp_path / "p", image, mask), masks="required"))
    np.testing.assert_array_equal(loaded.image, image)
    np.testing.assert_array_equal(loaded.mask, mask)


def test_patients_of_nifti_folders_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    image, mask = random_patient()
    names = ("t1", "flair", "t1ce")
    for patient in ("pat1", "pat2"):
        for name, channel in zip(names, image, strict=True):
            save(tmp_path / "plain" / patient / f"{name}.nii.gz", *store(channel, "RAS"))
        save(tmp_path / "plain" / patient / "lesions.nii.gz", *store(mask, "RAS"))
        write_stack(tmp_path / "flat" / f"{patient}.nii.gz", image)
        save(tmp_path / "flat" / f"{patient}_mask.nii.gz", mask, np.eye(4))
        write_sequences(tmp_path / "flat_sequences", image, mask, case=patient)
        write_sequences(tmp_path / "bids" / patient / "anat", image, mask, case=patient)
        write_sequences(tmp_path / "named" / f"{patient}", image, mask, case="scan")
        write_stack(tmp_path / "twins" / patient.replace("pat", "x" * 3) / "scan_4d.nii.gz", image)
    for layout in ("plain", "flat", "flat_sequences", "bids", "named"):
        studies, errors = find_studies(tmp_path / layout, masks="required")
        assert ([study.patient for study in studies], errors) == (["pat1", "pat2"], []), layout
        np.testing.assert_array_equal(load_study(studies[1]).mask, mask)
    assert [study.patient for study in find_studies(tmp_path / "twins")[0]] == ["xxx1", "xxx2"]
