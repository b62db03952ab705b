"""Options that nothing uses and values that cannot be are refused before anything else happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg_ext.workflow.options import describe, devices

CONFIG: dict[str, Any] = {
    "imports": ["$import medseg_ext.workflow as workflow"],
    "bundle_root": ".",
    "max_epochs": 4,
    "threshold": 0.5,
    "amp": True,
    "folds": 0,
    "fold": 0,
    "crop_size": [64, 64],
    "name": "x",
    "device": "$torch.device('cpu')",
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "@max_epochs"},
    "train": {"rate": 0.1, "key_metric": {"_target_": "torch.nn.Identity"}},
    "options": {
        "max_epochs": {"type": "integer", "minimum": 1},
        "threshold": {"type": "number", "minimum": 0, "maximum": 1},
        "amp": {"type": "boolean"},
        "folds": {"type": "integer", "minimum": 0},
        "fold": {"type": "integer", "minimum": 0, "maximum": "$max(@folds - 1, 0)"},
        "crop_size": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {"type": "integer", "multipleOf": "$8 * @max_epochs"},
        },
        "name": {"type": "string"},
        "device": {"enum": "$workflow.devices()", "description": "a device that is there"},
    },
    "initialize": ["$workflow.check_options()"],
    "run": ["$@network, @train::rate, @threshold, @fold, @crop_size, @amp, @name"],
}


@pytest.fixture
def start(tmp_path: Path):
    """Do what ``monai.bundle run`` does with these options up to the run itself."""
    (tmp_path / "train.json").write_text(json.dumps(CONFIG))

    def start(*overlays: dict[str, Any], **options: Any) -> ConfigWorkflow:
        files = [tmp_path / "train.json"]
        for number, overlay in enumerate(overlays):
            files.append(tmp_path / f"overlay{number}.json")
            files[-1].write_text(json.dumps(overlay))
        workflow = ConfigWorkflow([str(file) for file in files], logging_file=False, **options)
        workflow.initialize()
        return workflow

    return start


def test_options_that_are_used_pass(start) -> None:
    workflow = start(**{"max_epochs": 8, "train#rate": 2, "network#in_features": 3, "bundle_root": "/b", "fold": 0})
    ((network, rate, *_),) = workflow.run()
    assert (network.in_features, network.out_features, rate) == (3, 8, 2)


def test_a_part_that_used_an_option_may_be_replaced(start) -> None:
    """As by a user who takes out the handlers: what they were told by name stays a name of the config."""
    start({"run": ["$@network, @train::rate"]}, threshold=0.25)


def test_devices(start, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, or as torch has them."""
    for there in devices():
        start(device=there)
    start(device="$torch.device('cpu')")
    for missing in ("cuda:99", "$torch.device('cuda:99')", "gpu"):
        with pytest.raises(SystemExit):
            start(device=missing)
        assert "allowed a device that is there" in capsys.readouterr().err


def test_a_path_is_a_text(start) -> None:
    """As python callers give it."""
    start(name=Path("folder"))


def test_what_monai_knows_passes(start, tmp_path: Path) -> None:
    start(tracking_uri="sqlite:///x.db", experiment_name="e", run_name="r", save_execute_config=False, val_interval=2)
    settings = {"handlers_id": {}, "configs": {"mine": "@theirs", "theirs": 3, "save_execute_config": False}}
    (tmp_path / "tracking.json").write_text(json.dumps(settings))
    for tracking in (settings, str(tmp_path / "tracking.json")):
        assert start(tracking=tracking, output_dir=str(tmp_path)).parser["mine"] == "@theirs"


def test_overlays_may_add_jobs_and_what_these_use(start) -> None:
    workflow = start({"count": 2, "job": ["$@count + 1"], "step": {"_target_": "torch.nn.Identity"}}, run_id="job")
    assert workflow.run() == [3]


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"max_epoch": 3}, ["max_epoch: found an option that nothing uses", "(did you mean max_epochs?)"]),
        ({"train#rates": 3}, ["train::rates: found", "(did you mean train::rate?)"]),
        ({"train::max_epochs": 3}, ["train::max_epochs: found", "(did you mean max_epochs?)"]),
        ({"zzz": [1, 2]}, ["zzz: found an option that nothing uses, allowed one that the config has"]),
    ],
)
def test_options_that_nothing_uses(start, capsys: pytest.CaptureFixture[str], options, lines) -> None:
    with pytest.raises(SystemExit) as end:
        start(**options)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {lines[0]}") and line.endswith(lines[-1])


def test_each_of_them_has_its_line(start, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        start(max_epoch=3, tresholds=0.1, threshold=7)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["max_epoch:", "tresholds:"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"threshold": 5}, "threshold: found 5, allowed 0 to 1"),
        ({"threshold": "abc"}, "threshold: found 'abc', allowed 0 to 1"),
        ({"threshold": float("nan")}, "threshold: found nan, allowed 0 to 1"),
        ({"max_epochs": 0}, "max_epochs: found 0, allowed a whole number, 1 or more"),
        ({"max_epochs": 4.0}, "max_epochs: found 4.0, allowed a whole number, 1 or more"),
        ({"max_epochs": True}, "max_epochs: found True, allowed a whole number, 1 or more"),
        ({"amp": "false"}, "amp: found 'false', allowed True or False"),
        ({"fold": 9}, "fold: found 9, allowed a whole number, 0 to 0"),
        ({"fold": 5, "folds": 5}, "fold: found 5, allowed a whole number, 0 to 4"),
        ({"crop_size": 5}, "crop_size: found 5, allowed a list of 2, each a whole number, a multiple of 32"),
        (
            {"crop_size": (64, 60)},
            "crop_size: found (64, 60), allowed a list of 2, each a whole number, a multiple of 32",
        ),
        ({"name": 2024}, "name: found 2024, allowed a text"),
    ],
)
def test_values_that_cannot_be(start, capsys: pytest.CaptureFixture[str], options, line: str) -> None:
    with pytest.raises(SystemExit) as end:
        start(**options)
    assert end.value.code == 1
    assert capsys.readouterr().err == f"error: {line}\n"


def test_values_that_can(start) -> None:
    start(threshold=0, folds=5, fold=4, crop_size=(32, 96))
    start(threshold=1, max_epochs="$2 + 2", amp=False)


def test_words_for_schemas() -> None:
    assert describe({"enum": [True, False, "all"]}) == "True, False or 'all'"
    assert describe({"exclusiveMinimum": 0, "maximum": 2}) == "above 0, at most 2"
    assert describe({"type": "number", "minimum": 0, "description": "none"}) == "none"
    assert (
        describe({"type": "array", "minItems": 3, "items": {"type": "number"}}) == "a list of 3 or more, each a number"
    )


def test_outside_of_a_run_it_says_so() -> None:
    from medseg_ext.workflow import check_options

    with pytest.raises(RuntimeError, match="not called by an expression"):
        check_options()


def test_a_parser_alone_will_do() -> None:
    parser = ConfigParser(json.loads(json.dumps(CONFIG)) | {"max_epoch": 1})
    with pytest.raises(SystemExit):
        parser.get_parsed_content("initialize")
