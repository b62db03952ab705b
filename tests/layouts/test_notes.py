"""Notes of what was done to the input: printed once, and collected for whoever writes of a study."""

from pathlib import Path

import pytest

from medseg_ext.layouts import BRATS_CHANNELS
from medseg_ext.layouts.channels import collected_notes, print_note, print_note_once
from medseg_ext.phantoms import WRITERS, make_phantom
from medseg_ext.transforms import LoadSequencesd, LoadStudyd


def test_a_note_is_collected_though_it_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with collected_notes() as first:
        print_note_once("p1: turned")
        print_note("p1: moved")
    with collected_notes() as second:
        print_note_once("p1: turned")
    print_note_once("p2: turned")
    assert (first, second) == (["p1: turned", "p1: moved"], ["p1: turned"])
    assert capsys.readouterr().err == "note: p1: turned\nnote: p1: moved\nnote: p2: turned\n"


def test_an_image_carries_the_notes_of_its_study(tmp_path: Path) -> None:
    phantom = make_phantom(0, (60, 60, 40), (1.0, 1.0, 1.0), ("t1", "flair", "t1ce"), skull_stripped=True)
    folder = WRITERS["brats2020"](phantom, tmp_path)
    for _ in range(2):  # each time, though it is printed once
        notes = LoadSequencesd()({"image": folder})["image"].meta["notes"]
        assert f"{folder}: no t2; the result may be worse" in notes.split("\n")
    (folder / f"{folder.name}_t1.nii.gz").unlink()
    notes = LoadStudyd()({"image": folder})["image"].meta["notes"]
    assert "no t1; a copy of flair takes the place" in notes


def test_a_head_with_its_skull_is_noted(tmp_path: Path) -> None:
    for stripped in (True, False):
        phantom = make_phantom(0, (80, 80, 52), (3.0, 3.0, 3.0), BRATS_CHANNELS, skull_stripped=stripped)
        folder = WRITERS["brats2020"](phantom, tmp_path, f"p{stripped:d}")
        image = LoadSequencesd()({"image": folder})["image"]
        note = f"{folder}: not skull-stripped, as the brains of the BraTS sets are"
        assert (note in image.meta["notes"]) is not stripped
        assert image.meta["skull_stripped"] is stripped
