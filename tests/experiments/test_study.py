"""Transfer studies: what is read, who is held out, and what the numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg_ext.errors import InputError
from medseg_ext.experiments.study import People, Study, part_of, read_people, read_study
from medseg_ext.experiments.study_report import make_cells, paired_runs, patient_scores, single_gains, write_report
from medseg_ext.experiments.study_run import TransferStudy
from medseg_ext.layouts import patient_group
from medseg_ext.training import make_piece, write_piece

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FILES = {name: BUNDLES / name / "configs" / "experiments" / "transfer_study.yaml" for name in
         ("brats_3d_segmentation", "lgg_2d_segmentation")}  # fmt: skip
LGG = {"train": ["TCGA_CS_0001_19990101", "TCGA_CS_0002_19990101"], "val": ["TCGA_CS_0003_19990101"], "test": ["t"]}


@pytest.mark.parametrize("name", FILES)
def test_shipped_studies(name: str) -> None:
    study = read_study(FILES[name])
    assert [arm.name for arm in study.arms] == ["scratch", "transferred", "transferred_frozen", "pretrained"]
    assert list(study.shares) == [0.05, 0.1, 0.25, 0.5, 1.0]
    assert all(len(seeds) >= 3 for share, seeds in study.shares.items() if share < 0.25)
    assert study.arms[1].source is study.arms[2].source
    assert study.arms[1].source is not None and study.arms[1].source.bundle != study.bundle
    assert study.arms[3].source is not None and study.arms[3].source.bundle == study.bundle


def changed(folder: Path, **changes: Any) -> Path:
    content = yaml.safe_load(FILES["brats_3d_segmentation"].read_text())
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**content, "bundle": str(BUNDLES / "brats_3d_segmentation"), **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "cubes"}, "'cubes' is not one of"),
        ({"shares": [{"share": 0, "seeds": [0]}]}, "0 is less than or equal to the minimum"),
        (
            {"arms": [{"name": "transferred", "source": "slices"}]},
            "arms transferred, allowed each once, the first scratch",
        ),
        ({"arms": [{"name": "scratch"}, {"name": "a", "source": "gone"}]}, "unknown source 'gone' of a"),
        ({"arms": [{"name": "scratch", "values": {"frozn": []}}]}, "unknown value 'frozn' of scratch"),
        ({"configs": ["train.json", "gone.yaml"]}, "no config .*gone.yaml"),
        ({"sources": {"slices": {"bundle": "gone", "configs": ["train.json"]}}}, "no bundle .*gone"),
        ({"fold": [1]}, "'fold' was unexpected"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"study\.yaml: found .*{said}"):
        read_study(changed(tmp_path, **changes))


def test_people(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("brats2020,site,lgg_folder\nB1,1,TCGA_CS_0001_19990101\nB2,1,\nB3,1,TCGA_CS_0003_20000202\n")
    people = read_people(path)
    assert people.lgg_persons(["B1", "B2", "unknown"]) == {"TCGA_CS_0001"}
    lgg = ["TCGA_CS_0001_20000202", "TCGA_CS_0002_19990101", "TCGA_CS_0003_19990101"]
    assert people.lgg_alone(lgg, ["B1", "B2"]) == lgg[1:]
    # the other date is of the same person
    assert people.brats_names(["TCGA_CS_0003_19990101"]) == ["B3"]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no such table"):
        read_people(path)
    path.write_text("brats2020,lgg_folder\n")
    with pytest.raises(InputError, match="no row"):
        read_people(path)


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    folder = tmp_path / "pieces"
    for fold, names in enumerate((["B1", "B2"], ["B3", "B4"])):
        for name in names:
            image = np.random.default_rng(0).normal(size=(4, 4, 4, 4))
            item = {"image": image, "label": np.zeros((3, 4, 4, 4)), "name": name, "patient": name, "fold": fold}
            write_piece(folder, make_piece(item, "cube"))
    return folder


def start(study: Study, tmp_path: Path, pieces: Path) -> TransferStudy:
    split = tmp_path / "split.json"
    split.write_text(json.dumps(LGG))
    people = People({"B1": "TCGA_CS_0001", "B3": "TCGA_CS_0003"})
    return TransferStudy(study, tmp_path, split, pieces, people, tmp_path / "out")


def test_nobody_on_both_sides(tmp_path: Path, pieces: Path) -> None:
    study = start(read_study(changed(tmp_path, folds=[0, 1])), tmp_path, pieces)
    # the person behind B1 is held out in fold 0, the one behind B3 in fold 1: neither is in the source of either
    for fold in (0, 1):
        assert study.lgg_split(fold) == {"train": ["TCGA_CS_0002_19990101"], "val": []}


def test_nobody_on_both_sides_of_slices(tmp_path: Path, pieces: Path) -> None:
    path = changed(tmp_path, target="slices", fold_count=3, folds=[0, 1, 2])
    study = start(read_study(path), tmp_path, pieces)
    held_out = []
    for fold in range(3):
        split = study.lgg_split(fold)
        assert not {*map(patient_group, split["val"])} & {*map(patient_group, split["train"])}
        assert "t" not in (*split["train"], *split["val"])
        held_out += split["val"]
    assert sorted(held_out) == sorted([*LGG["train"], *LGG["val"]])
    assert study.excluded_pieces() == ["B1", "B3"]


def test_first_seeds_of_all_shares_come_first(tmp_path: Path, pieces: Path) -> None:
    shares = [{"share": 0.5, "seeds": [4, 5]}, {"share": 1.0, "seeds": [4]}]
    study = read_study(changed(tmp_path, folds=[0, 1], shares=shares, arms=[{"name": "scratch"}]))
    runs = list(start(study, tmp_path, pieces).runs())
    assert [(r.share, r.fold, r.seed) for r in runs] == [
        (0.5, 0, 4), (0.5, 1, 4), (1.0, 0, 4), (1.0, 1, 4), (0.5, 0, 5), (0.5, 1, 5)
    ]  # fmt: skip
    assert len({r.drawn_by for r in runs}) == 4, "another draw for each fold and seed, the same for each share"


def test_part_of_a_study() -> None:
    study = read_study(FILES["brats_3d_segmentation"])
    part = part_of(study, ["scratch", "transferred"], [0.1, 1.0], 40)
    assert [arm.name for arm in part.arms] == ["scratch", "transferred"]
    assert part.shares == {0.1: (0, 1, 2), 1.0: (0,)}
    assert part.budget == {**study.budget, "max_epochs": 40}
    assert part_of(study) == study
    for arms, shares, said in (
        (["gone"], None, "no arm gone"),
        (["transferred"], None, "arms transferred, allowed scratch among them"),
        (None, [0.3], "no share 0.3, allowed 0.05, 0.1, "),
    ):
        with pytest.raises(InputError, match=said):
            part_of(study, arms, shares)


def test_folds_that_there_are(tmp_path: Path, pieces: Path) -> None:
    with pytest.raises(InputError, match="found fold 3, allowed 0, 1"):
        start(read_study(changed(tmp_path)), tmp_path, pieces)


def result(arm: str, share: float, rows: list[dict[str, Any]], fold: int = 0, seed: int = 0) -> dict[str, Any]:
    return {
        "arm": arm,
        "share": share,
        "fold": fold,
        "seed": seed,
        "train_patients": 5,
        "seconds_an_epoch": 10.0 if arm == "scratch" else 8.0,
        "val_mean_dice": {"2": 0.3, "4": 0.5 if arm == "scratch" else 0.7},
        "rows": rows,
    }


def test_mean_over_pieces_then_seeds() -> None:
    rows = [{"patient": "a", "dice_wt": 0.2}, {"patient": "a", "dice_wt": 0.4}, {"patient": "b", "dice_wt": None}]
    again = [{"patient": "a", "dice_wt": 0.6}, {"patient": "b", "dice_wt": 0.5}]
    results = [result("scratch", 0.1, rows), result("scratch", 0.1, again, seed=1), result("x", 0.1, again)]
    # of a (.2 + .4) / 2 = .3 and .6; b has the region in one seed's rows alone
    assert patient_scores(results, "scratch", 0.1, "wt") == pytest.approx({"a": 0.45, "b": 0.5})
    assert patient_scores(results, "scratch", 0.1, "et") == {}


def test_scores_of_a_kind() -> None:
    rows = [{"patient": "a", "kind": "cube", "dice_wt": 0.2}, {"patient": "a", "kind": "head", "dice_wt": 0.4}]
    assert patient_scores([result("scratch", 0.1, rows)], "scratch", 0.1, "wt", "head") == {"a": 0.4}


def test_pays_only_where_no_fold_and_seed_has_it_the_other_way_round() -> None:
    def runs(shift: float, fold: int) -> list[dict[str, Any]]:
        rows = [[{"patient": f"{fold}{i}", "dice_wt": 0.5 + s * (1 + i / 100)} for i in range(20)] for s in (0, shift)]
        return [result("scratch", 0.1, rows[0], fold), result("x", 0.1, rows[1], fold)]

    for shifts, verdict in (((0.3, 0.1), "better"), ((0.3, -0.01), "perhaps better"), ((-0.1, -0.3), "worse")):
        results = [r for fold, shift in enumerate(shifts) for r in runs(shift, fold)]
        assert single_gains(results, "x", 0.1, "wt") == pytest.approx([shift * 1.095 for shift in shifts])
        (cell,) = [cell for cell in make_cells(results, ["scratch", "x"]) if cell.arm == "x"]
        assert cell.gain is not None and cell.gain.p_corrected < 0.05
        assert cell.verdict == verdict


def test_only_complete_comparisons_count() -> None:
    results = [result("scratch", 0.1, []), result("x", 0.1, []), result("scratch", 0.1, [], seed=1)]
    assert [(r["arm"], r["seed"]) for r in paired_runs(results, ["scratch", "x"])] == [("scratch", 0), ("x", 0)]


def study_output(folder: Path, gain: float) -> Path:
    content = {
        "bundle": "brats_3d_segmentation",
        "budget": {"max_epochs": 4, "samples_per_epoch": 100, "batch_size": 2},
        "weights": "model_last.pt",
        "dice_targets": [0.4, 0.6],
        "arms": ["scratch", "x"],
    }
    (folder / "study.json").write_text(json.dumps(content))
    source = folder / "sources" / "slices" / "all" / "source.json"
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps({"source": "slices", "patients": 7, "steps": 1000, "seconds": 321.4}))
    for arm, shift in (("scratch", 0.0), ("x", gain)):
        rows = [{"patient": f"p{i}", "kind": "cube", "dice_wt": 0.5 + i / 100 + shift} for i in range(10)]
        path = folder / "runs" / arm / "share_0.05" / "fold_0" / "seed_0" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(result(arm, 0.05, rows)))
    return folder


@pytest.mark.parametrize(("gain", "answer"), [(0.1, "it pays"), (-0.1, "it harms"), (0.0, "no gain shown")])
def test_report(tmp_path: Path, gain: float, answer: str) -> None:
    markdown, page = write_report(study_output(tmp_path, gain))
    text = markdown.read_text()
    assert f"- WT, 5%, x: {answer}, {gain:+.3f} ({gain:+.3f} to {gain:+.3f})" in text
    assert "400 training samples, 4 epochs of 100 in batches of 2" in text
    assert "5% (5 patients; folds: 1, seeds: 1)" in text
    # .4 is reached at epoch 4, .6 never: 4 x 10 s and 4 x 8 s
    assert "| 5% | scratch | 10.0 | 40 (1 of 1) | never (0 of 1) |" in text
    assert "| 5% | x | 8.0 | 32 (1 of 1) | 32 (1 of 1) |" in text
    assert "| slices | 7 | 1,000 | 321 |" in text
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) == 20
    assert rows[0] == {
        "arm": "scratch",
        "share": 0.05,
        "fold": 0,
        "seed": 0,
        "train_patients": 5,
        "patient": "p0",
        "kind": "cube",
        "dice_wt": 0.5,
    }
    assert (tmp_path / "figures" / "transfer.png").is_file()
    assert "it pays" in page.read_text() if gain > 0 else True


def test_p_of_a_region_are_corrected_together() -> None:
    def rows(shift: float) -> list[dict[str, Any]]:
        return [{"patient": f"p{i}", "dice_wt": 0.5 + shift * (1 + i / 100)} for i in range(8)]

    results = [result(arm, share, rows(0.1 * (arm == "x"))) for arm in ("scratch", "x") for share in (0.05, 0.1, 1.0)]
    cells = make_cells(results, ["scratch", "x"])
    gains = [cell.gain for cell in cells if cell.gain is not None]
    assert [gain.p for gain in gains] == pytest.approx([2 / 2**8] * 3)
    assert [gain.p_corrected for gain in gains] == pytest.approx([3 * 2 / 2**8] * 3)
    assert {cell.region for cell in cells} == {"wt"}
