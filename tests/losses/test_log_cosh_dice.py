from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss

from medseg_ext.losses import LogCoshDiceLoss

PROBABILITY, TARGET = torch.tensor([[[0.8, 0.4]]]), torch.tensor([[[1.0, 0.0]]])


def test_hand_computed() -> None:
    # Dice loss 1 - (2 * 0.8 + 1) / (1.2 + 1 + 1) = 0.1875
    value = LogCoshDiceLoss(smooth=1.0)(PROBABILITY, TARGET).item()
    assert value == pytest.approx(math.log(math.cosh(0.1875)))
    assert value == pytest.approx(0.017476, abs=1e-6)


@pytest.mark.parametrize("batch", [False, True])
def test_is_log_cosh_of_monais_dice(batch: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 5, 5, generator=generator)
    target = (torch.rand(3, 2, 5, 5, generator=generator) < 0.3).float()
    dice = DiceLoss(sigmoid=True, batch=batch, reduction="none")(logits, target)
    value = LogCoshDiceLoss(sigmoid=True, batch=batch, reduction="none")(logits, target)
    assert value.shape == ((2,) if batch else (3, 2))
    torch.testing.assert_close(value.flatten(), torch.log(torch.cosh(dice)).flatten())


def test_bounds() -> None:
    assert LogCoshDiceLoss()(TARGET, TARGET).item() == 0
    assert LogCoshDiceLoss()(1 - TARGET, TARGET).item() == pytest.approx(math.log(math.cosh(1)), abs=1e-4)


def test_small_values_keep_their_digits() -> None:
    # a Dice loss of 1e-4, whose cosh differs from 1 by less than float32 shows
    value = LogCoshDiceLoss(smooth=1e-12)(torch.full((1, 1, 1), 1 - 2e-4), torch.ones(1, 1, 1)).item()
    assert value == pytest.approx(0.5e-8, rel=2e-3)


def test_slope_is_the_hyperbolic_tangent() -> None:
    probability = torch.tensor([[[0.5]]], requires_grad=True)
    dice_probability = probability.detach().clone().requires_grad_()
    LogCoshDiceLoss()(probability, torch.ones(1, 1, 1)).backward()
    dice = DiceLoss()(dice_probability, torch.ones(1, 1, 1))
    dice.backward()
    assert probability.grad is not None and dice_probability.grad is not None
    torch.testing.assert_close(probability.grad, torch.tanh(dice.detach()) * dice_probability.grad)


def test_empty_mask() -> None:
    empty = torch.zeros(1, 1, 4)
    # P = 1, so the Dice loss is 1 / (1 + smooth)
    value = LogCoshDiceLoss(smooth=1.0)(torch.full((1, 1, 4), 0.25), empty).item()
    assert value == pytest.approx(math.log(math.cosh(0.5)))
    assert LogCoshDiceLoss()(empty, empty).item() == 0


def test_refused_arguments() -> None:
    with pytest.raises(ValueError, match="smooth: found 0"):
        LogCoshDiceLoss(smooth=0)
    with pytest.raises(ValueError, match="Incompatible"):
        LogCoshDiceLoss(sigmoid=True, softmax=True)
