"""Overlays that would change nothing, or something that is not there, are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from medseg_ext.errors import InputError
from medseg_ext.experiments.overlays import check_overlays, shared_with

BASE = {
    "learning_rate": 0.1,
    "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"},
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$[]", "lr": "@learning_rate"},
    "train": {"sampler": {"_target_": "medseg_ext.training.CountingSampler", "samples": 4}},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(BASE))
    return path


def overlay(folder: Path, content: object) -> Path:
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "content",
    [
        {"learning_rate": 0.2},
        {"loss": {"_target_": "monai.losses.DiceLoss", "sigmoid": True}},
        {"loss": {"_target_": "DiceLoss", "sigmoid": True}},
        {"optimizer#lr": 0.5},
        {"optimizer": {"_target_": "torch.optim.SGD", "params": "$[]", "lr": "@rate"}, "rate": 0.3},
        {"train#sampler#samples": 5},
        {"+loss": {"pos_weight": None}},
        {},
    ],
)
def test_allowed(base: Path, tmp_path: Path, content: dict) -> None:
    assert check_overlays([overlay(tmp_path, content)], [base]) == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"lerning_rate": 0.2}, r"unknown key 'lerning_rate', .*did you mean learning_rate"),
        ({"trian#sampler": 1}, r"unknown key 'trian', .*did you mean train"),
        ({"train#smapler#samples": 1}, r"unknown key 'train::smapler', .*did you mean sampler"),
        ({"train#smapler": 1}, r"unknown key 'train::smapler', .*did you mean sampler"),
        ({"train#sampler#sample": 1}, r"CountingSampler with an unknown argument 'sample', allowed samples, rank"),
        ({"loss": {"_target_": "DiceLoss", "sigmiod": True}}, r"DiceLoss with an unknown argument 'sigmiod'"),
        ({"loss": {"_target_": "monai.losses.DiseLoss"}}, r"_target_ monai.losses.DiseLoss, which there is not"),
        ({"loss": {"_target_": "medseg_ext.nothing.Here"}}, r"_target_ medseg_ext.nothing.Here, which there is not"),
        ({"loss": {"_target_": "DiceLoss", "other_act": {"_target_": "Gone"}}}, r"_target_ Gone, which there is not"),
        ([1, 2], "a list"),
        ("loss", "a str"),
    ],
)
def test_refused(base: Path, tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"overlay\.yaml: found .*{said}"):
        check_overlays([overlay(tmp_path, content)], [base])


def test_an_overlay_may_change_what_the_one_before_it_brought(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("rate: {low: 1}\n+optimizer: {lr: '@rate#low'}\n")
    second.write_text("rate#low: 2\n")
    assert check_overlays([first, second], [base])["rate#low"] == 2
    with pytest.raises(InputError, match=r"second\.yaml: found an unknown key 'rate'"):
        check_overlays([second, first], [base])


def test_damaged_and_missing(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "overlay.yaml"
    with pytest.raises(InputError, match="no such file"):
        check_overlays([path], [base])
    path.write_text("loss: {")
    with pytest.raises(InputError, match="no readable YAML"):
        check_overlays([path], [base])


def test_what_scoring_shares() -> None:
    keys = {
        "network_def": {"_target_": "UNet", "channels": "@widths"},
        "widths": "@deepest",
        "deepest": [4],
        "neighbours": 0,
        "loss": {"_target_": "DiceLoss", "alpha": "@alpha"},
        "alpha": 1,
        "network_def#dropout": 0.1,
        "+hyper_parameters": {"a": 1},
    }
    inference = {"network_def": {}, "neighbours": 1, "hyper_parameters": {}}
    assert set(shared_with(keys, inference)) == {
        "network_def",
        "widths",
        "deepest",
        "neighbours",
        "network_def#dropout",
    }
