"""Training on a folder without a split file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg_ext.errors import InputError
from medseg_ext.layouts import check_output_dir
from medseg_ext.phantoms import WRITERS, make_phantom
from medseg_ext.workflow import TrainingPatients


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(4):
        WRITERS["kaggle"](make_phantom(seed, (32, 32, 3)), tmp_path / "data")
    return tmp_path / "data"


def test_the_split_is_drawn_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = TrainingPatients(folder, "", output_dir=tmp_path / "out").names
    WRITERS["kaggle"](make_phantom(9, (32, 32, 3)), folder)  # a patient more would move the others
    capsys.readouterr()
    assert TrainingPatients(folder, "", output_dir=tmp_path / "out").names == first
    assert "took that of the training's first start" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "split.json").read_text()).keys() == {"train", "val", "test"}


def test_a_patient_that_cannot_be_used_ends_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = min(folder.rglob("*_mask.tif"))
    mask.unlink()
    with pytest.raises(SystemExit) as end:
        TrainingPatients(folder, "", output_dir=tmp_path / "out").train  # noqa: B018
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {mask.parent}")
    assert not (tmp_path / "out" / "split.json").exists()


def test_masks_do_not_go_where_the_truth_lies(tmp_path: Path) -> None:
    for name in ("imagesTr", "labelsTr", "predicted"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="found the input's labels as the output folder"):
        check_output_dir(tmp_path / "labelsTr", tmp_path / "imagesTr")
    check_output_dir(tmp_path / "predicted", tmp_path / "imagesTr")


def test_a_share_of_the_patients_trains(folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    names = sorted(path.name for path in (folder / "kaggle_3m").iterdir())
    split.write_text(json.dumps({"train": names[:3], "val": names[3:]}))
    for share, count in ((1.0, 3), (0.7, 2), (0.05, 1)):
        patients = TrainingPatients(folder, split, output_dir=tmp_path / "out", patients_share=share)
        assert len(patients.train) == len(patients.names["train"]) == count
        assert patients.names["val"] == names[3:]
