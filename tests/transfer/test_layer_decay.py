"""Learning rates block by block."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from twins import unet

from medseg_ext.transfer import layer_groups


def test_blocks_of_the_network() -> None:
    net = unet(2, 1, 1)
    groups = layer_groups(net, 1.0, 0.5)
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("backbone.input_block", 1 / 32),
        ("backbone.downsamples.0", 1 / 16),
        ("backbone.bottleneck", 1 / 8),
        ("backbone.upsamples.0", 1 / 4),
        ("backbone.upsamples.1", 1 / 2),
        ("backbone.output_block", 1.0),
    ]
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(map(id, net.parameters()))


def test_named_blocks() -> None:
    net = nn.ModuleDict({"b": nn.Linear(1, 1), "a": nn.Linear(1, 1), "c": nn.Linear(1, 1)})
    groups = layer_groups(net, 0.1, 0.1, ["a", "b|c"])
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.1])
    assert [len(group["params"]) for group in groups] == [2, 4]


def test_one_rate_is_one_group() -> None:
    net = unet(2, 1, 1)
    (group,) = layer_groups(net, 0.3)
    assert group["lr"] == 0.3 and group["params"] == list(net.parameters())


def test_a_schedule_keeps_the_ratio() -> None:
    groups = layer_groups(nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}), 1.0, 0.25, ["a", "b"])
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.5]


@pytest.mark.parametrize(
    ("decay", "blocks", "message"),
    [
        (0.0, [], "layer_decay: found 0.0, allowed above 0, 1 at the most"),
        (1.5, [], "layer_decay: found 1.5"),
        (0.5, ["x"], "blocks: found 'x', with which no name begins"),
        (0.5, ["a"], "blocks: found none for b.weight"),
    ],
)
def test_refused(decay: float, blocks: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        layer_groups(nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}), 1.0, decay, blocks)
    assert f"error: {message}" in capsys.readouterr().err
