"""Damaged images in, whole ones out, the same damage for the same image."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, RandCoarseDropoutd, RandCoarseShuffled
from torch import nn

from medseg_ext.training import RestorationBatch


def hiding(seed: int = 0) -> RestorationBatch:
    hide = RandCoarseDropoutd("image", holes=1, spatial_size=(2, 3), fill_value=0, prob=1.0)
    return RestorationBatch(Compose([hide]), seed)


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"image": torch.rand(2, 3, 8, 8) + 1, "label": torch.zeros(2, 1, 8, 8)}


def test_a_box_is_hidden_and_the_whole_is_the_target() -> None:
    given = batch()
    before = given["image"].clone()
    damaged, whole = hiding()(given, "cpu")
    assert torch.equal(whole, before) and torch.equal(given["image"], before)
    for one in damaged == 0:
        assert one.sum() == 3 * 2 * 3, "in all sequences"
        rows, columns = one[0].any(1).nonzero().flatten(), one[0].any(0).nonzero().flatten()
        assert (rows.tolist(), columns.tolist()) == (
            list(range(int(rows[0]), int(rows[0]) + 2)),
            list(range(int(columns[0]), int(columns[0]) + 3)),
        )
    assert torch.equal(damaged[damaged != 0], before[damaged != 0])


def test_the_damage_depends_on_seed_and_image_alone() -> None:
    first, second = hiding(), hiding()
    second(batch(5))  # what came before does not matter
    given = batch()
    alone = {"image": given["image"][1:]}
    assert torch.equal(first(given)[0][1:], second(alone)[0])
    assert any(not torch.equal(hiding(seed)(given)[0], hiding()(given)[0]) for seed in range(1, 4))


def test_shuffling_keeps_all_values() -> None:
    shuffle = RandCoarseShuffled("image", holes=3, spatial_size=4, prob=1.0)
    damaged, whole = RestorationBatch(Compose([shuffle]))(batch())
    assert not torch.equal(damaged, whole)
    torch.testing.assert_close(damaged.flatten().sort().values, whole.flatten().sort().values)


@pytest.mark.parametrize("meta", [False, True])
def test_in_a_trainer(meta: bool) -> None:
    image = batch()["image"]
    data = [{"image": MetaTensor(image) if meta else image}]
    network = nn.Conv2d(3, 3, 1)
    seen: list[torch.Tensor] = []

    def loss(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target)
        return nn.functional.smooth_l1_loss(pred, target)

    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        prepare_batch=hiding(),
    ).run()
    assert torch.equal(seen[0], image)
