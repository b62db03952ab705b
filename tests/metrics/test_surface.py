import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_hausdorff_distance

from medseg_ext.metrics import hd95_of_slices, hd95_px

SLICES = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def one_slice(*points, shape=(4, 4)):
    mask = np.zeros((*shape, 1), dtype=bool)
    for row, column in points:
        mask[row, column] = True
    return mask


def outline_points(mask):
    padded = np.pad(mask, 1)
    return [
        (r, c)
        for r, c in np.argwhere(mask)
        if not (padded[r, c + 1] and padded[r + 2, c + 1] and padded[r + 1, c] and padded[r + 1, c + 2])
    ]


def all_pairs(pred, truth):
    a, b = np.array(outline_points(pred), float), np.array(outline_points(truth), float)
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def test_two_points():
    assert hd95_px(one_slice((0, 0)), one_slice((3, 3))) == pytest.approx(18**0.5)


def test_two_points_against_one():
    # from the prediction 0 and 3, of which the 95th percentile is 2.85; from the truth 0
    assert hd95_px(one_slice((0, 0), (0, 3)), one_slice((0, 0))) == pytest.approx(2.85)


def test_the_inside_of_a_mask_does_not_count():
    full, hole = np.ones((5, 5, 1), bool), np.ones((5, 5, 1), bool)
    hole[2, 2] = False  # makes its four neighbours outline: they are 1 away from the rim, as is no more than 5 %
    assert hd95_px(full, full) == 0
    assert 0 < hd95_px(full, hole) <= 1


def test_mean_over_slices_that_hold_both():
    pred = np.concatenate([one_slice((0, 0)), one_slice((0, 0)), one_slice(), one_slice((1, 1)), one_slice()], axis=2)
    truth = np.concatenate([one_slice((0, 2)), one_slice(), one_slice((3, 3)), one_slice((1, 1)), one_slice()], axis=2)
    np.testing.assert_array_equal(hd95_of_slices(pred, truth), [2, np.nan, np.nan, 0, np.nan])
    assert hd95_px(pred, truth) == 1


def test_no_slice_with_both_is_undefined():
    pred = np.concatenate([one_slice((0, 0)), one_slice()], axis=2)
    assert np.isnan(hd95_px(pred, pred[:, :, ::-1]))
    assert np.isnan(hd95_px(np.zeros_like(pred), np.zeros_like(pred)))


@settings(max_examples=60, deadline=None)
@given(SLICES)
def test_against_all_pairs(masks):
    pred, truth = masks
    assume(pred.any() and truth.any())
    assert hd95_px(pred[..., None], truth[..., None]) == pytest.approx(all_pairs(pred, truth))


def test_against_monai():
    rng = np.random.default_rng(3)
    pred, truth = rng.random((2, 24, 20, 6)) > 0.7
    theirs = compute_hausdorff_distance(
        torch.from_numpy(np.moveaxis(pred, 2, 0)[:, None]),
        torch.from_numpy(np.moveaxis(truth, 2, 0)[:, None]),
        include_background=True,
        percentile=95,
    )
    np.testing.assert_allclose(hd95_of_slices(pred, truth), theirs[:, 0], rtol=1e-5)


def test_needs_three_axes():
    with pytest.raises(ValueError, match=r"allowed \(rows, columns, slices\)"):
        hd95_px(np.ones((4, 4), bool), np.ones((4, 4), bool))
