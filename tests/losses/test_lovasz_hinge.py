from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_ext.losses import LovaszHingeLoss
from medseg_ext.losses.lovasz_hinge import jaccard_steps

# coarse values, so that ties happen
VOXELS = st.lists(st.tuples(st.integers(-12, 12).map(lambda x: x / 4), st.booleans()), min_size=1, max_size=6)
FAST = settings(max_examples=40, deadline=None)


def tensors(voxels: list[tuple[float, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    logits, truth = zip(*voxels, strict=True)
    return torch.tensor(logits, dtype=torch.float64).reshape(1, 1, -1), torch.tensor(truth).double().reshape(1, 1, -1)


def jaccard_loss(wrong: set[int], mask: set[int]) -> float:
    """1 - IoU of the mask and the mask with the wrong voxels flipped."""
    predicted = mask ^ wrong
    union = mask | predicted
    return 1 - len(mask & predicted) / len(union) if union else 0.0


def hinge(voxels: list[tuple[float, bool]]) -> tuple[list[float], set[int]]:
    errors = [max(0.0, 1 - logit if inside else 1 + logit) for logit, inside in voxels]
    return errors, {index for index, (_, inside) in enumerate(voxels) if inside}


def by_order(errors: list[float], mask: set[int], order: tuple[int, ...]) -> float:
    return sum(
        errors[voxel] * (jaccard_loss(set(order[: i + 1]), mask) - jaccard_loss(set(order[:i]), mask))
        for i, voxel in enumerate(order)
    )


def test_hand_computed() -> None:
    # errors 0 and 0.5 in the mask, 0.75 and 2 outside. In falling order outside, outside, inside, inside the
    # Jaccard loss goes 1 - 2/3, 1 - 2/4, 1 - 1/4, 1: steps 1/3, 1/6, 1/4, 1/4
    logits, target = torch.tensor([[[2.0, 0.5, -0.25, 1.0]]]), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    expected = 2 / 3 + 0.75 / 6 + 0.5 / 4
    assert LovaszHingeLoss()(logits, target).item() == pytest.approx(expected)
    steps = jaccard_steps(torch.tensor([[False, False, True, True], [True, False, False, True]]))
    np.testing.assert_allclose(steps, [[1 / 3, 1 / 6, 1 / 4, 1 / 4], [1 / 2, 1 / 6, 1 / 12, 1 / 4]], rtol=1e-6)


@FAST
@given(VOXELS)
def test_against_the_set_function(voxels: list[tuple[float, bool]]) -> None:
    errors, mask = hinge(voxels)
    order = tuple(sorted(range(len(errors)), key=lambda voxel: -errors[voxel]))
    assert LovaszHingeLoss()(*tensors(voxels)).item() == pytest.approx(by_order(errors, mask, order), abs=1e-9)


@FAST
@given(VOXELS)
def test_against_the_level_sets(voxels: list[tuple[float, bool]]) -> None:
    # the Lovasz extension is the integral over t of the set function of {error > t}
    errors, mask = hinge(voxels)
    levels = sorted({0.0, *errors})
    expected = sum(
        (upper - lower) * jaccard_loss({voxel for voxel, error in enumerate(errors) if error > lower}, mask)
        for lower, upper in itertools.pairwise(levels)
    )
    assert LovaszHingeLoss()(*tensors(voxels)).item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(VOXELS.filter(lambda voxels: len(voxels) <= 5))
def test_is_the_greatest_over_all_orders(voxels: list[tuple[float, bool]]) -> None:
    # the Jaccard loss is submodular, so its Lovasz extension is its convex closure
    errors, mask = hinge(voxels)
    expected = max(by_order(errors, mask, order) for order in itertools.permutations(range(len(errors))))
    assert LovaszHingeLoss()(*tensors(voxels)).item() == pytest.approx(expected, abs=1e-9)


@FAST
@given(VOXELS)
def test_bounds_the_jaccard_loss_of_the_mask(voxels: list[tuple[float, bool]]) -> None:
    _, mask = hinge(voxels)
    wrong = {index for index, (logit, inside) in enumerate(voxels) if (logit > 0) != inside}
    assert LovaszHingeLoss()(*tensors(voxels)).item() >= jaccard_loss(wrong, mask) - 1e-9


@FAST
@given(VOXELS, st.integers(0, 2**31))
def test_convex_in_the_logits(voxels: list[tuple[float, bool]], seed: int) -> None:
    logits, target = tensors(voxels)
    other = 3 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss = LovaszHingeLoss()
    assert loss((logits + other) / 2, target) <= (loss(logits, target) + loss(other, target)) / 2 + 1e-9


def test_zero_from_a_margin_of_one() -> None:
    target = torch.tensor([[[1.0, 0.0, 0.0]]])
    assert LovaszHingeLoss()(2 * target - 1, target).item() == 0
    assert LovaszHingeLoss()(1.8 * target - 0.9, target).item() == pytest.approx(0.1)


def test_empty_mask_costs_the_greatest_error() -> None:
    logits = torch.tensor([[[-3.0, 0.5, -0.5]]], requires_grad=True)
    value = LovaszHingeLoss()(logits, torch.zeros(1, 1, 3))
    value.backward()
    assert value.item() == 1.5
    assert logits.grad is not None and logits.grad.tolist() == [[[0, 1, 0]]]


def test_batch_ranks_all_samples_together() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(3, 2, 7, generator=generator), (torch.rand(3, 2, 7, generator=generator) < 0.4).float()
    joined = LovaszHingeLoss()(*(x.transpose(0, 1).reshape(1, 2, 21) for x in (logits, target)))
    torch.testing.assert_close(LovaszHingeLoss(batch=True)(logits, target), joined)
    each = torch.stack([LovaszHingeLoss()(logits[i : i + 1], target[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(LovaszHingeLoss()(logits, target), each.mean())


@pytest.mark.parametrize("batch", [False, True])
def test_ignored_voxels_take_no_part(batch: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, target = torch.randn(2, 2, 6, generator=generator), (torch.rand(2, 2, 6, generator=generator) < 0.5).float()
    padded = torch.cat([torch.full((2, 2, 3), torch.nan), logits], 2).requires_grad_()
    value = LovaszHingeLoss(batch=batch)(padded, torch.cat([torch.full((2, 2, 3), -1.0), target], 2))
    value.backward()
    torch.testing.assert_close(value, LovaszHingeLoss(batch=batch, ignore_value=None)(logits, target))
    assert padded.grad is not None and (padded.grad[..., :3] == 0).all()


def test_other_ignore_value() -> None:
    logits, target = torch.tensor([[[0.0, -1.0, -5.0]]]), torch.tensor([[[1.0, 0.0, 255.0]]])
    assert LovaszHingeLoss(ignore_value=255)(logits, target).item() == pytest.approx(1)


def test_samples_without_known_voxel_leave_the_mean() -> None:
    logits, target = torch.tensor([[[0.0, 0.0]], [[3.0, 3.0]]]), torch.tensor([[[1.0, 0.0]], [[-1.0, -1.0]]])
    assert LovaszHingeLoss()(logits, target).item() == pytest.approx(1)
    assert LovaszHingeLoss()(logits[1:], target[1:]).item() == 0


def test_steps_keep_their_digits_in_a_volume() -> None:
    truth = torch.rand(1, 500_000, generator=torch.Generator().manual_seed(0)) < 0.01
    single, double = jaccard_steps(truth), jaccard_steps(truth, torch.float64)
    assert double.sum().item() == pytest.approx(1)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)
