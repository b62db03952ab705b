"""Pieces on disk: what goes in comes out, what is broken is named, a study is read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg_ext.errors import InputError
from medseg_ext.metrics.volumes import bounding_box
from medseg_ext.training import Piece, TrainingPieces, make_piece, pack_studies, read_pieces, whole_piece, write_piece
from medseg_ext.training.pieces import draw_aims, read_piece


def item(seed: int = 0, **options: Any) -> dict[str, Any]:
    """A head of 6 x 5 x 4 voxels within air, T2 missing, a tumour of 2 x 2 x 1 in it."""
    image = np.zeros((4, 10, 9, 8), np.float32)
    image[[0, 1, 3], 2:8, 3:8, 1:5] = np.random.default_rng(seed).normal(size=(3, 6, 5, 4))
    label = np.zeros((3, 10, 9, 8), np.uint8)
    label[1, 4:6, 4:6, 2] = 1
    label[0, 4, 4, 2] = 1
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label), "patient": f"p{seed}", **options}


def test_a_piece_is_cut_to_its_head() -> None:
    piece = make_piece(item())
    assert piece.shape == (6, 5, 4)
    assert piece.image.dtype == np.float16
    assert piece.present == (True, True, False, True)
    np.testing.assert_allclose(piece.image[2], item()["image"][3, 2:8, 3:8, 1:5], atol=2e-3)
    assert piece.truth[2, 1, 1] == 64 + 128 + 56 + 2 + 1
    assert piece.truth[3, 2, 1] == 64 + 128 + 56 + 2
    assert piece.truth[0, 0, 0] == 64 + 128 + 56
    assert piece.brain_box == ((0, 0, 0), (5, 4, 3))
    assert {name: len(voxels) for name, voxels in piece.aims.items()} == {"tc": 1, "wt": 4, "et": 0, "brain": 120}
    assert piece.aims["tc"].tolist() == [[2, 1, 1]]


def test_brain_known_and_box_may_be_given() -> None:
    brain = np.zeros((10, 9, 8), bool)
    brain[3:7, 4:7, 2:4] = True
    known = np.ones((1, 10, 9, 8), bool)
    known[..., 2] = False
    piece = make_piece(
        item(brain=brain, known=known, brain_box=([0, 0, 0], [9, 8, 7]), skull_scale=[(1, 0)] * 3, fold=2)
    )
    assert (piece.truth[:, :, 1] & 63 == 0).all()
    assert ((piece.truth & 64) != 0).sum() == brain.sum()
    assert piece.brain_box == ((-2, -3, -1), (7, 5, 6))
    assert piece.skull_scale == ((1, 0),) * 3
    assert piece.fold == 2
    assert not len(piece.aims["wt"])


def test_refused_items() -> None:
    with pytest.raises(InputError, match="p0: found no voxel of a head"):
        make_piece({**item(), "image": torch.zeros(4, 10, 9, 8)})
    with pytest.raises(InputError, match=r"label of shape \(1, 10, 9, 8\)"):
        make_piece({**item(), "label": torch.zeros(1, 10, 9, 8)})


def test_round_trip(tmp_path: Path) -> None:
    made = make_piece(item(site="7", fold=1, complete=False, skull_scale=[(0.5, 1), (2, 0), (1, 1)]), "head")
    write_piece(tmp_path, made)
    (read,) = read_pieces(tmp_path)
    assert isinstance(read.image, np.memmap)
    for name in (
        *("name", "patient", "kind", "present", "site", "fold", "split", "complete", "brain_box", "skull_scale"),
    ):
        assert getattr(read, name) == getattr(made, name), name
    np.testing.assert_array_equal(read.image, made.image)
    np.testing.assert_array_equal(read.truth, made.truth)
    assert set(read.aims) == set(made.aims)
    assert all(np.array_equal(read.aims[name], made.aims[name]) for name in made.aims)


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    path = write_piece(tmp_path, make_piece(item()))
    facts = json.loads(path.read_text())
    for broken in ({**facts, "version": 0}, {**facts, "present": [True]}, {"version": 1}, [1]):
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=r"p0\.json: found"):
            read_piece(path)
    path.write_text(json.dumps(facts))
    (tmp_path / "p0.truth.npy").write_bytes(b"x")
    with pytest.raises(InputError, match="no piece"):
        read_piece(path)
    with pytest.raises(InputError, match="found no pieces"):
        read_pieces(tmp_path / "elsewhere")


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="allowed a writable folder"):
        write_piece(tmp_path / "file" / "pieces", make_piece(item()))


def test_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (fold, kind) in enumerate([(0, "cube"), (1, "cube"), (1, "head"), (None, "healthy")]):
        write_piece(tmp_path, make_piece(item(seed, fold=fold), kind))
    split = TrainingPieces(tmp_path, fold=1)
    assert [piece.name for piece in split.train] == ["p0", "p3"]
    assert [piece.name for piece in split.held_out] == ["p1", "p2"]
    assert [piece.name for piece in TrainingPieces(tmp_path, fold=1, kinds=["cube"]).held_out] == ["p1"]
    assert len(TrainingPieces(tmp_path).train) == 4
    with pytest.raises(SystemExit):
        TrainingPieces(tmp_path, fold=3)
    assert "fold 3, allowed folds 0, 1" in capsys.readouterr().err


@pytest.mark.parametrize(("split", "side"), [("val", "train"), ("test", "train"), ("test", "validation")])
def test_what_is_held_back(tmp_path: Path, split: str, side: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_piece(tmp_path / "train", make_piece(item(0)))
    write_piece(tmp_path / side, make_piece(item(1, split=split)))
    others = "" if side == "train" else tmp_path / side
    with pytest.raises(SystemExit):
        TrainingPieces(tmp_path / "train", validation_folder=others)
    assert f"{tmp_path / side}: found pieces of the split {split} (p1), allowed none of" in capsys.readouterr().err


def test_heads_of_val_validate(tmp_path: Path) -> None:
    write_piece(tmp_path / "train", make_piece(item(0)))
    write_piece(tmp_path / "val", make_piece(item(1, split="val")))
    assert TrainingPieces(tmp_path / "train", validation_folder=tmp_path / "val").names["val"] == ["p1"]


def test_a_study_is_read_once(tmp_path: Path) -> None:
    read: list[str] = []

    def transform(data: dict[str, Any]) -> dict[str, Any]:
        read.append(data["patient"])
        return item(data["seed"])

    data = [{"patient": f"case{seed}", "seed": seed} for seed in range(2)]
    first = pack_studies(data, transform, tmp_path, progress=False)
    again = pack_studies(data, transform, tmp_path, progress=False)
    assert read == ["case0", "case1"]
    assert [piece.name for piece in first] == [piece.name for piece in again] == ["case0", "case1"]
    assert all(isinstance(piece, Piece) and piece.complete and piece.kind == "study" for piece in again)
    pack_studies([{"patient": "case1", "seed": 5}], transform, tmp_path, progress=False)
    assert read == ["case0", "case1", "case1"]


def test_a_bad_study_ends_the_packing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def transform(data: dict[str, Any]) -> dict[str, Any]:
        return {**item(), "image": torch.zeros(4, 10, 9, 8)}

    with pytest.raises(SystemExit):
        pack_studies([{"patient": "case0"}], transform, tmp_path, progress=False)
    assert "error: case0: found no voxel of a head" in capsys.readouterr().err


def test_boxes_and_aims() -> None:
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 2, 3:6] = True
    assert bounding_box(mask) == (slice(1, 3), slice(2, 3), slice(3, 6))
    assert bounding_box(np.zeros((2, 3), bool)) == (slice(0, 2), slice(0, 3))
    truth = np.full((9, 9, 9), 64, np.uint8)
    aims = draw_aims(truth, most=10)
    assert aims["brain"].shape == (10, 3)
    assert len({tuple(voxel) for voxel in aims["brain"].tolist()}) == 10
    assert aims["et"].shape == (0, 3)


def test_a_whole_piece_for_validation() -> None:
    brain = np.zeros((10, 9, 8), bool)
    brain[3:7, 4:7, 1:5] = True
    known = np.ones((3, 10, 9, 8), bool)
    known[0] = False
    piece = make_piece(item(brain=brain, known=known, skull_scale=[(2, 1)] * 3), "head")
    bare, whole = whole_piece(piece, with_skull=False), whole_piece(piece)
    stored = torch.from_numpy(item()["image"].numpy()[:, 2:8, 3:8, 1:5])
    there = torch.tensor([True, True, False, True])
    torch.testing.assert_close(whole["image"][there], 2 * stored[there] + 1, atol=5e-3, rtol=0)
    torch.testing.assert_close(bare["image"], stored * bare["brain"], atol=5e-3, rtol=0)
    assert (whole["image"][2] == 0).all()
    assert torch.equal(whole["present"], there)
    assert not whole["label"][0].any() and not whole["known"][0].any()
    assert whole["label"][1].sum() == 4 and whole["known"][1].all()
    assert whole["patient"] == "p0"
