import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg_ext.metrics import dice, iou, precision, recall

# 4x4x1: truth is the left half of the middle rows (4 voxels), the prediction its column 1 to 3 (6), 2 in common
TRUTH = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)[..., None]
PRED = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)[..., None]
EMPTY = np.zeros((4, 4, 1), dtype=bool)

MASK = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4))
MASKS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=4).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def test_by_hand():
    assert dice(PRED, TRUTH) == 2 * 2 / (6 + 4)
    assert iou(PRED, TRUTH) == 2 / 8
    assert precision(PRED, TRUTH) == 2 / 6
    assert recall(PRED, TRUTH) == 2 / 4


@pytest.mark.parametrize("measure", [dice, iou, precision, recall])
def test_empty_masks(measure):
    assert measure(EMPTY, EMPTY) == 1
    assert measure(EMPTY, TRUTH) == 0
    assert measure(PRED, EMPTY) == 0


@pytest.mark.parametrize(
    "convert", [torch.from_numpy, lambda mask: torch.from_numpy(mask).to(torch.bfloat16), np.uint8]
)
def test_other_containers_give_the_same(convert):
    assert dice(convert(PRED), convert(TRUTH)) == 0.4


@given(MASKS)
def test_properties(masks):
    a, b = masks
    d = dice(a, b)
    assert 0 <= d <= 1
    assert d == dice(b, a)
    assert iou(a, b) == pytest.approx(d / (2 - d))
    assert precision(a, b) == recall(b, a)
    if a.any() and b.any() and d:
        p, r = precision(a, b), recall(a, b)
        assert d == pytest.approx(2 * p * r / (p + r))


@given(MASK)
def test_itself(mask):
    assert dice(mask, mask) == iou(mask, mask) == precision(mask, mask) == recall(mask, mask) == 1


def test_refuses_a_probability_map():
    with pytest.raises(ValueError, match=r"pred: found values besides 0 and 1"):
        dice(np.full((4, 4, 1), 0.3), TRUTH)


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"found shape \(4, 4, 2\), allowed that of truth, \(4, 4, 1\)"):
        dice(np.zeros((4, 4, 2), bool), TRUTH)
