"""Who trains and who validates, where pieces of several kinds and of two folders do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_ext.training import TrainingPieces, make_piece, write_piece


def write(folder: Path, name: str, kind: str, patient: str, fold: int | None = None) -> None:
    """A small piece of noise."""
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 4))
    item = {"image": image, "label": np.zeros((3, 4, 4, 4)), "name": name, "patient": patient, "fold": fold}
    write_piece(folder, make_piece(item, kind))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients in fold 0; in fold 1 one with a cube and a head, one with a slice; one in no fold."""
    path = tmp_path / "pieces"
    write(path, "cube_a", "cube", "a", 0)
    write(path, "head_b", "head", "b", 0)
    write(path, "cube_c", "cube", "c", 1)
    write(path, "head_c", "head", "c", 1)
    write(path, "slice_d", "slice", "d", 1)
    write(path, "healthy_e", "healthy", "e")
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Pieces that only validate, whatever fold they say."""
    path = tmp_path / "elsewhere"
    write(path, "cube_x", "cube", "x", 0)
    write(path, "head_y", "head", "y")
    return path


def names(pieces: list) -> list[str]:
    return [piece.name for piece in pieces]


def test_all_that_is_held_out_validates(folder: Path) -> None:
    split = TrainingPieces(folder, fold=1)
    assert names(split.train) == ["cube_a", "head_b", "healthy_e"]
    assert names(split.held_out) == names(split.validation) == ["cube_c", "head_c", "slice_d"]
    assert split.names == {"train": ["a", "b", "e"], "val": ["c", "d"]}


def test_kinds_that_validate(folder: Path) -> None:
    split = TrainingPieces(folder, fold=1, validation_kinds=["cube", "head"])
    assert names(split.train) == ["cube_a", "head_b", "healthy_e"]
    assert names(split.held_out) == ["cube_c", "head_c", "slice_d"]
    assert names(split.validation) == ["cube_c", "head_c"]
    assert split.names["val"] == ["c"]
    assert names(TrainingPieces(folder, fold=1, validation_kinds=["head"]).validation) == ["head_c"]


def test_kinds_that_are_read_are_narrowed_down(folder: Path) -> None:
    split = TrainingPieces(folder, fold=1, kinds=["cube", "slice"], validation_kinds=["cube", "head"])
    assert names(split.train) == ["cube_a"]
    assert names(split.held_out) == ["cube_c", "slice_d"]
    assert names(split.validation) == ["cube_c"]


def test_pieces_of_another_folder_are_added(folder: Path, elsewhere: Path) -> None:
    split = TrainingPieces(folder, fold=1, validation_folder=elsewhere)
    assert names(split.train) == ["cube_a", "head_b", "healthy_e"]
    assert names(split.held_out) == ["cube_c", "head_c", "slice_d"]
    assert names(split.validation) == ["cube_c", "head_c", "slice_d", "cube_x", "head_y"]
    assert split.names == {"train": ["a", "b", "e"], "val": ["c", "d", "x", "y"]}


def test_kinds_that_validate_hold_for_the_other_folder(folder: Path, elsewhere: Path) -> None:
    split = TrainingPieces(folder, fold=1, validation_folder=str(elsewhere), validation_kinds=["head"])
    assert names(split.validation) == ["head_c", "head_y"]


def test_all_train_and_the_other_folder_validates(folder: Path, elsewhere: Path) -> None:
    split = TrainingPieces(folder, validation_folder=elsewhere)
    assert len(split.train) == 6
    assert split.held_out == []
    assert names(split.validation) == ["cube_x", "head_y"]
    assert split.names == {"train": ["a", "b", "c", "d", "e"], "val": ["x", "y"]}
    assert TrainingPieces(folder).names["val"] == []


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, **options: object) -> str:
    """The line that it ends with."""
    with pytest.raises(SystemExit) as ended:
        TrainingPieces(*arguments, **options)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_patients_on_both_sides(folder: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(elsewhere, "head_b2", "head", "b")
    write(elsewhere, "cube_a2", "cube", "a")
    line = refused(capsys, folder, fold=1, validation_folder=elsewhere)
    assert f"{elsewhere}: found patients that train and validate (a, b), allowed one side for each" in line
    # of a kind that does not validate it does no harm, nor where the patient does not train
    assert "(a)" in refused(capsys, folder, fold=1, validation_folder=elsewhere, validation_kinds=["cube"])
    assert TrainingPieces(folder, fold=0, validation_folder=elsewhere).names["val"] == ["a", "b", "x", "y"]


def test_a_patient_in_two_folds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "cube_c2", "cube", "c", 0)
    line = refused(capsys, folder, fold=1)
    assert f"{folder}: found patients that train and validate (c)" in line
    assert TrainingPieces(folder, fold=1, validation_kinds=["slice"]).names["val"] == ["d"]


def test_another_folder_without_pieces(folder: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, folder, fold=1, validation_folder=elsewhere, validation_kinds=["slice"])
    assert f"{elsewhere}: found no pieces that were asked for" in line


def test_excluded_patients_take_no_side(folder: Path) -> None:
    split = TrainingPieces(folder, fold=1, excluded=["a", "c"])
    assert split.names == {"train": ["b", "e"], "val": ["d"]}


def test_share_of_the_patients_keeps_every_kind(folder: Path) -> None:
    for name in "fghijklm":
        write(folder, f"cube_{name}", "cube", name, 0)
        write(folder, f"slice_{name}", "slice", name, 0)
    # eight with cube and slice, of whom a quarter is two; alone of their kinds a, b and e stay
    quarter, half = (TrainingPieces(folder, fold=1, patients_share=share, seed=3) for share in (0.25, 0.5))
    assert len(quarter.names["train"]) == 3 + 2
    assert len(half.names["train"]) == 3 + 4
    assert {*quarter.names["train"]} < {*half.names["train"]}
    assert {"a", "b", "e"} < {*quarter.names["train"]}
    assert quarter.names["val"] == half.names["val"] == ["c", "d"]
    # whoever stays does so with all pieces
    assert {piece.kind for piece in quarter.train if piece.patient in "fghijklm"} == {"cube", "slice"}
    draws = {tuple(TrainingPieces(folder, fold=1, patients_share=0.25, seed=s).names["train"]) for s in range(6)}
    assert len(draws) > 1
