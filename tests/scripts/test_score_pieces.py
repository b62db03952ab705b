"""Scoring of pieces: rows by hand, what is not known left out, sets of sequences, and the table that pools them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import score_pieces
import torch
from random_weights import write_random_weights

from medseg_ext.training import make_piece, write_piece

FEATURES = [4, 8, 16]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    return write_random_weights(score_pieces.BUNDLE, {"features": FEATURES}, path)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(0)
    for name, kind, fold, slices in (
        ("a", "cube", 0, 12),
        ("b", "cube", 1, 12),
        ("c", "head", 1, 12),
        ("d", "slice", 1, 1),
    ):
        image = rng.standard_normal((4, 16, 16, slices))
        if kind == "head":
            image[2] = 0
        label = np.zeros((3, 16, 16, slices), np.uint8)
        label[1, 4:9, 4:9] = 1
        write_piece(folder, make_piece({"image": image, "label": label, "name": name, "fold": fold}, kind))
    return folder


def test_a_row_by_hand() -> None:
    label, known = torch.zeros(3, 1, 1, 4), torch.ones(3, 1, 1, 4, dtype=torch.bool)
    label[1, 0, 0, :2] = 1
    known[1, 0, 0, 3] = False
    regions = np.zeros((3, 1, 1, 4), bool)
    regions[1, 0, 0, 1:] = True  # one right, one wrong, one that nobody knows
    regions[2, 0, 0, 0] = True
    row = score_pieces.row_of(regions, {"label": label, "known": known}, {"piece": "p"})
    assert row == {
        "piece": "p",
        "dice_tc": None,
        "volume_ml_tc": 0.0,
        "predicted_volume_ml_tc": 0.0,
        "dice_wt": 0.5,
        "volume_ml_wt": 0.002,
        "predicted_volume_ml_wt": 0.002,
        "dice_et": None,
        "volume_ml_et": 0.0,
        "predicted_volume_ml_et": 0.001,
    }


def test_subsets() -> None:
    assert list(score_pieces.subsets_of([True, False, False, True])) == [("t1", "flair"), ("t1",), ("flair",)]
    assert len(list(score_pieces.subsets_of([True] * 4))) == 15


def run(*arguments: object) -> int:
    return score_pieces.main([str(argument) for argument in arguments])


def test_pieces_are_scored_and_pooled(
    pieces: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--weights", weights, "--set", f"features={FEATURES}", "smallest_lesion=0")
    first, second = tmp_path / "0.json", tmp_path / "1.json"
    assert run("run", pieces, "--fold", 0, *small, "--output", first) == 0
    assert run("run", pieces, "--fold", 1, *small, "--output", second) == 0
    rows = [json.loads(path.read_text())["rows"] for path in (first, second)]
    assert [[row["piece"] for row in part] for part in rows] == [["a"], ["b", "c"]]
    assert rows[1][1]["sequences"] == "t1 t1ce flair"
    capsys.readouterr()
    assert run("table", first, second) == 0
    _, _, cubes, heads = capsys.readouterr().out.splitlines()
    mean = np.mean([rows[0][0]["dice_wt"], rows[1][0]["dice_wt"]])
    assert cubes.startswith("| cube |  | 2 | nan") and f"{mean:.3f} (" in cubes
    assert heads.startswith("| head |  | 1 |") and "ml (n 1)" in heads


def test_every_set_of_sequences(pieces: Path, weights: Path, tmp_path: Path) -> None:
    small = ("--weights", weights, "--set", f"features={FEATURES}")
    assert run("run", pieces, "--kinds", "head", "--subsets", *small, "--output", tmp_path / "s.json") == 0
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [row["sequences"] for row in rows][:2] == ["t1 t1ce flair", "t1 t1ce"]
    assert len(rows) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fold", "7"], "found no pieces of fold 7"),
        (["--set", "features"], "error: --set: found features, allowed NAME=VALUE"),
        (["--set", "colour=3"], "error: --set: found colour, allowed "),
    ],
)
def test_mistakes_are_one_line(
    pieces: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "--set" not in arguments:
        arguments = [*arguments, "--set", f"features={FEATURES}"]
    with pytest.raises(SystemExit) as end:
        run("run", pieces, "--weights", weights, *arguments, "--output", tmp_path / "out.json")
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out.json").exists()


def test_another_file_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(SystemExit):
        run("table", tmp_path / "list.json")
    assert "found no rows, allowed what score_pieces.py run writes" in capsys.readouterr().err
