"""Loading into the canonical orientation, back to the file's own, and writing."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from batches import batch
from monai.data import MetaTensor
from monai.transforms import Compose, SaveImaged
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from tiny_patients import tiny_head, write_kaggle

from medseg_ext.errors import InputError, input_error_in
from medseg_ext.layouts import study_from_path
from medseg_ext.transforms import LoadStudyd, SaveMaskd, ToStoredOrientationd
from medseg_ext.workflow import Failures

ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(axes, sides, strict=True))
    for axes in permutations(("LR", "PA", "SI"))
    for sides in product((0, 1), repeat=3)
]
#: Canonical voxel (row, column, slice) to right-anterior-superior mm.
CANONICAL = np.array([[0, -0.9, 0, 31], [-0.8, 0, 0, 40], [0, 0, 5, -12], [0, 0, 0, 1]])


def save_as(path: Path, array: np.ndarray, axcodes: str) -> np.ndarray:
    """Store a canonical (H, W, D, ...) array in another orientation; returns the stored array."""
    turn = ornt_transform(axcodes2ornt("PLS"), axcodes2ornt(axcodes))
    stored = np.ascontiguousarray(apply_orientation(array, turn))
    nibabel.save(nibabel.Nifti1Image(stored, CANONICAL @ inv_ornt_aff(turn, array.shape[:3])), path)
    return stored


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_there_and_back(tmp_path: Path, axcodes: str) -> None:
    image = np.random.default_rng(0).integers(1, 200, (3, 5, 4, 3)).astype(np.uint8)
    label = (image[:1] > 100).astype(np.uint8)
    stored = save_as(tmp_path / "p.nii", np.moveaxis(image, 0, -1), axcodes)
    stored_label = save_as(tmp_path / "p_mask.nii", label[0], axcodes)
    loaded = LoadStudyd("image", "label")({"image": tmp_path / "p.nii", "label": tmp_path / "p_mask.nii"})
    np.testing.assert_array_equal(loaded["image"].numpy(), image)
    np.testing.assert_array_equal(loaded["label"].numpy(), label)
    np.testing.assert_allclose(loaded["image"].affine.numpy(), CANONICAL, atol=1e-6)
    assert loaded["spacing"] == pytest.approx((0.8, 0.9, 5.0))
    assert loaded["patient"] == "p"
    back = ToStoredOrientationd(["image", "label"])(loaded)
    np.testing.assert_array_equal(back["label"][0].numpy(), stored_label)
    np.testing.assert_array_equal(np.moveaxis(back["image"].numpy(), 0, -1), stored)
    np.testing.assert_allclose(back["label"].affine.numpy(), nibabel.load(tmp_path / "p.nii").affine, atol=1e-6)
    SaveMaskd("label", batch(study_from_path(tmp_path / "p.nii")), tmp_path / "out")(loaded)
    written = nibabel.load(tmp_path / "out" / "p_mask.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), stored_label)


def test_slices_have_no_orientation_to_go_back_to(tmp_path: Path) -> None:
    folder = write_kaggle(tmp_path, "p")
    loaded = LoadStudyd("image", "label")({"image": folder, "label": folder})
    image, mask = tiny_head()
    np.testing.assert_array_equal(loaded["image"].numpy(), image)
    np.testing.assert_array_equal(loaded["label"][0].numpy(), mask)
    assert isinstance(loaded["image"], MetaTensor)
    assert "spacing" not in loaded
    assert torch.equal(ToStoredOrientationd("label")(loaded)["label"], loaded["label"])


def test_programs_that_save_themselves_can_tell_it() -> None:
    # they drop every SaveImaged from the post-processing
    assert isinstance(SaveMaskd("pred", batch(), "out"), SaveImaged)


def test_a_mask_that_cannot_be_written_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_from_path(write_kaggle(tmp_path, "p"))
    (tmp_path / "out").write_text("a file")
    item = {"pred": torch.ones(1, 64, 64, 4), "patient": "p"}
    failures = Failures()
    assert SaveMaskd("pred", batch(study, failures=failures), tmp_path / "out")(item) == item
    assert failures.patients == {"p"}
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}")
    with pytest.raises(InputError):
        SaveMaskd("pred", batch(study), tmp_path / "out")(item)


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    study = replace(study_from_path(write_kaggle(tmp_path / "in", "p")), patient="../x")
    item = {"pred": torch.ones(1, 64, 64, 4), "patient": "../x"}
    with pytest.raises(InputError, match=r"found the name '../x', allowed names without folders"):
        SaveMaskd("pred", batch(study), tmp_path / "out")(item)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_error_behind_a_compose(tmp_path: Path) -> None:
    folder = write_kaggle(tmp_path, "p")
    (folder / "p_2.tif").write_text("no picture")
    with pytest.raises(RuntimeError) as caught:
        Compose([Compose([LoadStudyd("image")])])({"image": folder})
    known = input_error_in(caught.value)
    assert known is not None
    assert known.path == folder / "p_2.tif"
    assert input_error_in(RuntimeError("another")) is None
    assert input_error_in(None) is None


@pytest.mark.parametrize("kind", [MemoryError, KeyError, RuntimeError])
def test_whatever_writing_raises_is_recorded(
    tmp_path: Path, kind: type[Exception], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_from_path(write_kaggle(tmp_path, "p"))

    def fail(*given: object) -> None:
        raise kind("x")

    monkeypatch.setattr(SaveMaskd, "write", fail)
    failures = Failures()
    SaveMaskd("pred", batch(study, failures=failures), tmp_path / "out")(
        {"pred": torch.ones(1, 64, 64, 4), "patient": "p"}
    )
    assert failures.patients == {"p"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'out'}: found ")
