"""The benchmark of several processes: its arithmetic by hand, and the whole of it on a small network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import benchmark
import benchmark_scaling as scaling
import pytest

from medseg_ext.errors import InputError

BUNDLE = benchmark.BUNDLES / "lgg_2d_segmentation"
ONE = scaling.Found(1, 4, (9, 8, 8), step=0.2, alone=0.2, peak_bytes=2**30, gradient_bytes=800)
TWO = replace(ONE, processes=2, step=0.25, alone=0.24, latency=0.01, bandwidth=8000.0)


def test_rate_and_communication_by_hand() -> None:
    assert (ONE.rate, TWO.rate) == (20, 32)
    assert (ONE.communication, TWO.communication) == (0, pytest.approx(0.04))
    assert replace(TWO, alone=0.26).communication == 0, "noise is no negative share"


def test_projection_by_hand() -> None:
    """800 bytes at 8000 a second: 0.1 s for two; of eight processes 14 messages of an eighth, and 7 latencies."""
    assert scaling.projected_step(ONE, TWO, 2) == pytest.approx(0.2 + 0.01 + 0.1)
    assert scaling.projected_step(ONE, TWO, 8) == pytest.approx(0.2 + 0.07 + 0.175)
    setting = scaling.Setting(scaling.Task("b", "f"), Path(), found={1: [ONE], 2: [TWO]})
    section = scaling.projected_section(setting, [8])
    assert section.title.startswith("PROJECTION: computed")
    assert [one.name for one in section.contenders] == ["1 process", "2 processes", "8 processes"]
    assert section.contenders[2].run() == pytest.approx(8 * 4 / 0.445)
    columns = section.columns()
    assert columns["efficiency"]["8 processes"] == pytest.approx(0.2 / 0.445)
    assert columns["communication"]["8 processes"] == pytest.approx(0.245 / 0.445)


def test_the_table_by_hand() -> None:
    slow, fast = replace(TWO, step=0.5), replace(TWO, step=0.1)
    setting = scaling.Setting(scaling.Task("b", "f"), Path(), found={1: [ONE], 2: [slow, TWO, fast]})
    assert setting.typical(2) is TWO
    section = scaling.measured_section(setting)
    columns = section.columns()
    assert columns["efficiency"] == {"1 process": 1, "2 processes": pytest.approx(0.8)}
    assert columns["step ms"]["2 processes"] == 250
    assert columns["peak GiB"]["2 processes"] == 1
    assert section.remarks()[0] == "A step of a process: 4 random samples of 9 x 8 x 8; loading is left out."


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """The bundle with a network that takes milliseconds."""
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("*.pt", "results", "data"))
    config = json.loads((bundle / "configs" / "train.json").read_text())
    config |= {"features": [4, 8, 8], "crop_size": [32, 32], "batch_size": 2}
    (bundle / "configs" / "train.json").write_text(json.dumps(config))
    return bundle


@pytest.mark.slow
def test_from_the_command_line(small_bundle: Path, tmp_path: Path) -> None:
    report, trace = tmp_path / "report.json", tmp_path / "trace.json"
    arguments = ["scaling", "--bundle", str(small_bundle), "--steps", "2", "--repeats", "1", "--projected", "4"]
    benchmark.main([*arguments, "--trace", str(trace), "--output", str(report)])
    measured, projected = json.loads(report.read_text())["sections"]
    assert [row["name"] for row in measured["rows"]] == ["1 process", "2 processes"]
    assert all(row["values"][0] > 0 for row in measured["rows"])
    assert measured["columns"]["efficiency"]["1 process"] == 1
    assert 0 < measured["columns"]["efficiency"]["2 processes"] < 2
    assert 0 <= measured["columns"]["communication"]["2 processes"] < 1
    assert 0.05 < measured["columns"]["peak GiB"]["2 processes"] < 4
    assert [row["name"] for row in projected["rows"]] == ["1 process", "2 processes", "4 processes"]
    assert projected["columns"]["efficiency"]["4 processes"] < 1
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert any("all_reduce" in name for name in names), "the exchange is in the trace"
    assert any("convolution" in name for name in names)


def test_a_process_that_fails_is_one_error(small_bundle: Path, tmp_path: Path) -> None:
    (small_bundle / "configs" / "metadata.json").unlink()
    setting = scaling.Setting(scaling.Task(str(small_bundle), "", steps=1), tmp_path / "scratch")
    with pytest.raises(InputError, match=r"^1 process.*: found status 1 \(.*metadata.json: found no such file"):
        setting.measure(1)


@pytest.mark.parametrize("option", ["--steps", "--processes", "--projected"])
def test_nonsense_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["scaling", option, "0"])
    assert f"{option}: found " in capsys.readouterr().err
