"""Masks of any program against the truth, and two scorings against each other."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import score
from PIL import Image
from tiny_patients import write_kaggle


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple]:
    """The command line: its status, what it prints, and its error lines."""

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["score.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            score.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, [line for line in err.splitlines() if line.startswith("error: ")]

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients in ``kaggle_3m``, and their masks as PNG in ``masks``."""
    for seed in range(2):
        patient = write_kaggle(tmp_path, f"p{seed}", seed)
        (tmp_path / "masks" / patient.name).mkdir(parents=True)
        for mask in patient.glob("*_mask.tif"):
            Image.open(mask).save(tmp_path / "masks" / patient.name / f"{mask.stem}.png")
    return tmp_path


def masks(folder: Path) -> list[object]:
    return [
        "masks",
        "--dataset_dir",
        folder / "kaggle_3m",
        "--masks_dir",
        folder / "masks",
        "--output_dir",
        folder / "o",
    ]


def test_masks_in_another_format_of_pictures(run, folder: Path) -> None:
    assert run(*masks(folder))[0] == 0
    report = json.loads((folder / "o" / "metrics.json").read_text())
    assert (report["patients"], report["dice"]["mean"]) == (2, 1.0)


def test_a_mask_in_two_formats_is_one_too_many(run, folder: Path) -> None:
    twice = folder / "masks" / "p1" / "p1_2_mask.tif"
    shutil.copy(folder / "kaggle_3m" / "p1" / "p1_2_mask.tif", twice)
    status, _, (line,) = run(*masks(folder))
    assert status == 1
    assert line == f"error: {twice}: found a second mask, p1_2_mask.png, allowed one mask"
    assert json.loads((folder / "o" / "metrics.json").read_text())["patients"] == 1


def test_a_mask_that_is_missing(run, folder: Path) -> None:
    (folder / "masks" / "p0" / "p0_3_mask.png").unlink()
    status, _, (line,) = run(*masks(folder))
    assert status == 1
    assert line.startswith(f"error: {folder / 'masks' / 'p0' / 'p0_3_mask.tif'}: found no such file, allowed a mask (")


def table(path: Path, *rows: str, head: str = "patient,dice") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_comparison(run, tmp_path: Path) -> None:
    first = table(tmp_path / "a.csv", "1,0.9", "NA,0.7")
    second = table(tmp_path / "b.csv", "NA,0.6", "1,0.8")
    status, out, lines = run("compare", first, second, "--column", "dice")
    assert (status, lines) == (0, [])
    assert "mean 0.8000 against 0.7000, paired difference +0.1000" in out


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["p1,0.8", "p2,"], "found no dice for p2, allowed a number for every patient"),
        (["p1,0.8", "p2,nan"], "found no dice for p2, allowed a number for every patient"),
        (["p1,inf", "p2,good"], "found no dice for p1, p2, allowed a number for every patient"),
        (["p1,0.8"], "found other patients than "),
        (["p1,0.8", "3,0.7"], "(3, p2), allowed the same patients"),
        (["p1,0.8", "p1,0.7"], "found p1 twice, allowed each patient once"),
        ([], "found no patient, allowed a number for every patient"),
    ],
)
def test_tables_that_cannot_be_compared(run, tmp_path: Path, rows: list[str], said: str) -> None:
    first = table(tmp_path / "a.csv", "p1,0.9", "p2,0.7")
    second = table(tmp_path / "b.csv", *rows)
    status, _, (line,) = run("compare", first, second, "--column", "dice")
    assert status == 1
    assert line.startswith(f"error: {second}: ") and said in line


def test_files_that_are_no_tables(run, tmp_path: Path) -> None:
    first = table(tmp_path / "a.csv", "p1,0.9")
    for name, content in (("empty.csv", b""), ("binary.csv", b"\xff\xfe\x00"), ("other.csv", b"a,b\n1,2\n")):
        (tmp_path / name).write_bytes(content)
        status, _, (line,) = run("compare", first, tmp_path / name, "--column", "dice")
        assert status == 1
        assert line.startswith(f"error: {tmp_path / name}: found no such table (")
    assert run("compare", first)[2] == [
        f"error: {first}: found 1 tables, allowed pairs of tables: FIRST SECOND [FIRST SECOND ...]"
    ]
