"""The benchmark's arithmetic by hand, its turns, and what it reads and writes."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark
import benchmark_lgg
import benchmark_tools as tools
import pytest
from rich.console import Console

from medseg_ext.errors import InputError


def test_speedups_are_taken_round_by_round() -> None:
    # The machine is half as fast in the second round; the comparison does not notice.
    speeds = {"reference": [10.0, 5.0, 10.0], "bundle": [40.0, 20.0, 30.0]}
    rows = tools.rows_of(speeds, higher_is_better=True)
    assert [row.speedup for row in rows] == [1, 4]
    assert [row.median for row in rows] == [10, 30]


def test_speedups_of_times() -> None:
    rows = tools.rows_of({"reference": [8.0, 6.0], "bundle": [2.0, 3.0]}, higher_is_better=False)
    assert rows[1].speedup == 3  # median of 4 and 2


def test_contenders_run_in_turns() -> None:
    order: list[str] = []

    def contender(name: str) -> tools.Contender:
        return tools.Contender(name, lambda: float(order.append(name) or len(order)))  # type: ignore[func-returns-value]

    section = tools.Section("Turns", "runs", True, [contender("A"), contender("B")], ["a note"])
    result = tools.measure(section, repeats=2)
    assert order == ["A", "B", "A", "B"]
    assert [row.values for row in result.rows] == [[1, 3], [2, 4]]


def test_rate_leaves_the_warm_up_out() -> None:
    # Steps end at 9, 10 (both warm-up), 12 and 14: two steps of 16 images in 4 s.
    assert benchmark_lgg._rate([9.0, 10.0, 12.0, 14.0], 16) == 8


def test_machine_is_described() -> None:
    machine = tools.describe_machine(threads=3)
    assert machine["threads"] == 3 and machine["processor"] and machine["torch"]
    assert set(machine["flags"]) <= set(tools.RELEVANT_FLAGS)


def test_report_holds_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tools.rows_of({"reference": [1.0, 2.0, 3.0]}, True)
    result = tools.Result("Training", "images/s", True, rows, ["a note"], 0.25, None)
    tools.print_result(result, Console(width=100))
    assert "a note" in capsys.readouterr().out
    file = tmp_path / "new" / "report.json"
    tools.write_report(file, {"processor": "x"}, {"repeats": "3"}, [result])
    section = json.loads(file.read_text())["sections"][0]
    assert section["rows"] == [{"name": "reference", "values": [1, 2, 3], "speedup": 1, "median": 2}]
    assert section["load_before"] == 0.25 and section["load_after"] is None
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]


def test_handlers_outside_the_step_are_left_out() -> None:
    handlers = ["@ema", {"_target_": "LrScheduleHandler"}, {"_target_": "medseg_ext.training.TrainingState"}]
    assert [benchmark_lgg._belongs_to_step(handler) for handler in handlers] == [True, True, False]


def make_folders(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / f"{name}_1.tif").touch()
    return root


def test_only_train_patients_of_the_split(tmp_path: Path) -> None:
    source = make_folders(tmp_path / "kaggle_3m", ["a", "b", "c", "d"])
    (tmp_path / "split.json").write_text(json.dumps({"train": ["b", "c", "d"], "test": ["a"]}))
    target = benchmark_lgg.collect_patients(source, tmp_path / "split.json", 2, tmp_path / "scratch")
    assert sorted(path.name for path in target.iterdir()) == ["b", "c"]


def test_one_patient_is_too_few(tmp_path: Path) -> None:
    source = make_folders(tmp_path / "kaggle_3m", ["a"])
    with pytest.raises(InputError, match="found 1 patients' folders"):
        benchmark_lgg.collect_patients(source, None, 2, tmp_path / "scratch")
    with pytest.raises(InputError, match="found 0 patients' folders"):
        benchmark_lgg.collect_patients(tmp_path / "absent", None, 2, tmp_path / "scratch")


def test_masks_are_counted(tmp_path: Path) -> None:
    def segment() -> None:
        (tmp_path / "out" / "a").mkdir(parents=True)
        (tmp_path / "out" / "a" / "a_1_mask.tif").touch()

    assert benchmark_lgg._masks_rate(segment, tmp_path / "out", slices=1) > 0
    with pytest.raises(InputError, match="found 1 masks, allowed 2"):
        benchmark_lgg._masks_rate(segment, tmp_path / "out", slices=2)


def test_a_bundle_without_configs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.json: found no file"):
        benchmark_lgg.read_config(tmp_path, "train.json")


@pytest.mark.parametrize("option", ["--patients", "--repeats", "--threads", "--images"])
def test_nonsense_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["lgg", option, "0"])
    assert f"{option}: found 0, allowed" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        benchmark.main(["lgg", "--help"])
    assert "--dataset_dir" in capsys.readouterr().out


@pytest.mark.slow
def test_everything_on_phantoms(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    benchmark.main(
        ["lgg", "--patients", "2", "--images", "16", "--repeats", "1", "--threads", "1", "--output", str(report)]
    )
    sections = json.loads(report.read_text())["sections"]
    assert len(sections) == 3
    for section in sections:
        assert [row["name"] for row in section["rows"]] == ["reference float32", "reference bfloat16", "bundle"]
        assert all(value > 0 for row in section["rows"] for value in row["values"])
