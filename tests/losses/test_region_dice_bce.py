from __future__ import annotations

import math

import pytest
import torch

from medseg_ext.losses import RegionDiceBCELoss

LN3 = math.log(3)  # sigmoid(LN3) is 3/4


def test_hand_computed() -> None:
    # probabilities 3/4 in the mask and 1/4 beside it: I = 3/4, P = 1, T = 1
    logits, target = torch.tensor([[[LN3, -LN3]]]), torch.tensor([[[1.0, 0.0]]])
    dice, entropy = 1 - (2 * 0.75 + 1) / (1 + 1 + 1), -math.log(0.75)
    assert RegionDiceBCELoss()(logits, target).item() == pytest.approx(0.454349, abs=1e-6)
    assert RegionDiceBCELoss(bce_weight=0)(logits, target).item() == pytest.approx(dice)
    assert RegionDiceBCELoss(dice_weight=0)(logits, target).item() == pytest.approx(entropy)
    assert RegionDiceBCELoss(2, 3)(logits, target).item() == pytest.approx(2 * dice + 3 * entropy)
    assert RegionDiceBCELoss(smooth=0, bce_weight=0)(logits, target).item() == pytest.approx(0.25)


def test_dice_sums_run_over_the_batch() -> None:
    # the second sample is empty and predicted at 1/4: I = 3/2, P = 2, T = 2 over both samples
    logits = torch.tensor([[[LN3, LN3]], [[-LN3, -LN3]]])
    target = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert RegionDiceBCELoss(bce_weight=0, smooth=0)(logits, target).item() == pytest.approx(1 - 3 / 4)


@pytest.mark.parametrize(("smooth", "expected"), [(1.0, 0.5), (3.0, 0.25), (0.0, 1.0)])
def test_empty_mask_costs_the_false_positives(smooth: float, expected: float) -> None:
    logits, target = torch.full((1, 1, 2, 2), -LN3), torch.zeros(1, 1, 2, 2)  # P = 4 * 1/4 = 1
    assert RegionDiceBCELoss(bce_weight=0, smooth=smooth)(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_both_empty_is_zero(smooth: float) -> None:
    logits = torch.full((2, 1, 2, 2), -1e4, requires_grad=True)
    value = RegionDiceBCELoss(smooth=smooth)(logits, torch.zeros(2, 1, 2, 2))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_ignored_voxels_take_no_part() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, target = torch.randn(2, 3, 8, generator=generator), (torch.rand(2, 3, 8, generator=generator) < 0.5).float()
    padded = torch.cat([logits, torch.full((2, 3, 5), torch.nan)], 2).requires_grad_()
    padded_target = torch.cat([target, torch.full((2, 3, 5), -1.0)], 2)
    value = RegionDiceBCELoss()(padded, padded_target)
    value.backward()
    torch.testing.assert_close(value, RegionDiceBCELoss(ignore_value=None)(logits, target))
    assert padded.grad is not None
    assert (padded.grad[..., 8:] == 0).all() and (padded.grad[..., :8] != 0).all()


def test_region_unknown_in_one_sample_learns_from_the_other() -> None:
    generator = torch.Generator().manual_seed(4)
    logits, target = torch.randn(2, 2, 6, generator=generator), (torch.rand(2, 2, 6, generator=generator) < 0.5).float()
    target[1, 0] = -1
    values = RegionDiceBCELoss(reduction="none")(logits, target)
    alone = RegionDiceBCELoss(reduction="none")
    torch.testing.assert_close(values[0], alone(logits[:1, :1], target[:1, :1])[0])
    torch.testing.assert_close(values[1], alone(logits[:, 1:], target[:, 1:])[0])


def test_region_known_nowhere_leaves_the_mean() -> None:
    logits, target = torch.tensor([[[LN3, -LN3], [5.0, 5.0]]]), torch.tensor([[[1.0, 0.0], [-1.0, -1.0]]])
    assert RegionDiceBCELoss()(logits, target).item() == pytest.approx(0.454349, abs=1e-6)
    assert RegionDiceBCELoss(reduction="none")(logits, target).tolist() == pytest.approx([0.454349, 0], abs=1e-6)


def test_nothing_known_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    value = RegionDiceBCELoss()(logits, torch.full((2, 3, 4), -1.0))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_other_ignore_value() -> None:
    logits, target = torch.tensor([[[LN3, -LN3, 9.0]]]), torch.tensor([[[1.0, 0.0, 255.0]]])
    assert RegionDiceBCELoss(ignore_value=255)(logits, target).item() == pytest.approx(0.454349, abs=1e-6)


def test_refuses_shapes_that_only_broadcast() -> None:
    with pytest.raises(ValueError, match=r"target: found shape \(2, 1, 4, 4\), allowed that of input, \(2, 3, 4, 4\)"):
        RegionDiceBCELoss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="spatial"):
        RegionDiceBCELoss()(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_refuses_negative_arguments(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"(dice_weight|bce_weight|smooth): found -1, allowed 0 or more"):
        RegionDiceBCELoss(*arguments)
