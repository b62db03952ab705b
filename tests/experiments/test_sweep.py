"""A sweep from its list to its report, on phantoms."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import experiments
import pytest
import torch
import yaml
from tiny_patients import write_kaggle

from medseg_ext.errors import InputError
from medseg_ext.experiments.plan import read_plan
from medseg_ext.experiments.sweep import Sweep, count_parameters, read_scores

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "lgg_2d_segmentation"
SMALL = {"features": [4, 8, 16], "crop_size": [64, 64], "val_interval": 1, "loader_workers": 0, "warmup_iterations": 1}
LIST: dict[str, Any] = {
    "bundle": str(BUNDLE),
    "budget": {"max_epochs": 2, "samples_per_epoch": 8, "batch_size": 4},
    "values": SMALL,
    "weights": "model_last.pt",
    "experiments": [
        {"name": "shipped", "group": "baseline"},
        {"name": "single_slice", "group": "input", "overlays": ["input_single_slice.yaml"]},
        {"name": "failing", "group": "loss", "overlays": ["failing.yaml"]},
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four patients, a split file and a list."""
    folder = tmp_path_factory.mktemp("data")
    names = [write_kaggle(folder, f"p{i}", i).name for i in range(4)]
    (folder / "split.json").write_text(json.dumps({"train": names[:2], "val": names[2:]}))
    (folder / "list.yaml").write_text(yaml.safe_dump(LIST))
    # a loss that falls over when it is called
    (folder / "failing.yaml").write_text("loss:\n  _target_: torch.nn.NLLLoss\n")
    return folder


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    paths = ["--data", str(data / "kaggle_3m"), "--split_file", str(data / "split.json"), "--output", str(output)]
    return ["run", str(data / "list.yaml"), *paths, "--phantom", "64", "64", "4", *more]


@pytest.mark.slow
def test_from_list_to_report(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert experiments.main(arguments(data, output)) == 1
    said = capfd.readouterr()
    assert len(re.findall(r"^error: .*failing/seed_0/training\.log: found status 1", said.err, re.MULTILINE)) == 1
    assert "Budget: 16 training samples a run: 2 epochs of 8, 4 steps of 4; 3 runs." in said.out
    results = {path.parent.parent.name: json.loads(path.read_text()) for path in output.rglob("result.json")}
    assert set(results) == {"shipped", "single_slice"}
    for result in results.values():
        assert set(result["patients"]) == {"p2", "p3"}
        assert set(result["loss"]) == set(result["val_mean_dice"]) == {"1", "2"}
        assert result["seconds_an_epoch"] > 0
    # nine channels of three slices, three of one
    assert results["shipped"]["parameters"] > results["single_slice"]["parameters"]
    text = (output / "report.md").read_text()
    assert "| single_slice | input | 1 |" in text
    assert "runs/single_slice/seed_0/example/overlays/" in text
    assert not re.search(r"p[0-3]", text), "no patient is shown or named"

    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlruns.db'}")
    runs = [run for e in client.search_experiments() for run in client.search_runs(e.experiment_id)]
    recorded = {run.info.run_name: run.data.metrics for run in runs}
    mean = sum(p["dice"] for p in results["shipped"]["patients"].values()) / 2
    assert recorded["shipped_seed_0"]["scored_dice"] == pytest.approx(mean)
    # a second call runs what failed and nothing else
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.log")}
    assert experiments.main(arguments(data, output, "--only", "shipped", "single_slice")) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.log")} == before


@pytest.mark.slow
def test_reference_is_a_row(data: Path, tmp_path: Path) -> None:
    content = {**LIST, "budget": {"max_epochs": 1, "samples_per_epoch": 16, "batch_size": 16}}
    content["experiments"] = [LIST["experiments"][0], {"name": "reference", "group": "reference"}]
    path = tmp_path / "list.yaml"
    path.write_text(yaml.safe_dump(content))
    sweep = Sweep(read_plan(path), data / "kaggle_3m", tmp_path / "out", data / "split.json", (64, 64, 4))
    assert sweep.run([sweep.plan.experiments[1]]) == []
    result = json.loads((tmp_path / "out" / "runs" / "reference" / "seed_0" / "result.json").read_text())
    assert set(result["patients"]) == {"p2", "p3"}
    assert result["parameters"] == 7_763_041
    assert 0 <= result["own_validation_dsc"] <= 1
    assert result["seconds_an_epoch"] > 0


def test_refused_before_anything_runs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*changed: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            experiments.main([*arguments(data, tmp_path / "out"), *changed])
        assert stopped.value.code == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "no experiment shiped" in said("--only", "shiped") and "did you mean shipped?" in said("--only", "shiped")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert said("--data", str(empty)).startswith(f"error: {empty}: found ")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["p0"], "val": []}')
    assert "no patient in 'val'" in said("--split_file", str(split))
    assert not list((tmp_path / "out").rglob("*.log"))


def test_folder_of_another_sweep(data: Path, tmp_path: Path) -> None:
    plan = read_plan(data / "list.yaml")
    Sweep(plan, data / "kaggle_3m", tmp_path, data / "split.json")
    content = {**LIST, "budget": {"max_epochs": 3, "samples_per_epoch": 8, "batch_size": 4}}
    (data / "longer.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"sweep\.json: found a run with another budget"):
        Sweep(read_plan(data / "longer.yaml"), data / "kaggle_3m", tmp_path, data / "split.json")


def test_scores(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("patient,dice,dice_reference_protocol,other\n1,0.5,0.6,x\n")
    assert read_scores(path) == {"1": {"dice": 0.5, "dice_reference_protocol": 0.6}}
    for text, found in (
        ("patient,dice\n1,0.5\n", "no such table"),
        ("patient,dice,dice_reference_protocol\n", "no patient"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=found):
            read_scores(path)
    path.write_text("patient,dice,dice_reference_protocol\n1,0.5,\n")
    with pytest.raises(InputError, match="a patient without a score"):
        read_scores(path)


def test_parameters(tmp_path: Path) -> None:
    # 2 x 3 x 3 x 3 and 3 of the convolution, 3 and 3 of the normalisation
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    assert count_parameters(tmp_path / "w.pt") == 54 + 3 + 6
