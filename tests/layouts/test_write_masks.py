"""Masks are there whole or not at all, and never among the input."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from study_files import random_patient, write_sequences, write_slices, write_stack

from medseg_ext.errors import InputError
from medseg_ext.layouts import check_output_dir, load_study, study_from_path, write_mask


@pytest.fixture
def small_disk():
    """A limit on the size of files, which makes writing fail in the middle, as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("layout", ["slices", "nifti"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, small_disk, layout: str) -> None:
    shape = (70, 60, 4)
    image, mask = random_patient(shape=shape)
    if layout == "slices":
        study = study_from_path(write_slices(tmp_path / "in" / "p", image, None))
        target = tmp_path / "out" / "p"
    else:
        study = study_from_path(write_stack(tmp_path / "in" / "p.nii", image))
        target = tmp_path / "out" / "p_mask.nii"
    small_disk(2000)
    with pytest.raises(InputError) as caught:
        write_mask(study, mask, tmp_path / "out")
    small_disk(10**9)
    assert str(caught.value) == f"{target}: found File too large, allowed a writable folder with room for the masks"
    assert listing(tmp_path / "out") == []
    write_mask(study, mask, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    small_disk(2000)
    with pytest.raises(InputError):
        write_mask(study, 1 - mask, tmp_path / "out")
    small_disk(10**9)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = random_patient()
    study = study_from_path(write_slices(tmp_path / "in" / "p", image, None))
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "p_3_mask.tif":
            raise OSError(28, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"out/p: found No space left on device, allowed a writable folder"):
        write_mask(study, mask, tmp_path / "out")
    assert listing(tmp_path / "out") == []


def test_an_unwritable_folder(tmp_path: Path) -> None:
    image, mask = random_patient()
    study = study_from_path(write_slices(tmp_path / "in" / "p", image, None))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out/p: found Not a directory, allowed a writable folder"):
        write_mask(study, mask, tmp_path / "file" / "out")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="found Permission denied"):
            write_mask(study, mask, tmp_path / "locked")


def test_earlier_masks_are_replaced_and_other_files_stay(tmp_path: Path) -> None:
    image, mask = random_patient()
    study = study_from_path(write_slices(tmp_path / "in" / "p", image, None))
    out = tmp_path / "out" / "p"
    out.mkdir(parents=True)
    (out / "p_99_mask.tif").write_text("from an earlier run with more slices")
    (out / "overlay.png").write_text("keep")
    (tmp_path / "out" / "p.part").mkdir()
    (tmp_path / "out" / "p.part" / "left").write_text("by a killed run")
    write_mask(study, mask, tmp_path / "out")
    write_mask(study, mask, tmp_path / "out")
    assert listing(tmp_path / "out") == ["overlay.png", "p", *[f"p_{i}_mask.tif" for i in (1, 2, 3, 4)]]


def test_the_input_is_no_place_for_output(tmp_path: Path) -> None:
    image, mask = random_patient()
    data = tmp_path / "kaggle_3m"
    folder = write_slices(data / "p", image, mask)
    (tmp_path / "link").symlink_to(data, target_is_directory=True)
    (tmp_path / "sub").symlink_to(folder, target_is_directory=True)
    for output, source in (
        (data, data),
        (tmp_path / "link", data),
        (data, tmp_path / "link"),
        (data / "out", data),
        (tmp_path / "link" / "new" / "deeper", data),
        (tmp_path / "sub", data),
        (tmp_path / "x" / ".." / "kaggle_3m", data),
        (folder, folder / "p_1.tif"),
    ):
        with pytest.raises(InputError) as caught:
            check_output_dir(output, source)
        assert str(caught.value).startswith(f"{output}: found ")
        assert str(caught.value).endswith("as the output folder, allowed a folder outside the input")
    for output in (tmp_path, tmp_path / "out", tmp_path / "kaggle_3m_out", "relative_out"):
        check_output_dir(output, data)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    # OUT/<patient> would be the patient's own folder.
    with pytest.raises(InputError, match=r"p: found the input's own folder as the place of its masks"):
        write_mask(study_from_path(folder), 1 - mask, data)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    stack = write_stack(tmp_path / "flat" / "q.nii.gz", image)
    with pytest.raises(InputError, match="flat: found the input's own folder"):
        write_mask(study_from_path(stack), mask, tmp_path / "flat")


def test_masks_of_another_shape_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    image, mask = random_patient()
    loaded = load_study(study_from_path(write_slices(tmp_path / "in" / "p", image, None)))
    volume = study_from_path(write_sequences(tmp_path / "in" / "n1", image))
    for study in (loaded, loaded.study, volume):
        with pytest.raises(ValueError, match="mask of shape"):
            write_mask(study, np.ascontiguousarray(mask[..., :3]), tmp_path / "out")
    assert not (tmp_path / "out").exists() or listing(tmp_path / "out") == []
