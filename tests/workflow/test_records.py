"""What counts as done: results and notes that are there, of the same settings and weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medseg_ext.errors import InputError
from medseg_ext.layouts import Study, label_map_files, mask_files
from medseg_ext.workflow import CaseRecords


def study(patient: str, folder: Path = Path("in")) -> Study:
    images = tuple(folder / patient / f"{patient}_{number}.tif" for number in (1, 2))
    return Study(patient=patient, layout="kaggle", folder=folder / patient, images=images)


def records(tmp_path: Path, **options: object) -> CaseRecords:
    given = {"outputs": mask_files, "parts": ["report"], "settings": {"threshold": 0.5}} | options
    return CaseRecords(tmp_path / "out" / "cases", tmp_path / "out", **given)  # type: ignore[arg-type]


def write_masks(place: Path, patient: str, count: int = 2) -> None:
    for path in mask_files(study(patient), place / "out")[:count]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["../x", "a/b", "/home/victim/x", "..", "", "a\0b"])
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found the name .*, allowed names without folders"):
        records(tmp_path).write("report", name, {"row": 1})
    assert [path.name for path in tmp_path.rglob("*.json")] == ["settings.json"]


def test_names_of_patients_may_have_dots(tmp_path: Path) -> None:
    assert records(tmp_path).path("report", "TCGA..1 a.b").name == "TCGA..1 a.b.json"


def test_results_and_every_part_are_needed(tmp_path: Path) -> None:
    notes = records(tmp_path)
    studies = [study(name) for name in ("a", "b", "c", "d")]
    assert notes.done(studies) == set()
    write_masks(tmp_path, "a")
    write_masks(tmp_path, "b")
    write_masks(tmp_path, "c", count=1)
    for name in ("a", "c", "d"):
        notes.write("report", name, {"dice": 0.5})
    assert notes.done(studies) == {"a"}
    assert records(tmp_path, parts=[]).done(studies) == {"a", "b"}


def test_notes_come_back_as_they_were(tmp_path: Path) -> None:
    notes = records(tmp_path)
    row = {"patient": "a", "dice": 0.1 + 0.2, "hd95": float("nan"), "n": 3, "empty": None}
    notes.write("report", "a", row)
    found = records(tmp_path).read("report", ["a", "b"])
    assert found.keys() == {"a"}
    assert math.isnan(found["a"].pop("hd95")) and math.isnan(row.pop("hd95"))  # type: ignore[arg-type]
    assert found["a"] == row


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"threshold": 0.4}}, "results of other settings (threshold 0.5 instead of 0.4)"),
        ({"settings": {"threshold": 0.5, "mirror": True}}, "results of other settings (mirror None instead of True)"),
    ],
)
def test_results_of_other_settings_are_not_taken(
    change: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records(tmp_path)
    records(tmp_path)
    with pytest.raises(SystemExit) as end:
        records(tmp_path, **change)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {tmp_path / 'out' / 'cases' / 'settings.json'}: found {said},"
        " allowed those of this run, or another output folder"
    )


def test_other_weights_are_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "model.pt"
    weights.write_text("first")
    records(tmp_path, weights=weights)
    records(tmp_path, weights=weights)
    weights.write_text("second")
    with pytest.raises(SystemExit):
        records(tmp_path, weights=weights)
    assert "results of other settings (weights a7937b64" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[1]", '{"threshold"'])
def test_a_damaged_file_of_settings(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "cases").mkdir(parents=True)
    (tmp_path / "out" / "cases" / "settings.json").write_text(content)
    with pytest.raises(SystemExit):
        records(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'out' / 'cases' / 'settings.json'}: found no ")


def test_where_label_maps_lie() -> None:
    old = Study(patient="p", layout="nifti", folder=Path("p"), images=(Path("p/p_t1ce.nii.gz"),))
    new = Study(patient="p", layout="nifti", folder=Path("p"), images=(Path("p/p-t1c.nii.gz"),))
    assert label_map_files(old, "out") == [Path("out/p_seg.nii.gz")]
    assert label_map_files(new, "out") == [Path("out/p-seg.nii.gz")]
