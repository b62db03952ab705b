"""Whole studies: packed once, then patches to train on and volumes to validate on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader

from medseg_ext.errors import InputError
from medseg_ext.training import (
    LesionPatchDataset,
    Piece,
    make_piece,
    pack_studies,
    piece_volumes,
    study_patches,
    study_volumes,
    whole_piece,
)
from medseg_ext.transforms import VolumeAugmentation

SIZE = (8, 7, 6)
DATA = [{"patient": "a", "seed": 1}, {"patient": "b", "seed": 2}]


class Load:
    """A head of 10 x 9 x 8 voxels in air, T2 missing, with a tumour of 3 x 3 x 3; notes what it reads."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        self.read.append(item["patient"])
        image = torch.zeros(4, 12, 11, 10)
        image[[0, 1, 3], 1:11, 1:10, 1:9] = torch.randn(
            3, 10, 9, 8, generator=torch.Generator().manual_seed(item["seed"])
        )
        label = torch.zeros(3, 12, 11, 10)
        label[:2, 4:7, 4:7, 4:7] = 1
        return {"image": image, "label": label, "patient": item["patient"]}


def packed(kind: str = "study") -> list[Piece]:
    load = Load()
    return [make_piece(load(item), kind) for item in DATA]


def test_patches(tmp_path: Path) -> None:
    patches = study_patches(
        DATA, Load(), tmp_path, progress=False, augmentation=VolumeAugmentation(size=SIZE), group=3, seed=5
    )
    assert isinstance(patches, LesionPatchDataset)
    assert [piece.name for piece in patches.pieces] == ["a", "b"]
    assert patches.kinds == ["study"]
    assert patches.group == 3
    wanted = LesionPatchDataset(packed(), VolumeAugmentation(size=SIZE), group=3, seed=5)
    for i in range(4):
        sample = patches[i]
        assert sample["image"].shape == (4, *SIZE)
        assert sample["label"].shape == (3, *SIZE)
        assert all(torch.equal(sample[key], wanted[i][key]) for key in ("image", "label", "present"))


def test_volumes(tmp_path: Path) -> None:
    volumes = study_volumes(DATA, Load(), tmp_path, workers=2, progress=False)
    assert len(volumes) == 2
    for found, piece in zip(volumes, packed(), strict=True):
        wanted = whole_piece(piece)
        assert found.keys() == wanted.keys()
        assert found["patient"] == wanted["patient"]
        for key in ("image", "label", "known", "brain", "present"):
            assert torch.equal(found[key], wanted[key])
    first = volumes[0]
    assert first["image"].shape == (4, 10, 9, 8)
    assert first["label"].sum((1, 2, 3)).tolist() == [27, 27, 0]
    assert first["label"][0].nonzero().amin(0).tolist() == [3, 3, 3]
    assert first["present"].tolist() == [True, True, False, True]


def test_a_study_is_read_once_for_both(tmp_path: Path) -> None:
    load = Load()
    study_patches(DATA[:1], load, tmp_path, progress=False, augmentation=VolumeAugmentation(size=SIZE))
    study_volumes(DATA, load, tmp_path, progress=False)
    study_patches(DATA, load, tmp_path, progress=False, augmentation=VolumeAugmentation(size=SIZE))
    assert load.read == ["a", "b"]


def test_studies_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(item: dict[str, Any]) -> dict[str, Any]:
        raise InputError(item["patient"], "no image", "one")

    for build in (study_patches, study_volumes):
        with pytest.raises(SystemExit) as ended:
            build(DATA, fail, tmp_path, progress=False)
        assert ended.value.code == 1
        assert [line.split(":")[1].strip() for line in capsys.readouterr().err.strip().splitlines()] == ["a", "b"]


def flat_piece() -> Piece:
    return make_piece({"image": np.ones((4, 5, 5, 1)), "label": np.zeros((3, 5, 5, 1)), "patient": "c"}, "slice")


def test_pieces_as_volumes() -> None:
    study, head = packed()[0], replace(packed("head")[1], skull_scale=((2.0, 1.0), (1.0, 0.0), (1.0, 0.0)))
    volumes = piece_volumes([study, flat_piece(), head])
    assert [volume["name"] for volume in volumes] == ["a", "b"]
    stored = torch.from_numpy(head.image.astype(np.float32))
    torch.testing.assert_close(volumes[1]["image"][0], 2 * stored[0] + 1)  # with its skull, as it comes at inference


def test_volumes_in_a_loader(tmp_path: Path) -> None:
    loader = DataLoader(study_volumes(DATA, Load(), tmp_path, progress=False), batch_size=1, num_workers=0)
    assert [(batch["image"].shape[0], batch["patient"]) for batch in loader] == [(1, ["a"]), (1, ["b"])]


def test_they_are_packed_as_studies(tmp_path: Path) -> None:
    study_volumes(DATA, Load(), tmp_path, progress=False)
    assert [piece.kind for piece in pack_studies(DATA, Load(), tmp_path, progress=False)] == ["study", "study"]


def test_nothing_to_validate_on_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        piece_volumes([flat_piece()])
    assert (
        capsys.readouterr().err == "error: validation: found no pieces, allowed a fold of them, or a folder of others\n"
    )
