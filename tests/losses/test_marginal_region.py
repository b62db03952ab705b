from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from medseg_ext.losses import MarginalRegionLoss

UNIONS = {4: [1, 2, 3], 5: [1, 3]}  # 4: whole tumor, 5: tumor core; 1 necrosis, 2 edema, 3 enhancing


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def voxels(*rows: list[float]) -> torch.Tensor:
    """Logits (1, C, N) whose softmax is the given probabilities a voxel."""
    return torch.tensor(rows).log().T[None]


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, -1)


def test_hand_computed() -> None:
    logits, target = voxels([0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]), numbers(4, 0)
    entropy = -(math.log(0.9) + math.log(0.7)) / 2
    dice = 1 - (2 * 0.9 + 1) / (0.9 + 0.3 + 1 + 1)  # the whole tumor alone; of its parts nothing is known
    loss = MarginalRegionLoss(unions={4: [1, 2, 3]})
    assert loss(logits, target).item() == pytest.approx(dice + entropy)
    assert loss(logits, target).item() == pytest.approx(0.356018, abs=1e-6)
    weighted = MarginalRegionLoss(unions={4: [1, 2, 3]}, dice_weight=2, ce_weight=3)
    assert weighted(logits, target).item() == pytest.approx(2 * dice + 3 * entropy)


def test_full_annotation_is_cross_entropy_and_dice_per_class() -> None:
    logits, target = random_logits(2, 4, 6, 6), torch.randint(0, 4, (2, 1, 6, 6))
    probability, one_hot = logits.softmax(1), functional.one_hot(target[:, 0], 4).movedim(-1, 1)
    axes = (0, 2, 3)
    dice = (2 * (probability * one_hot).sum(axes) + 1) / (probability.sum(axes) + one_hot.sum(axes) + 1)
    expected = (1 - dice[1:]).mean() + functional.cross_entropy(logits, target[:, 0])
    torch.testing.assert_close(MarginalRegionLoss()(logits, target), expected)
    torch.testing.assert_close(MarginalRegionLoss(UNIONS, regions=[[1], [2], [3]])(logits, target), expected)


def test_union_alone_is_the_loss_of_merged_classes() -> None:
    logits, whole = random_logits(2, 4, 6, 6), torch.randint(0, 2, (2, 1, 6, 6))
    merged = torch.cat([logits[:, :1], logits[:, 1:].logsumexp(1, keepdim=True)], 1)
    torch.testing.assert_close(MarginalRegionLoss(UNIONS)(logits, 4 * whole), MarginalRegionLoss()(merged, whole))


def test_union_leaves_the_share_of_its_classes_free() -> None:
    logits, target = random_logits(1, 4, 8).requires_grad_(), 4 * torch.randint(0, 2, (1, 1, 8))
    loss = MarginalRegionLoss(UNIONS)
    value = loss(logits, target)
    value.backward()
    # probability moves from necrosis to edema, their sum stays
    moved = logits.detach().softmax(1)
    moved[:, 2] += moved[:, 1] / 2
    moved[:, 1] /= 2
    torch.testing.assert_close(loss(moved.log(), target), value.detach())
    assert logits.grad is not None
    share = logits.detach()[:, 1:].softmax(1)
    torch.testing.assert_close(logits.grad[:, 1:], share * logits.grad[:, 1:].sum(1, keepdim=True))


