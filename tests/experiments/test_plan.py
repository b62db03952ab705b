"""Lists of experiments: the shipped one, and those that cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from medseg_ext.errors import InputError
from medseg_ext.experiments.plan import GROUPS, Plan, read_plan

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "lgg_2d_segmentation"
SWEEP = BUNDLE / "configs" / "experiments" / "sweep.yaml"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(SWEEP)


def of(plan: Plan, group: str) -> list[str]:
    return [row.name for row in plan.experiments if row.group == group]


def test_shipped_list(plan: Plan) -> None:
    assert plan.bundle == BUNDLE
    assert len(of(plan, "network")) >= 6
    assert len(of(plan, "loss")) >= 6
    assert len(of(plan, "optimizer")) >= 3
    assert set(GROUPS) == {row.group for row in plan.experiments}
    used = {path for row in plan.experiments for path in row.overlays}
    there = set(SWEEP.parent.glob("*.yaml")) - {SWEEP, SWEEP.parent / "transfer_study.yaml"}
    assert used == there, "every overlay is run by the list"
    assert plan.describe_budget().startswith("6,000 training samples a run: 6 epochs of 1,000, 372 steps of 16")


def test_seeds_of_a_row_or_of_all(tmp_path: Path) -> None:
    rows = [{**GOOD["experiments"][0], "seeds": [0, 3, 4]}, LOSS]
    plan = read_plan(write(tmp_path, experiments=rows, seeds=[3]))
    assert [row.seeds for row in plan.experiments] == [(0, 3, 4), (3,)]
    assert plan.describe_budget().endswith(" 4 runs.")


def test_a_row_wins_over_what_all_have(plan: Plan) -> None:
    rows = {row.name: row for row in plan.experiments}
    assert rows["shipped"].values["ema_momentum"] == 0.01
    assert "ema_momentum" not in rows["no_average"].values


NETWORKS = sorted(path.stem for path in SWEEP.parent.glob("network_*.yaml"))


@pytest.mark.parametrize("name", NETWORKS)
def test_network_gives_logits_of_the_crop_in_training_and_scoring(plan: Plan, name: str) -> None:
    (row,) = [row for row in plan.experiments if row.overlays and row.overlays[0].stem == name]
    states = []
    for base, overlays in (("train.json", row.overlays), ("inference.json", None)):
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / base), *map(str, overlays or ())])
        if overlays is None:
            parser.update(dict(row.scoring))
        network = parser.get_parsed_content("network_def").eval()
        states.append({key: value.shape for key, value in network.state_dict().items()})
    assert states[0] == states[1]
    with torch.inference_mode():
        assert network(torch.zeros(1, 9, 96, 96)).shape == (1, 1, 96, 96)


LOSSES = sorted(path for path in SWEEP.parent.glob("loss_*.yaml"))


@pytest.mark.parametrize("path", LOSSES, ids=lambda path: path.stem)
def test_loss_falls_towards_the_truth(path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / "train.json"), str(path)])
    loss = parser.get_parsed_content("loss")
    truth = torch.zeros(2, 1, 8, 8)
    truth[0, 0, 2:5, 2:5] = 1
    bad, good = (loss((2 * truth - 1) * sign, truth) for sign in (-4.0, 4.0))
    assert good < bad


@pytest.mark.parametrize("path", sorted(SWEEP.parent.glob("optimizer_*.yaml")), ids=lambda path: path.stem)
def test_optimizer_steps_at_the_rate(path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / "train.json"), str(path)])
    parser["features"] = [4, 8, 16]
    optimizer = parser.get_parsed_content("optimizer")
    assert {group["lr"] for group in optimizer.param_groups} == {parser["learning_rate"]}
    before = [p.detach().clone() for p in parser.get_parsed_content("network").parameters()]
    for p in parser.get_parsed_content("network").parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    after = list(parser.get_parsed_content("network").parameters())
    assert all((a < b).all() for a, b in zip(after, before, strict=True))


GOOD: dict[str, Any] = {
    "bundle": str(BUNDLE),
    "budget": {"max_epochs": 1, "samples_per_epoch": 8, "batch_size": 4},
    "experiments": [{"name": "a", "group": "baseline"}],
}
LOSS = {"name": "b", "group": "loss", "overlays": ["loss_dice.yaml"]}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "list.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


def test_overlay_beside_the_list_or_in_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("learning_rate: 0.5\n")
    mine = {"name": "c", "group": "optimizer", "overlays": ["mine.yaml"]}
    plan = read_plan(write(tmp_path, experiments=[*GOOD["experiments"], LOSS, mine]))
    assert plan.experiments[1].overlays == (SWEEP.parent / "loss_dice.yaml",)
    assert plan.experiments[2].overlays == (tmp_path / "mine.yaml",)
    assert (plan.experiments[0].seeds, plan.split, plan.weights) == ((0,), "val", "model_best.pt")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budgets": {}}, "budgets"),
        ({"budget": {"max_epochs": 1, "samples_per_epoch": 8}}, "'batch_size' is a required property .at budget."),
        ({"budget": {"max_epochs": 0, "samples_per_epoch": 8, "batch_size": 4}}, "0 is less than the minimum"),
        ({"budget": {"max_epochs": 1, "samples_per_epoch": 3, "batch_size": 4}}, "fewer samples an epoch"),
        ({"experiments": []}, "experiments"),
        ({"experiments": [LOSS]}, "0 rows of the group baseline"),
        ({"experiments": [*GOOD["experiments"], LOSS, LOSS]}, "b twice"),
        ({"experiments": [{"name": "a", "group": "bassline"}]}, "'bassline' is not one of"),
        ({"experiments": [*GOOD["experiments"], {**LOSS, "overlays": ["gone.yaml"]}]}, "no overlay gone.yaml"),
        ({"experiments": [*GOOD["experiments"], {**LOSS, "values": {"max_epochs": 9}}]}, "max_epochs in b"),
        ({"experiments": [*GOOD["experiments"], {**LOSS, "values": {"lr": 9}}]}, "unknown value 'lr' .b."),
        ({"values": {"seed": 9}}, "seed in a"),
        ({"bundle": "nowhere"}, "no bundle"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"list\.yaml: found .*{said}"):
        read_plan(write(tmp_path, **changes))


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_plan(tmp_path / "list.yaml")
    with pytest.raises(InputError, match="a folder"):
        read_plan(tmp_path)
