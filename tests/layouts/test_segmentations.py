"""Label maps, segments, probabilities and volumes on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_ext.errors import InputError
from medseg_ext.layouts.labels import CONVENTIONS
from medseg_ext.layouts.segmentations import (
    COLOURS,
    output_stem,
    volumes_ml,
    write_label_map,
    write_probabilities,
    write_slicer_segmentation,
)
from medseg_ext.layouts.study import Study

C, S = np.cos(0.2), np.sin(0.2)
OBLIQUE = np.array([[-0.5 * C, 2 * S, 0, 40], [-0.5 * S, -2 * C, 0, 31], [0, 0, 3, -12], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).choice(np.array([0, 1, 2, 4], np.uint8), (4, 5, 6))


@pytest.fixture
def like(tmp_path: Path) -> Path:
    """A reference image with two forms that differ, a scaling, units and an extension."""
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), OBLIQUE)
    image.set_sform(OBLIQUE, 2)
    image.set_qform(np.diag([0.5, 2, 3, 1]), 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(3, 0)
    image.header["cal_max"] = 700
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"the patient's name"))
    nibabel.save(image, tmp_path / "image.nii")
    return tmp_path / "image.nii"


def test_the_header_is_kept(tmp_path: Path, like: Path) -> None:
    path = write_label_map(tmp_path / "new" / "seg.nii.gz", LABELS, OBLIQUE, like)
    written, before = nibabel.load(path), nibabel.load(like)
    np.testing.assert_array_equal(np.asarray(written.dataobj), LABELS)
    assert written.get_data_dtype() == np.uint8
    for field in ("sform_code", "qform_code", "srow_x", "quatern_b", "qoffset_x", "xyzt_units"):
        np.testing.assert_array_equal(written.header[field], before.header[field], err_msg=field)
    np.testing.assert_array_equal(written.header["pixdim"][:4], before.header["pixdim"][:4])
    np.testing.assert_array_equal(written.affine, before.affine)
    assert written.dataobj.slope == 1
    assert written.header["cal_max"] == 0
    assert not list(written.header.extensions)
    assert [entry.name for entry in path.parent.iterdir()] == ["seg.nii.gz"]


def test_probabilities_are_scaled_back_by_readers(tmp_path: Path, like: Path) -> None:
    probabilities = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    probabilities[0, 0, 0, 0], probabilities[1, 0, 0, 0] = 0, 1
    path = write_probabilities(tmp_path / "p.nii.gz", probabilities, OBLIQUE, like)
    read = nibabel.load(path).get_fdata()
    assert (read.shape, read.min()) == ((4, 5, 6, 3), 0)
    assert 1 - 1e-6 < read.max() <= 1
    np.testing.assert_allclose(np.moveaxis(read, -1, 0), probabilities, atol=0.5 / 255 + 1e-7)


def test_beside_a_dicom_series(tmp_path: Path) -> None:
    written = nibabel.load(write_label_map(tmp_path / "seg.nii.gz", LABELS, OBLIQUE, tmp_path / "series"))
    np.testing.assert_array_equal(np.asarray(written.dataobj), LABELS)
    np.testing.assert_allclose(written.affine, OBLIQUE, atol=1e-6)
    assert (int(written.header["sform_code"]), written.header.get_xyzt_units()[0]) == (1, "mm")


def test_volumes_by_hand() -> None:
    labels = np.array([[0, 1, 1], [2, 2, 2], [4, 0, 0]])
    found = volumes_ml(labels, np.diag([10.0, -10, 5, 1]), "brats2017")  # half a ml a voxel
    assert found["regions_ml"] == {"tc": 1.5, "wt": 3.0, "et": 0.5}
    assert found["labels_ml"] == {"1": 1.0, "2": 1.5, "4": 0.5}
    assert (found["voxel_ml"], found["convention"]) == (0.5, "brats2017")


def test_segments_for_slicer(tmp_path: Path) -> None:
    """Read again by ITK, and the header as text, for that is what Slicer goes by."""
    import itk

    path = write_slicer_segmentation(tmp_path / "p.seg.nrrd", LABELS, OBLIQUE, "brats2017")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.seg.nrrd"]
    image = itk.imread(str(path))
    np.testing.assert_array_equal(itk.array_from_image(image).T, LABELS)
    for voxel in ((0, 0, 0), (3, 1, 5)):
        point = np.array(image.TransformIndexToPhysicalPoint(voxel)) * [-1, -1, 1]
        np.testing.assert_allclose(point, (OBLIQUE @ [*voxel, 1])[:3], atol=1e-6)
    head = path.read_bytes().split(b"\n\n")[0].decode()
    fields = dict(line.split(":=") for line in head.splitlines() if ":=" in line)
    assert [fields[f"Segment{i}_LabelValue"] for i in range(3)] == ["1", "2", "4"]
    assert [fields[f"Segment{i}_Name"] for i in range(3)] == [
        "necrotic and non-enhancing core",
        "edema",
        "enhancing tumour",
    ]
    assert len({fields[f"Segment{i}_Color"] for i in range(3)}) == 3
    assert {fields[f"Segment{i}_Extent"] for i in range(3)} == {"0 3 0 4 0 5"}
    assert fields["Segmentation_SourceRepresentation"] == "Binary labelmap"
    assert "space: left-posterior-superior" in head


def test_every_tissue_has_a_colour() -> None:
    assert {tissue for convention in CONVENTIONS.values() for tissue in convention.tissues.values()} <= COLOURS.keys()


def study(layout: str, *names: str) -> Study:
    return Study(patient="case", layout=layout, folder=Path("x"), images=tuple(Path("x") / name for name in names))


def test_names() -> None:
    assert output_stem(study("nifti", "case_t1.nii.gz", "case_t1ce.nii.gz")) == "case_seg"
    assert output_stem(study("nifti", "case-t1n.nii.gz", "case-t1c.nii.gz")) == "case-seg"
    assert output_stem(study("nnunet", "case_0000.nii.gz")) == "case"
    assert output_stem(study("nifti-stack", "case.nii.gz")) == "case_seg"
    assert output_stem(study("dicom", "IM0001")) == "case_seg"


@pytest.mark.parametrize("kind", ["labels", "probabilities", "slicer"])
def test_what_cannot_be_written(tmp_path: Path, like: Path, kind: str) -> None:
    (tmp_path / "out").write_text("a file")
    place = tmp_path / "out" / "p.seg.nrrd" if kind == "slicer" else tmp_path / "out" / "p.nii.gz"
    with pytest.raises(InputError, match=r"out/p\..*: found (File exists|Not a directory), allowed a writable folder"):
        if kind == "labels":
            write_label_map(place, LABELS, OBLIQUE, like)
        elif kind == "probabilities":
            write_probabilities(place, np.zeros((3, 4, 5, 6)), OBLIQUE, like)
        else:
            write_slicer_segmentation(place, LABELS, OBLIQUE, "brats2017")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_label_map(tmp_path / "out" / "seg.nii.gz", LABELS, OBLIQUE, like)
    before = path.read_bytes()

    def full(image: object, part: Path) -> None:
        Path(part).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg_ext.layouts.segmentations.nibabel.save", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_label_map(path, LABELS * 0, OBLIQUE, like)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["seg.nii.gz"]
