"""Two processes evaluate: each case once by its name, whatever the shares, and a restart does what is left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.metrics import DiceMetric
from several_processes import run_in_processes

from medseg_ext.errors import InputError
from medseg_ext.processes import process_count, process_rank, shard
from medseg_ext.reports import MetricByCase, StudyReportHandler
from medseg_ext.workflow import CaseRecords, Failures, PatientStream, run_engine

SCENARIOS = {
    "five": ["p1", "p2", "p3", "p4", "p5"],
    "one": ["p1"],
    "one cannot be read": ["p1", "bad1", "p3"],  # all that the second process has
    "none can be read": ["bad1", "bad2"],
    "none at all": [],
}


def read(item: dict[str, str]) -> dict[str, Any]:
    """A case whose prediction misses as many of 64 voxels as its number says."""
    name = item["patient"]
    if name.startswith("bad"):
        raise InputError(name, "rubbish", "an image")
    image = torch.ones(2, 8, 8, 3)
    image[:, 0, :, 0] = 0
    truth = torch.zeros(1, 8, 8, 3)
    truth[..., 1] = 1
    truth[0, 0, 0, 0] = 1
    pred = truth.clone()
    pred.view(-1)[torch.arange(int(name[1:])) * 3 + 1] = 0
    return {"image": image, "label": truth, "pred": pred, "patient": name}


class Given(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def evaluate(names: list[str], folder: Path, skip_done: bool = False, stop_after: int = 99) -> dict[str, Any]:
    """Evaluate the cases as the bundles do; what this process did."""
    studies = [SimpleNamespace(patient=name) for name in names]
    records = None
    if skip_done:
        outputs = lambda study, place: [place / f"{study.patient}.txt"]  # noqa: E731
        records = CaseRecords(folder / "cases", folder, outputs, ["report", "metric"], {"threshold": (0.5, 1)})
    done = records.done(studies) if records is not None else set()  # type: ignore[arg-type]
    mine = shard([name for name in names if name not in done], process_rank(), process_count())
    failures = Failures()
    written: list[str] = []

    def save(data: dict[str, Any]) -> dict[str, Any]:
        if len(written) == stop_after:
            raise KeyboardInterrupt
        name = data["patient"]
        with (folder / f"{name}.txt").open("x") as file:  # fails where there is one
            file.write(name)
        written.append(name)
        return data

    metric = MetricByCase(DiceMetric(), from_engine(["answer", "label"]), records=records, studies=studies)
    report = StudyReportHandler(
        folder,
        pred_key="answer",
        overlays=True,
        errors=failures,
        records=records,
        studies=studies,
    )

    def answer(data: dict[str, Any]) -> dict[str, Any]:
        # the engine puts the network's output under "pred"
        return {**data, "answer": data["given"]}

    def prepare(item: dict[str, str]) -> dict[str, Any]:
        data = read(item)
        return {**data, "given": data.pop("pred")}

    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(
            PatientStream([{"patient": name} for name in mine], prepare, failures, progress=False), batch_size=1
        ),
        network=Given(),
        postprocessing=lambda data: answer(save(data)),
        key_val_metric={"dice": metric},
        additional_metrics=None
        if len(names) < 5 or skip_done
        else {"monai": MeanDice(output_transform=from_engine(["answer", "label"]))},
        val_handlers=[report],
    )
    status = 0
    try:
        run_engine(engine, failures)
    except SystemExit as end:
        status = int(end.code or 0)
    return {
        "written": written,
        "status": status,
        "metrics": dict(engine.state.metrics),
        "cases": engine.state.metric_details.get("dice"),
    }


def every_scenario(root: Path) -> dict[str, dict[str, Any]]:
    results = {name: evaluate(cases, root / name) for name, cases in SCENARIOS.items()}
    for stop in (1, 99):
        # each process is stopped before its second case
        results[f"stopped after {stop}"] = evaluate(SCENARIOS["five"], root / "stopped", True, stop)
        torch.distributed.barrier()
    return results


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name in (*SCENARIOS, "stopped", "alone"):
        (root / name).mkdir()
    return root


@pytest.fixture(scope="module")
def both(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_in_processes(2, tmp_path_factory.mktemp("meet"), every_scenario, root)


@pytest.fixture(scope="module")
def alone(both: list[dict[str, Any]], root: Path) -> dict[str, Any]:
    return evaluate(SCENARIOS["five"], root / "alone")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_case_is_written_once(both: list[dict[str, Any]]) -> None:
    assert [one["five"]["written"] for one in both] == [["p1", "p3", "p5"], ["p2", "p4"]]
    assert [one["one"]["written"] for one in both] == [["p1"], []]
    assert [one["five"]["status"] for one in both] == [one["one"]["status"] for one in both] == [0, 0]


def test_each_case_is_scored_once(both: list[dict[str, Any]], alone: dict[str, Any], root: Path) -> None:
    """The table and the metric, bit by bit, are those of one process."""
    assert [row["patient"] for row in rows(root / "five")] == SCENARIOS["five"]
    assert (root / "five" / "metrics.csv").read_bytes() == (root / "alone" / "metrics.csv").read_bytes()
    for one in both:
        assert list(one["five"]["cases"]) == SCENARIOS["five"]
        assert one["five"]["cases"] == alone["cases"]
        assert one["five"]["metrics"]["dice"] == alone["metrics"]["dice"]
        assert one["five"]["metrics"]["monai"] == pytest.approx(alone["metrics"]["monai"], rel=1e-6)
    # 65 voxels, of which the numbers 1 to 5 are missed
    by_hand = [2 * (65 - n) / (130 - n) for n in range(1, 6)]
    assert alone["metrics"]["dice"] == pytest.approx(sum(by_hand) / 5, rel=1e-6)


def test_a_process_without_a_case_waits_for_none(both: list[dict[str, Any]], root: Path) -> None:
    assert [row["patient"] for row in rows(root / "one")] == ["p1"]
    assert both[0]["one"]["metrics"] == both[1]["one"]["metrics"] == {"dice": pytest.approx(128 / 129)}
    for name in ("none can be read", "none at all"):
        assert list((root / name).iterdir()) == []


def test_a_failure_in_one_process_is_the_status_of_all(both: list[dict[str, Any]], root: Path) -> None:
    for name in ("one cannot be read", "none can be read"):
        assert [one[name]["status"] for one in both] == [1, 1], name
    assert [row["patient"] for row in rows(root / "one cannot be read")] == ["p1", "p3"]
    assert "bad1: found rubbish" in (root / "one cannot be read" / "summary.html").read_text(encoding="utf-8")


def test_a_restart_does_what_is_left(both: list[dict[str, Any]], alone: dict[str, Any], root: Path) -> None:
    assert [one["stopped after 1"]["written"] for one in both] == [["p1"], ["p2"]]
    assert [one["stopped after 1"]["status"] for one in both] == [130, 130]
    assert [one["stopped after 99"]["written"] for one in both] == [["p3", "p5"], ["p4"]]
    assert (root / "stopped" / "metrics.csv").read_bytes() == (root / "alone" / "metrics.csv").read_bytes()
    assert both[0]["stopped after 99"]["metrics"]["dice"] == alone["metrics"]["dice"]
    first, second = (json.loads((root / name / "metrics.json").read_text()) for name in ("stopped", "alone"))
    assert first["pictures"] == second["pictures"]
    assert {path.name: path.read_bytes() for path in (root / "stopped" / "overlays").iterdir()} == {
        path.name: path.read_bytes() for path in (root / "alone" / "overlays").iterdir()
    }