def test_regions_count_where_membership_is_known() -> None:
    # first sample in full, second the whole tumor only, third core and edema
    target = torch.cat([numbers(0, 1, 2, 3), numbers(0, 0, 4, 4), numbers(0, 2, 5, 5)])
    logits = random_logits(3, 4, 4)
    probability = logits.softmax(1)

    def dice(classes: list[int], truth: list[list[int]], samples: list[int]) -> float:
        p, t = probability[samples][:, classes].sum(1), torch.tensor(truth)[samples]
        return ((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)).item()

    whole = [[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    core = [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]
    edema = [[0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    enhancing = [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    expected = {
        (1, 2, 3): dice([1, 2, 3], whole, [0, 1, 2]),
        (1, 3): dice([1, 3], core, [0, 2]),
        (2,): dice([2], edema, [0, 2]),
        (3,): dice([3], enhancing, [0]),
    }
    for region, value in expected.items():
        loss = MarginalRegionLoss(UNIONS, regions=[list(region)], ce_weight=0)
        assert loss(logits, target).item() == pytest.approx(1 - value)
    everything = MarginalRegionLoss(UNIONS, regions=[list(region) for region in expected], ce_weight=0)
    assert everything(logits, target).item() == pytest.approx(1 - sum(expected.values()) / 4)


def test_ignored_voxels_take_no_part() -> None:
    logits, target = random_logits(2, 4, 6), torch.randint(0, 6, (2, 1, 6))
    padded = torch.cat([logits, torch.full((2, 4, 2), torch.nan)], 2).requires_grad_()
    loss = MarginalRegionLoss(UNIONS)
    value = loss(padded, functional.pad(target, (0, 2), value=-1))
    value.backward()
    torch.testing.assert_close(value.detach(), loss(logits, target))
    assert padded.grad is not None and (padded.grad[..., 6:] == 0).all()


def test_sample_that_takes_no_part_knows_no_region() -> None:
    logits, target = random_logits(2, 4, 6), torch.cat([numbers(0, 0, 4, 4, 4, 0), torch.full((1, 1, 6), -1)])
    loss = MarginalRegionLoss(UNIONS)
    torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]))


def test_nothing_known_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(2, 4, 3, requires_grad=True)
    value = MarginalRegionLoss(UNIONS)(logits, torch.full((2, 1, 3), -1))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_empty_mask_knows_every_region() -> None:
    logits = voxels([0.4, 0.1, 0.2, 0.3], [0.4, 0.1, 0.2, 0.3])
    loss = MarginalRegionLoss(UNIONS, ce_weight=0)
    sums = [0.2, 0.4, 0.6, 1.2, 0.8]  # classes 1, 2, 3, whole, core over two voxels
    expected = sum(value / (value + 1) for value in sums) / 5
    assert loss(logits, numbers(0, 0)).item() == pytest.approx(expected)
    empty = torch.tensor([50.0, -50, -50, -50]).reshape(1, 4, 1)
    assert loss(empty, numbers(0)).item() == pytest.approx(0, abs=1e-6)


def test_confident_mistake_stays_finite() -> None:
    logits = torch.tensor([1e4, -1e4, -1e4, -1e4]).reshape(1, 4, 1).bfloat16().requires_grad_()
    value = MarginalRegionLoss(UNIONS, dice_weight=0)(logits, numbers(5))
    value.backward()
    assert value.item() == pytest.approx(2e4, rel=0.01)
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_refused_targets() -> None:
    loss = MarginalRegionLoss(UNIONS)
    with pytest.raises(ValueError, match=r"target: found \[7, 255\], allowed classes 0 to 3, unions \[4, 5\] and -1"):
        loss(torch.zeros(1, 4, 3), numbers(0, 255, 7))
    with pytest.raises(ValueError, match=r"target: found shape \(1, 4, 3\), allowed \(1, 1, 3\)"):
        loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match="2 or more classes"):
        loss(torch.zeros(1, 1, 3), numbers(0, 0, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unions": {3: [1, 2]}}, "found 3 for classes"),
        ({"unions": {9: [1, 4]}}, "found 9 for classes"),
        ({"regions": [[4]]}, "regions: found classes"),
    ],
)
def test_refuses_what_does_not_fit_the_network(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarginalRegionLoss(**arguments)(torch.zeros(1, 4, 3), numbers(0, 1, 2))


@pytest.mark.parametrize(
    "arguments", [{"unions": {4: []}}, {"regions": [[-1, 2]]}, {"unions": {-1: [1, 2]}}, {"smooth": -1}]
)
def test_refused_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        MarginalRegionLoss(**arguments)
