"""What holds for every loss: shapes, precision, gradients, invariances, minimum, use from a config."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss
from torch.nn.modules.loss import _Loss

from medseg_ext import losses

UNIONS = {"3": [1, 2]}
CONFIGS: dict[str, dict[str, Any]] = {
    "region": {"_target_": "medseg_ext.losses.RegionDiceBCELoss"},
    "region_no_ignore": {"_target_": "medseg_ext.losses.RegionDiceBCELoss", "ignore_value": None, "smooth": 0.0},
    "focal_tversky": {"_target_": "medseg_ext.losses.FocalTverskyLoss", "sigmoid": True},
    "focal_tversky_batch": {"_target_": "medseg_ext.losses.FocalTverskyLoss", "sigmoid": True, "batch": True},
    "log_cosh": {"_target_": "medseg_ext.losses.LogCoshDiceLoss", "sigmoid": True},
    "log_cosh_batch": {"_target_": "medseg_ext.losses.LogCoshDiceLoss", "sigmoid": True, "batch": True},
    "lovasz": {"_target_": "medseg_ext.losses.LovaszHingeLoss"},
    "lovasz_batch": {"_target_": "medseg_ext.losses.LovaszHingeLoss", "batch": True},
    "focal_tversky_softmax": {
        "_target_": "medseg_ext.losses.FocalTverskyLoss",
        "softmax": True,
        "to_onehot_y": True,
        "include_background": False,
    },
    "log_cosh_softmax": {"_target_": "medseg_ext.losses.LogCoshDiceLoss", "softmax": True, "to_onehot_y": True},
    "marginal": {"_target_": "medseg_ext.losses.MarginalRegionLoss", "unions": UNIONS},
}
CLASS_MAPS = {"focal_tversky_softmax", "log_cosh_softmax", "marginal"}
SHAPES = [(2, 3, 5, 4), (2, 3, 4, 3, 2)]
NAMES = list(CONFIGS)


def make(name: str) -> _Loss:
    parser = ConfigParser(json.loads(json.dumps({"loss": CONFIGS[name]})))
    return parser.get_parsed_content("loss")


def example(name: str, shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in float64 without ties, and a target that fits the loss."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name not in CLASS_MAPS:
        return logits, (torch.rand(shape, generator=generator) < 0.4).float()
    highest = 4 if name == "marginal" else 3
    return logits, torch.randint(0, highest, (shape[0], 1, *shape[2:]), generator=generator).float()


def perfect(name: str, target: torch.Tensor, certainty: float) -> torch.Tensor:
    """Logits that say the target, the louder the greater the certainty."""
    if name in CLASS_MAPS:
        target = torch.cat([(target == 0), (target == 1) | (target == 3), (target == 2)], 1).float()
    return certainty * (2 * target - 1)


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, shape: tuple[int, ...]) -> None:
    logits, target = example(name, shape)
    loss = make(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, target.double()), (logits.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_low_precision_input_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits, target = example(name, (2, 3, 16, 16))
    low = (logits * 4).to(dtype).requires_grad_()
    loss = make(name)
    value = loss(low, target)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(low.detach().float(), target))
    assert low.grad is not None and low.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: str) -> None:
    logits, target = example(name, (2, 3, 8, 8))
    loss = make(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits.bfloat16(), target)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(logits.bfloat16(), target))


@pytest.mark.parametrize("fill", [0, 1])
@pytest.mark.parametrize("scale", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("name", NAMES)
def test_empty_and_full_masks_stay_finite(name: str, scale: float, fill: int) -> None:
    logits, target = example(name, (2, 3, 8, 8))
    saturated = (logits.sign() * abs(scale) if scale < 0 else torch.full_like(logits, scale)).bfloat16()
    saturated.requires_grad_()
    value = make(name)(saturated, torch.full_like(target, fill))
    value.backward()
    assert value.isfinite()
    assert saturated.grad is not None and saturated.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_order_of_samples_does_not_matter(name: str) -> None:
    logits, target = example(name, (5, 3, 6, 6))
    loss, order = make(name), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(loss(logits[order], target[order]), loss(logits, target))


@pytest.mark.parametrize("name", NAMES)
def test_order_of_voxels_does_not_matter(name: str) -> None:
    logits, target = example(name, (2, 3, 6, 5))
    loss, order = make(name), torch.randperm(30, generator=torch.Generator().manual_seed(1))
    shuffled = loss(logits.flatten(2)[..., order], target.flatten(2)[..., order])
    torch.testing.assert_close(shuffled, loss(logits, target))
    volume = loss(logits.reshape(2, 3, 6, 5, 1), target.reshape(2, -1, 6, 5, 1))
    torch.testing.assert_close(volume, loss(logits, target))


@pytest.mark.parametrize("name", NAMES)
def test_falls_to_zero_as_the_prediction_improves(name: str) -> None:
    logits, target = example(name, (2, 3, 8, 8))
    if name == "marginal":  # every class and union has to be reached by one right answer
        target[0], target[1] = target[0].clamp_max(2), target[1].clamp(0, 1) * 3
    loss, right = make(name), perfect(name, target, 1.0)
    values = [loss(torch.lerp(logits, 20 * right.double(), weight), target).item() for weight in (0.0, 0.05, 0.1, 1.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[1]
    assert values[-1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_at_the_perfect_prediction_is_finite(name: str) -> None:
    _, target = example(name, (2, 3, 8, 8))
    for certainty in (10.0, 1000.0):
        logits = perfect(name, target, certainty).requires_grad_()
        make(name)(logits, target).backward()
        assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_descent_finds_the_target(name: str) -> None:
    _, target = example(name, (2, 3, 4, 4))
    if name == "marginal":
        target = target.clamp_max(2)
    loss = make(name)
    logits = torch.zeros(2, 3, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    if name in CLASS_MAPS:
        assert torch.equal(logits.argmax(1), target[:, 0].long())
    else:
        assert torch.equal(logits > 0, target > 0)


@pytest.mark.parametrize("name", NAMES)
def test_takes_monai_tensors_and_deep_supervision(name: str) -> None:
    logits, target = example(name, (2, 3, 8, 8))
    loss = make(name)
    value = loss(MetaTensor(logits), MetaTensor(target))
    assert type(value) is torch.Tensor
    torch.testing.assert_close(value, loss(logits, target))
    both = DeepSupervisionLoss(loss)([logits, logits[..., ::2, ::2]], target)
    assert both.isfinite() and both > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "marginal"])
def test_reductions_agree(name: str) -> None:
    logits, target = example(name, (2, 3, 6, 6))
    values = {
        reduction: ConfigParser({"loss": {**CONFIGS[name], "reduction": reduction}}).get_parsed_content("loss")(
            logits, target
        )
        for reduction in ("mean", "sum", "none")
    }
    assert values["none"].ndim in (1, 2) and values["none"].numel() > 1
    torch.testing.assert_close(values["none"].mean(), values["mean"])
    torch.testing.assert_close(values["none"].sum(), values["sum"])


@pytest.mark.parametrize("name", sorted(set(NAMES) - CLASS_MAPS))
def test_boolean_target_is_taken(name: str) -> None:
    logits, target = example(name, (2, 3, 6, 6))
    torch.testing.assert_close(make(name)(logits, target.bool()), make(name)(logits, target))


def test_exports_are_sorted_and_documented() -> None:
    assert losses.__all__ == sorted(losses.__all__)
    for name in losses.__all__:
        documentation = getattr(losses, name).__doc__
        assert "https://doi.org/" in documentation and "Empty masks:" in documentation
