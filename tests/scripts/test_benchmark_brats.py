"""The 3-D benchmark in small: its rows agree, what was measured is kept, and what fails does not end it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import benchmark
import benchmark_brats as brats
import benchmark_tools as tools
import numpy as np
import pytest
import torch

from medseg_ext.errors import InputError
from medseg_ext.transforms import ZScoreHead

SMALL = brats.NetworkSetting(filters=8)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> brats.Setting:
    """A volume of 24 x 24 x 20 with a head of 16 x 15 x 13 in it, and windows of 16."""
    work = tmp_path_factory.mktemp("work")
    image = np.zeros((4, 24, 24, 20), np.float32)
    image[:, 3:19, 5:20, 2:15] = np.random.default_rng(0).standard_normal((4, 16, 15, 13))
    np.save(work / "image.npy", image)
    return brats.Setting(
        work / "image.npy", SMALL, 1, "cpu", work, (16, 16, 16), (24, 24, 24), same_process=True
    )  # fmt: skip


def logits_of(setting: brats.Setting, window: str, **options: object) -> torch.Tensor:
    network = setting.network.build()
    image = torch.from_numpy(np.load(setting.image))[None]
    run, _ = brats.WINDOWS[window](brats.Subject(network, setting.network, image), **options)
    with torch.no_grad():
        return run(image, network)


def test_the_naive_pass_is_ours_in_one_pass(setting: brats.Setting) -> None:
    naive, ours = logits_of(setting, "naive"), logits_of(setting, "ours")
    torch.testing.assert_close(naive, ours, atol=0.02 * float(ours.max() - ours[ours > -20].min()), rtol=0)
    assert torch.equal(naive == -20, ours == -20)


def test_nnunets_scheme_is_ours_without_the_air(setting: brats.Setting) -> None:
    """A network of single voxels gives the same whatever the windows, up to half precision."""
    torch.manual_seed(0)
    network = torch.nn.Conv3d(4, 3, 1)
    image = torch.randn(1, 4, 20, 33, 12)
    with torch.no_grad():
        expected = network(image)
        found = brats._nnunet_scheme(image, network, (16, 16, 16), 3)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_mean_dice_by_hand() -> None:
    a = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
    b = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool)
    assert brats.mean_dice(a, b) == pytest.approx((2 / 3 + 1) / 2)


def test_peak_memory_of_this_process() -> None:
    with brats.PeakMemory(torch.device("cpu")) as memory:
        np.ones(40_000_000, np.uint8)
    assert memory.peak >= memory.start > 0


def test_what_was_measured_is_kept(setting: brats.Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    task = setting.task("ours")
    first = brats.Measured(setting)
    seconds = first.contender("ours", task).run()
    assert seconds > 0
    monkeypatch.setattr(brats, "run_task", lambda *_: pytest.fail("measured again"))
    again = brats.Measured(setting)
    assert again.contender("ours", task).run() == seconds
    columns = again.columns()
    assert columns["Dice to first"] == {"ours": 1.0}
    assert columns["peak GiB"]["ours"] > columns["beyond start"]["ours"] >= 0


def test_a_row_that_fails_does_not_end_the_rest(setting: brats.Setting, tmp_path: Path) -> None:
    def run_task(task: brats.Task, masks: Path) -> dict[str, object]:
        if task.options:
            return {"error": "status -9, Killed"}
        np.savez(masks, packed=np.packbits(np.ones((3, 2), bool)), shape=(3, 2))
        return {"seconds": 2.0, "first_seconds": 2.0, "peak_bytes": 2, "start_bytes": 1, "about": "plain"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brats, "run_task", run_task)
        setting = dataclasses.replace(setting, work=tmp_path, truth=np.ones((3, 2), bool))
        measured = brats.Measured(setting)
        rows = [
            measured.contender("good", setting.task("ours")),
            measured.contender("bad", setting.task("ours", {"a": 1})),
        ]
        result = tools.measure(brats._section("Rows", rows, measured), repeats=1)
    assert [row.median for row in result.rows][:1] == [2.0]
    assert math.isnan(result.rows[1].median)
    assert result.notes[-2:] == ["good: plain.", "bad failed: status -9, Killed"]
    assert result.columns["Dice to truth"] == {"good": 1.0}
    tools.write_report(tmp_path / "report.json", {}, {}, [result])
    rows_of_report = json.loads((tmp_path / "report.json").read_text())["sections"][0]["rows"]
    assert rows_of_report[1]["values"] == [None]


def test_a_process_that_fails_is_an_error(
    setting: brats.Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.exit('no such window')")
    monkeypatch.setattr(brats, "SCRIPT", script)
    assert brats._in_process_of_its_own("{}", tmp_path / "m.npz", setting) == {"error": "status 1, no such window"}
    script.write_text("print('some library talks'); print('{\"seconds\": 1}')")
    assert brats._in_process_of_its_own("{}", tmp_path / "m.npz", setting) == {"seconds": 1}
    script.write_text("import time; time.sleep(60)")
    hurried = dataclasses.replace(setting, timeout=0.2)
    assert brats._in_process_of_its_own("{}", tmp_path / "m.npz", hurried) == {"error": "not done in 0 s"}


def test_the_entry_of_a_process(setting: brats.Setting, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    task = json.dumps(dataclasses.asdict(setting.task("naive")))
    assert brats.main([task, str(tmp_path / "masks.npz")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] > 0
    assert brats._masks({"masks": tmp_path / "masks.npz"}).shape == (3, 24, 24, 20)


def test_the_case_in_small(setting: brats.Setting) -> None:
    """Every row of the table runs; those that compute the same windows agree."""
    section = brats.case_section(setting, ["MONAI", "nnU-Net", "naive", "ours"])
    result = tools.measure(section, repeats=1)
    names = [row.name for row in result.rows]
    assert len(names) == 6 and all(row.median > 0 for row in result.rows)
    assert result.columns["Dice to first"][names[0]] == 1
    with pytest.raises(InputError, match="--contenders: found nobody, allowed the first words of: MONAI 24 x 24 x 24"):
        brats.case_section(setting, ["nobody"])


def test_a_bundle_as_it_is_shipped(setting: brats.Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From arrays of any unit: they are normalised within the row."""
    config = {
        "imports": ["$import medseg_ext.workflow as workflow"],
        "bundle_root": ".",
        "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 3, "kernel_size": 1},
        "network": "@network_def",
        "weights": "$workflow.load_weights(@network_def, @bundle_root + '/models/model.pt')",
        "inferer": {"_target_": "medseg_ext.inferers.BoxWindowInferer", "divisor": 8, "amp": "@amp"},
        "amp": False,
        "thresholds": [0.5, 0.5, 0.5],
        "smallest_lesion": 0.0,
        "smallest_enhancing": 0.0,
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config))
    shipped = brats.NetworkSetting(bundle=str(tmp_path))
    with pytest.raises(SystemExit):
        shipped.build()
    assert "model.pt: found no file" in capsys.readouterr().err
    brats._bundle_parser.cache_clear()
    for amp, expected in ((None, False), (True, True)):
        assert brats._bundle_parser(tmp_path, amp).get_parsed_content("inferer").amp is expected
    weights = {"weight": torch.full((3, 4, 1, 1, 1), 1.0), "bias": torch.tensor([-1e9, 0.0, 1e9])}
    (tmp_path / "models").mkdir()
    torch.save(weights, tmp_path / "models" / "model.pt")
    image = np.load(setting.image)
    head = (image != 0).any(0)
    raw = np.where(head, 300 + 50 * image, 0).astype(np.float32)
    np.save(tmp_path / "raw.npy", raw)
    brats.run_task(setting.task("shipped", network=shipped, image=str(tmp_path / "raw.npy")), tmp_path / "masks.npz")
    regions = brats._masks({"masks": tmp_path / "masks.npz"})
    normalised = ZScoreHead()(raw)
    box = np.zeros(head.shape, bool)
    box[3:19, 5:21, 1:17] = True  # 16 x 15 x 13 voxels from (3, 5, 2), grown to multiples of 8
    assert not regions[0].any()
    assert np.array_equal(regions[1] & head, (normalised.sum(0) > 0))
    assert np.array_equal(regions[2], box)


