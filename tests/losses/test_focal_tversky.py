from __future__ import annotations

import pytest
import torch
from monai.losses import TverskyLoss

from medseg_ext.losses import FocalTverskyLoss

PROBABILITY, TARGET = torch.tensor([[[0.8, 0.4]]]), torch.tensor([[[1.0, 0.0]]])  # TP 0.8, FP 0.4, FN 0.2


def test_hand_computed() -> None:
    # Tversky index (0.8 + 1) / (0.8 + 0.3 * 0.4 + 0.7 * 0.2 + 1) = 1.8 / 2.06
    loss = FocalTverskyLoss(smooth=1.0)
    assert loss(PROBABILITY, TARGET).item() == pytest.approx((0.26 / 2.06) ** 0.75)
    assert loss(PROBABILITY, TARGET).item() == pytest.approx(0.211753, abs=1e-5)
    assert FocalTverskyLoss(gamma=2)(PROBABILITY, TARGET).item() == pytest.approx((0.26 / 1.06) ** 0.5, abs=1e-5)


def test_alpha_weighs_false_positives() -> None:
    false_positive = FocalTverskyLoss(alpha=1, beta=0, gamma=1)(PROBABILITY, TARGET)
    false_negative = FocalTverskyLoss(alpha=0, beta=1, gamma=1)(PROBABILITY, TARGET)
    assert false_positive.item() == pytest.approx(0.4 / 1.2, abs=1e-5)
    assert false_negative.item() == pytest.approx(0.2 / 1.0, abs=1e-5)


@pytest.mark.parametrize("batch", [False, True])
def test_gamma_one_is_the_tversky_loss(batch: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 5, 5, generator=generator)
    target = (torch.rand(3, 2, 5, 5, generator=generator) < 0.3).float()
    expected = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=batch)(logits, target)
    torch.testing.assert_close(FocalTverskyLoss(sigmoid=True, gamma=1, batch=batch)(logits, target), expected)


def test_focus_raises_the_share_of_the_worse_region() -> None:
    probability, target = torch.tensor([[[0.9], [0.3]]]), torch.ones(1, 2, 1)
    good, bad = FocalTverskyLoss(reduction="none", gamma=0.5)(probability, target)[0]
    plain_good, plain_bad = FocalTverskyLoss(reduction="none", gamma=1)(probability, target)[0]
    assert bad / good > plain_bad / plain_good


def test_exactly_zero_with_a_finite_slope_at_the_perfect_prediction() -> None:
    probability = TARGET.clone().requires_grad_()
    value = FocalTverskyLoss()(probability, TARGET)
    value.backward()
    assert value.item() == 0
    assert probability.grad is not None and probability.grad.isfinite().all()


def test_continuous_where_the_line_takes_over() -> None:
    missing = torch.tensor([0.9e-6, 1.1e-6], dtype=torch.float64)
    probability, target = (1 - missing).reshape(2, 1, 1), torch.ones(2, 1, 1, dtype=torch.float64)
    below, above = FocalTverskyLoss(alpha=0, beta=1, reduction="none", smooth=1e-30)(probability, target).flatten()
    assert below.item() == pytest.approx(0.9e-6 * 1e-6**-0.25)
    assert above.item() == pytest.approx(1.1e-6**0.75)


@pytest.mark.parametrize(("smooth", "expected"), [(1.0, (1 - 1 / 1.3) ** 0.75), (0.01, (1 - 0.01 / 0.31) ** 0.75)])
def test_empty_mask(smooth: float, expected: float) -> None:
    empty = torch.zeros(1, 1, 4)
    assert FocalTverskyLoss(smooth=smooth)(torch.full((1, 1, 4), 0.25), empty).item() == pytest.approx(expected)
    assert FocalTverskyLoss(smooth=smooth)(empty, empty).item() == 0


def test_ignore_index_of_one_channel() -> None:
    probability, target = torch.tensor([[[0.8, 0.4, 0.9]]]), torch.tensor([[[1.0, 0.0, -1.0]]])
    value = FocalTverskyLoss(smooth=1.0, ignore_index=-1)(probability, target)
    assert value.item() == pytest.approx((0.26 / 2.06) ** 0.75)


def test_refused_arguments() -> None:
    with pytest.raises(ValueError, match="gamma: found 0"):
        FocalTverskyLoss(gamma=0)
    with pytest.raises(ValueError, match="smooth: found 0"):
        FocalTverskyLoss(smooth=0)
    with pytest.raises(ValueError, match="Incompatible"):
        FocalTverskyLoss(sigmoid=True, softmax=True)
