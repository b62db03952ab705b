"""DICOM series: what they hold, where they lie, what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from brats_files import AFFINE, FOUR, patient, write_dicom
from dicom_files import write_series

from medseg_ext.errors import InputError
from medseg_ext.layouts import BRATS_RULES, PatientError, dicom, find_studies, load_aligned, study_from_path
from medseg_ext.layouts.dicom import read_series, sequence_of_series

IMAGE, _ = patient()


@pytest.mark.parametrize(
    ("folder", "description", "expected"),
    [
        ("", "AX T1 POST GAD", "t1ce"),
        ("", "Ax T1 FSE +C", "t1ce"),
        ("", "T1 axial post", "t1ce"),
        ("", "t1_mprage_sag_KM", "t1ce"),
        ("", "T1W/SE without contrast", "t1"),
        ("", "AX T1 PRE", "t1"),
        ("", "t1_mprage_tra_p2_iso", "t1"),
        ("", "AX T2 FLAIR", "flair"),
        ("", "eFLAIR_longTR", None),
        ("", "AX FLAIR", "flair"),
        ("", "t2_tse_tra", "t2"),
        ("", "AX T2* GRE", None),
        ("", "t2_star_tra", None),
        ("", "ep2d_diff_3scan_trace_T2", None),
        ("", "T1 FLAIR", None),
        ("", "T1 pre and post", None),
        ("", "localizer", None),
        ("FLAIR", "", "flair"),
        ("3-AX T1", "AX T1 SE", "t1"),
        ("T1", "AX T1 POST", None),
        ("1.000000-AX T1 POST GAD-12345", "", "t1ce"),
    ],
)
def test_what_a_series_holds(folder: str, description: str, expected: str | None) -> None:
    assert sequence_of_series(folder, description) == expected


def rotated() -> np.ndarray:
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    return turn @ AFFINE @ np.diag([0.8, 0.9, 3, 1])


@pytest.mark.parametrize("affine", [AFFINE, rotated()], ids=["axial", "oblique"])
def test_voxels_and_places(tmp_path: Path, affine: np.ndarray) -> None:
    paths = write_series(tmp_path, IMAGE[0], affine, description="T1", series="1.2.3.4")
    for path in (paths[0], paths[-1]):
        volume = read_series(path)
        # DICOM's first axis is that along which columns rise
        np.testing.assert_array_equal(volume.data.transpose(1, 0, 2), IMAGE[0])
        np.testing.assert_allclose(volume.affine[:, [1, 0, 2, 3]], affine, atol=1e-4)


def test_slices_in_any_order(tmp_path: Path) -> None:
    """Slices stored from the top downwards are the same volume."""
    down = AFFINE @ np.diag([1, 1, -1, 1])
    down[:3, 3] = (AFFINE @ [0, 0, IMAGE.shape[3] - 1, 1])[:3]
    paths = write_series(tmp_path, IMAGE[0][:, :, ::-1], down, description="T1", series="1.2.3.4")
    volume = read_series(paths[0])
    np.testing.assert_array_equal(volume.data.transpose(1, 0, 2), IMAGE[0])
    np.testing.assert_allclose(volume.affine[:, [1, 0, 2, 3]], AFFINE, atol=1e-4)


def test_a_shared_folder_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, description in enumerate(("T1", "T1 Gd", "T2", "FLAIR")):
        series = f"1.2.3.{i + 1}"
        write_series(tmp_path / "p1", IMAGE[i], AFFINE, description=description, series=series, prefix=f"{i}_")
    (study,), _ = find_studies(tmp_path, rules=BRATS_RULES)
    looked: list[Path] = []
    look = dicom.list_series
    monkeypatch.setattr(dicom, "list_series", lambda folder, files: looked.append(folder) or look(folder, files))
    loaded = load_aligned(study)
    assert looked == [tmp_path / "p1"]
    assert loaded.present.all()


def test_slices_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_series(tmp_path / "flat", IMAGE[0], AFFINE, description="T1", series="1.2.3.4")
    place = dicom._placement
    monkeypatch.setattr(dicom, "_placement", lambda *given: (np.full((4, 4), np.nan), place(*given)[1]))
    with pytest.raises(InputError, match="flat: found slices without a place in space"):
        read_series(paths[0])
    monkeypatch.setattr(dicom, "MAX_VOXELS", 10)
    with pytest.raises(InputError, match=r"flat: found a series of .*, allowed at most 10 voxels"):
        read_series(paths[0])


def test_all_series_in_one_folder(tmp_path: Path) -> None:
    for i, description in enumerate(("T1", "T1 Gd", "T2", "FLAIR", "localizer")):
        series = f"1.2.3.{i + 1}"
        write_series(tmp_path / "p1", IMAGE[i % 4], AFFINE, description=description, series=series, prefix=f"{i}_")
    (study,), errors = find_studies(tmp_path, rules=BRATS_RULES)
    assert not errors
    assert study.patient == "p1"
    np.testing.assert_array_equal(load_aligned(study).image, IMAGE)


def test_patients_side_by_side(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_dicom(tmp_path / name, IMAGE)
    (tmp_path / "p1" / "DICOMDIR").write_bytes(b"")
    studies, errors = find_studies(tmp_path, rules=BRATS_RULES)
    assert ([study.patient for study in studies], errors) == (["p1", "p2"], [])
    assert study_from_path(tmp_path / "p1", rules=BRATS_RULES).patient == "p1"


def write_named(folder: Path, **patients: str) -> None:
    """A study whose series lie in folders named after their sequences."""
    for i, (name, patient_id) in enumerate(patients.items()):
        write_series(folder / name, IMAGE[i], AFFINE, description="", series=f"1.2.3.{i + 1}", patient=patient_id)


def test_series_of_another_patient(tmp_path: Path) -> None:
    """Each alone would pass for a study without the other sequences."""
    write_named(tmp_path / "good", t1="A", t1ce="A")
    write_named(tmp_path / "mixed", t1="A", t1ce="A", t2="B")
    studies, errors = find_studies(tmp_path, rules=BRATS_RULES)
    assert [study.patient for study in studies] == ["good"]
    assert [(str(error), error.patient) for error in errors if isinstance(error, PatientError)] == [
        (
            f"{tmp_path}/mixed: found series of 2 patients (t1, t1ce, t2), allowed one patient's, by the Patient ID",
            "mixed",
        )
    ]


def test_two_series_in_the_folder_of_one_sequence(tmp_path: Path) -> None:
    write_named(tmp_path / "p1", t1="A", t2="A")
    again = {"description": "again", "series": "1.2.3.9", "prefix": "x", "patient": "A"}
    write_series(tmp_path / "p1" / "t1", IMAGE[2], AFFINE, **again)
    studies, (error,) = find_studies(tmp_path, rules=BRATS_RULES)
    assert not studies
    assert f"{tmp_path}/p1/t1: found 2 series in the folder of one sequence (" in str(error)
    assert isinstance(error, PatientError)
    assert error.patient == "p1"


def errors_of(root: Path) -> list[InputError]:
    studies, errors = find_studies(root, rules=BRATS_RULES)
    for study in studies:
        try:
            load_aligned(study)
        except PatientError as error:
            errors.append(error)
    return errors


def test_a_missing_slice(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "p1", IMAGE, affine=AFFINE @ np.diag([1, 1, 3, 1]))
    (folder / "4" / "IM0004.dcm").unlink()
    (error,) = errors_of(tmp_path)
    assert "4: found a gap of 6 mm between IM0005.dcm and IM0003.dcm where slices are 3 mm apart" in str(error)


def test_doubled_slices(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "p1", IMAGE)
    (folder / "4" / "again.dcm").write_bytes((folder / "4" / "IM0004.dcm").read_bytes())
    (error,) = errors_of(tmp_path)
    assert "4: found two slices at one place (" in str(error)


def test_a_colour_image(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", IMAGE[0], AFFINE, description="T1", series="1.2.3.1", patient="A")
    colour = np.repeat(IMAGE[1][..., None], 3, axis=-1)
    write_series(tmp_path / "p2", colour, AFFINE, description="T1", series="1.2.3.2", patient="B")
    (error,) = errors_of(tmp_path)
    assert "found a colour image, allowed a grey one" in str(error)


@pytest.mark.parametrize("part", [0.2, 0.9])
def test_a_damaged_slice(tmp_path: Path, part: float) -> None:
    path = write_dicom(tmp_path / "p1", IMAGE) / "5" / "IM0001.dcm"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    (error,) = errors_of(tmp_path)
    assert f"{path}: found a damaged DICOM file, allowed a readable DICOM slice" in str(error)
    assert isinstance(error, PatientError)
    assert error.patient == "p1"
    assert not find_studies(tmp_path, rules=BRATS_RULES)[0]


def test_series_that_cannot_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = FOUR[:3]
    folder = write_dicom(tmp_path / "p1", IMAGE[:3], names)
    write_series(folder / "9", IMAGE[3], AFFINE, description="dark fluid", series="1.2.3.9")
    (error,) = errors_of(tmp_path)
    assert "p1: found no flair, but series of unknown sequences (9: dark fluid), allowed a folder or series" in str(
        error
    )
    write_series(folder / "10", IMAGE[3], AFFINE, description="FLAIR", series="1.2.3.10")
    assert errors_of(tmp_path) == []
    assert "9: series 'dark fluid' is none of the sequences, left alone" in capsys.readouterr().err
    write_series(folder / "11", IMAGE[3], AFFINE, description="FLAIR 2", series="1.2.3.11")
    (error,) = errors_of(tmp_path)
    assert "11: found a second flair series (11: FLAIR 2; also 10: FLAIR), allowed one a sequence" in str(error)


def test_nothing_that_can_be_told(tmp_path: Path) -> None:
    write_series(tmp_path / "p1" / "1", IMAGE[0], AFFINE, description="MPR", series="1.2.3.1")
    write_series(tmp_path / "p1" / "2", IMAGE[0], AFFINE, description="PD", series="1.2.3.2")
    (error,) = errors_of(tmp_path)
    assert "found no series with a known sequence (1: MPR; 2: PD)" in str(error)


def test_slices_of_two_sizes(tmp_path: Path) -> None:
    write_series(tmp_path / "p1" / "FLAIR", IMAGE[0], AFFINE, description="FLAIR", series="1.2.3.1")
    above = AFFINE.copy()
    above[2, 3] += IMAGE.shape[3]
    part = IMAGE[0][1:]
    write_series(tmp_path / "p1" / "FLAIR", part, above, description="FLAIR", series="1.2.3.1", prefix="B")
    (error,) = errors_of(tmp_path)
    assert "FLAIR: found slices of 7x7 and 7x8, allowed one size in a series" in str(error)


def test_without_the_rule_dicom_is_no_data(tmp_path: Path) -> None:
    write_dicom(tmp_path / "p1", IMAGE)
    studies, errors = find_studies(tmp_path)
    assert not studies
    assert all("no slices or volumes (only .dcm)" in str(error) for error in errors)