def test_half_the_budget_cuts_the_box(setting: brats.Setting, tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).standard_normal((4, 48, 40, 40)).astype(np.float32))
    setting = dataclasses.replace(setting, image=tmp_path / "noise.npy")
    seen = []
    network = setting.network.build()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    image = torch.from_numpy(np.load(setting.image))[None]
    subject = brats.Subject(network, setting.network, image)
    window, _ = brats._ours(subject, memory_budget=brats._half_budget(setting))
    window(image, network)
    windows = seen[2:]  # after two to measure with
    assert 2 <= len(windows) <= 8
    assert max(math.prod(size) for size in windows) <= 48 * 40 * 40 / 2


def test_the_first_whole_case(tmp_path: Path) -> None:
    assert brats.find_case(None) is None
    for case, names in (("a", ("flair", "t1ce")), ("b", ("flair", "t1", "t1ce", "t2", "seg"))):
        folder = tmp_path / "brats" / "cases" / case
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{case}_{name}.nii.gz").touch()
    assert brats.find_case(tmp_path) == tmp_path / "brats" / "cases" / "b"


def test_from_the_command_line(tmp_path: Path) -> None:
    """A phantom of 40 x 40 x 32 through the table, and noise of growing size."""
    report = tmp_path / "report.json"
    arguments = ["brats", "--phantom", "--truth", "--size", "40", "40", "32", "--filters", "8", "--threads", "1"]
    arguments += ["--patch", "16", "16", "16", "--zoo_window", "40", "40", "32", "--contenders", "naive", "ours"]
    arguments += ["--sections", "case", "growth", "--sizes", "16", "--classes", "5", "--classes_size", "16"]
    benchmark.main([*arguments, "--same_process", "--work", str(tmp_path / "work"), "--output", str(report)])
    written = json.loads(report.read_text())
    assert written["machine"]["threads"] == 1
    titles = [section["title"] for section in written["sections"]]
    assert titles == [
        "Whole case, the same weights",
        "16 x 16 x 16 without air, 3 classes",
        "16 x 16 x 16 without air, 5 classes",
    ]
    case = written["sections"][0]
    assert [row["name"] for row in case["rows"]] == ["naive pass", "ours", "ours, half the memory"]
    assert case["columns"]["Dice to first"]["ours"] > 0.98
    assert 0 <= case["columns"]["Dice to truth"]["ours"] <= 1


@pytest.mark.slow
def test_each_row_in_a_process_of_its_own(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["brats", "--phantom", "--size", "40", "40", "32", "--filters", "8", "--threads", "1"]
    arguments += ["--patch", "32", "32", "32", "--zoo_window", "40", "40", "32", "--output", str(report)]
    benchmark.main(arguments)
    for section in json.loads(report.read_text())["sections"]:
        for row in section["rows"]:
            assert row["values"][0] > 0
            assert 0.05 < section["columns"]["peak GiB"][row["name"]] < 4
