"""Transfer studies of either target from their file to their report, on pieces of noise and tiny heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transfer_study
import yaml
from tiny_patients import write_kaggle

from medseg_ext.training import make_piece, write_piece

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FEATURES = [4, 6, 8]
SHORT: dict[str, Any] = {"features": FEATURES, "val_interval": 1, "loader_workers": 0, "warmup_iterations": 1}
SLICES = {**SHORT, "crop_size": [64, 64]}
PIECES = {
    **SHORT,
    "patch_size": [24, 24, 24],
    "shares": {"cube": 1.0},
    "patch_sizes": {},
    "implants": {},
    "validation_kinds": ["cube"],
    "fixed_normalization": False,
}
BUDGET = {"max_epochs": 1, "samples_per_epoch": 4, "batch_size": 2}
HIDDEN = {"hidden": 2, "shuffled": 2}
FROZEN = {"frozen": ["backbone.(input_block|downsamples|bottleneck)"]}
PIECES_STUDY: dict[str, Any] = {
    "bundle": str(BUNDLES / "brats_3d_segmentation"),
    "target": "pieces",
    "configs": ["train.json", "pieces.yaml", "transfer.yaml"],
    "kinds": ["cube"],
    "folds": [0],
    "shares": [{"share": 0.5, "seeds": [0]}],
    "budget": BUDGET,
    "values": PIECES,
    "dice_targets": [0.01],
    "sources": {
        "slices": {
            "bundle": "lgg_2d_segmentation",
            "configs": ["train.json", "twin.yaml"],
            "values": {**SLICES, **BUDGET},
        },
        "restoration": {
            "configs": ["train.json", "pretrain.yaml", "pieces.yaml"],
            "values": {**PIECES, **BUDGET, **HIDDEN, "hidden_size": [8, 8, 8], "shuffled_size": [4, 4, 4]},
        },
    },
    "arms": [
        {"name": "scratch"},
        {"name": "frozen", "source": "slices", "values": {"source_channels": ["t1", "flair", "t1ce"], **FROZEN}},
        {"name": "pretrained", "source": "restoration", "values": {"source_channels": ["t1", "t1ce", "t2", "flair"]}},
    ],
}
SLICES_STUDY: dict[str, Any] = {
    "bundle": str(BUNDLES / "lgg_2d_segmentation"),
    "target": "slices",
    "configs": ["train.json", "twin.yaml", "transfer.yaml"],
    "scoring": ["twin.yaml"],
    "kinds": ["cube"],
    "fold_count": 2,
    "folds": [1],
    "shares": [{"share": 1.0, "seeds": [0]}],
    "budget": BUDGET,
    "values": SLICES,
    "sources": {
        "pieces": {
            "bundle": "brats_3d_segmentation",
            "configs": ["train.json", "pieces.yaml"],
            "values": {**PIECES, **BUDGET, "fold": 0},
        }
    },
    "arms": [
        {"name": "scratch"},
        {
            "name": "transferred",
            "source": "pieces",
            "values": {"source_channels": ["t1", "t1ce", "t2", "flair"], "source_regions": ["tc", "wt", "et"]},
        },
    ],
}
NAMES = [f"TCGA_CS_000{i}_19990101" for i in range(4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads in slices, six cubes in two folds, and who is both."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(NAMES):
        write_kaggle(folder, name, seed)
    (folder / "split.json").write_text(json.dumps({"train": NAMES[:3], "val": NAMES[3:]}))
    rng = np.random.default_rng(0)
    for i in range(6):
        label = np.zeros((3, 20, 20, 18))
        label[1, 5:14, 5:14, 4:14] = 1
        item = {"image": rng.normal(size=(4, 20, 20, 18)) + label.sum(0), "label": label, "patient": f"B{i}"}
        write_piece(folder / "pieces", make_piece({**item, "name": f"cube_B{i}", "fold": i % 2}, "cube"))
    (folder / "patients.csv").write_text(f"brats2020,lgg_folder\nB0,{NAMES[0]}\nB1,{NAMES[1]}\nB2,\n")
    return folder


def run(data: Path, study: dict[str, Any], output: Path) -> int:
    path = data / f"{study['target']}.yaml"
    path.write_text(yaml.safe_dump(study))
    sets = ["--lgg", str(data / "kaggle_3m"), "--pieces", str(data / "pieces"), "--people", str(data / "patients.csv")]
    return transfer_study.main(
        ["run", str(path), *sets, "--split_file", str(data / "split.json"), "--output", str(output)]
    )


@pytest.mark.slow
def test_pieces(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(data, PIECES_STUDY, output) == 0
    rows = json.loads((output / "rows.json").read_text())["rows"]
    # patients of fold 0, scored for each arm; half of the three others train
    assert [(row["arm"], row["patient"]) for row in rows] == [
        (arm, patient) for arm in ("frozen", "pretrained", "scratch") for patient in ("B0", "B2", "B4")
    ]
    assert {row["train_patients"] for row in rows} == {2}
    split = json.loads((output / "splits" / "all.json").read_text())
    assert split == {"train": NAMES[2:3], "val": NAMES[3:]}, "those behind B0 and B1 are in both sets"
    sources = {path.parent.parent.name: json.loads(path.read_text()) for path in output.rglob("source.json")}
    assert {name: (s["patients"], s["steps"]) for name, s in sources.items()} == {
        "slices": (1, 2), "restoration": (3, 2)
    }  # fmt: skip
    assert (output / "runs" / "frozen" / "share_0.5" / "fold_0" / "seed_0" / "training" / "transfer.csv").is_file()
    assert "it " in (output / "report.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.log")}
    assert run(data, PIECES_STUDY, output) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.log")} == before


@pytest.mark.slow
def test_slices(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(data, SLICES_STUDY, output) == 0
    rows = json.loads((output / "rows.json").read_text())["rows"]
    split = json.loads((output / "splits" / "fold_1.json").read_text())
    assert {row["patient"] for row in rows} == set(split["val"])
    assert {row["train_patients"] for row in rows} == {2}
    excluded = yaml.safe_load((output / "sources" / "pieces" / "all" / "training.yaml").read_text())
    assert excluded["excluded_patients"] == ["B0", "B1"]


def test_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for study, said in (
        ({**PIECES_STUDY, "folds": [7]}, "found fold 7, allowed 0, 1"),
        ({**PIECES_STUDY, "configs": ["train.json"]}, "unknown value 'frozen' of frozen"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(data, study, tmp_path / "out")
        assert stopped.value.code == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and said in line
