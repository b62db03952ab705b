import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_surface_dice
from monai.metrics.utils import _get_neighbour_code_to_normals_table

from medseg_ext.metrics import hd95_mm, normalised_surface_dice, surface_distances

EMPTY = np.zeros((4, 4, 4), bool)
MASKS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (0.9375, 0.9375, 5.0), (0.5, 0.7, 1.3)])


def voxels(*places, shape=(8, 8, 8)):
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(places))] = True
    return mask


def written_out(mask, spacing):
    """Surface points in mm and their areas, corner by corner."""
    normals = _get_neighbour_code_to_normals_table().numpy().astype(float)
    a, b, c = spacing
    found = []
    for corner in itertools.product(*(range(size + 1) for size in mask.shape)):
        code = 0
        for bit, step in zip((128, 64, 32, 16, 8, 4, 2, 1), itertools.product((-1, 0), repeat=3), strict=True):
            voxel = tuple(np.add(corner, step))
            if all(0 <= place < size for place, size in zip(voxel, mask.shape, strict=True)) and mask[voxel]:
                code += bit
        if 0 < code < 255:
            area = sum(np.linalg.norm(normal * [b * c, a * c, a * b]) for normal in normals[code])
            found.append((np.multiply(corner, spacing), area))
    points, areas = zip(*found, strict=True)
    return np.array(points), np.array(areas)


def directed(points, areas, others):
    distances = np.linalg.norm(points[:, None] - others[None], axis=2).min(1)
    order = np.argsort(distances)
    return distances[order], areas[order]


def test_two_voxels_by_hand():
    # corners at rows 0 and 1 against rows 3 and 4: half of each surface is 2 mm away, half 3 mm
    distances = surface_distances(voxels((0, 0, 0)), voxels((3, 0, 0)), (1, 1, 1))
    assert distances.pred_to_truth.tolist() == [2, 2, 2, 2, 3, 3, 3, 3]
    assert distances.pred_areas.sum() == pytest.approx(3**0.5)  # eight triangles that cut off a corner each
    assert distances.hausdorff() == distances.hausdorff(51) == 3
    assert distances.hausdorff(49) == 2
    assert [distances.overlap(tolerance) for tolerance in (1.9, 2, 3)] == [0, 0.5, 1]


def test_spacing_along_each_axis():
    above, below = voxels((0, 0, 1)), voxels((0, 0, 0))  # they share a face
    assert hd95_mm(above, below, (1, 1, 5)) == 5
    assert hd95_mm(above, below, (5, 5, 1)) == 1
    assert normalised_surface_dice(above, below, (1, 1, 5)) == 0.5
    assert normalised_surface_dice(above, below, (1, 1, 5), tolerance=5) == 1


def test_weighed_by_area():
    # beside a plate of 100 voxels one that is thicker by a voxel: less than 5 % of the surface lies 1 mm away
    truth = np.zeros((2, 10, 10), bool)
    truth[0] = True
    thick = truth.copy()
    thick[1, 5, 5] = True
    assert hd95_mm(thick, truth, (1, 1, 1)) == 0
    assert surface_distances(thick, truth, (1, 1, 1)).hausdorff(100) == 1


def test_empty_masks():
    full = voxels((1, 1, 1), shape=(4, 4, 4))
    assert hd95_mm(EMPTY, EMPTY, (1, 1, 1)) == 0
    assert hd95_mm(full, EMPTY, (1, 1, 1)) == hd95_mm(EMPTY, full, (1, 1, 1)) == 374
    assert normalised_surface_dice(EMPTY, EMPTY, (1, 1, 1)) == 1
    assert normalised_surface_dice(full, EMPTY, (1, 1, 1)) == normalised_surface_dice(EMPTY, full, (1, 1, 1)) == 0


@settings(max_examples=25, deadline=None)
@given(MASKS, SPACINGS)
def test_against_written_out(masks, spacing):
    pred, truth = masks
    assume(pred.any() and truth.any())
    found = surface_distances(pred, truth, spacing)
    ours, theirs = written_out(pred, spacing), written_out(truth, spacing)
    low = high = 0.0
    for (points, areas), (others, _), distances, weights in (
        (ours, theirs, found.pred_to_truth, found.pred_areas),
        (theirs, ours, found.truth_to_pred, found.truth_areas),
    ):
        expected, in_order = directed(points, areas, others)
        np.testing.assert_allclose(distances, expected, atol=1e-9)
        assert weights.sum() == pytest.approx(areas.sum())
        share = np.cumsum(in_order) / in_order.sum()  # its rounding may put a point to either side of 95 %
        low = max(low, expected[min(np.searchsorted(share, 0.95 - 1e-9), expected.size - 1)])
        high = max(high, expected[min(np.searchsorted(share, 0.95 + 1e-9), expected.size - 1)])
    assert low - 1e-9 <= found.hausdorff() <= high + 1e-9


@settings(max_examples=40, deadline=None)
@given(MASKS, SPACINGS)
def test_the_package_gives_the_same(masks, spacing):
    package = pytest.importorskip("surface_distance")
    pred, truth = masks
    assume(pred.any() and truth.any())  # elsewhere the package fails under NumPy 2
    expected = package.compute_surface_distances(truth, pred, spacing)
    found = surface_distances(pred, truth, spacing)
    assert found.hausdorff() == package.compute_robust_hausdorff(expected, 95)
    for tolerance in (0.5, 1.0):
        assert found.overlap(tolerance) == package.compute_surface_dice_at_tolerance(expected, tolerance)


@settings(max_examples=15, deadline=None)
@given(MASKS, SPACINGS)
def test_monai_gives_the_same_surface_dice(masks, spacing):
    pred, truth = masks
    assume(pred.any() and truth.any())
    batch = (torch.from_numpy(mask)[None, None] for mask in (pred, truth))
    expected = compute_surface_dice(*batch, [1.0], include_background=True, spacing=spacing, use_subvoxels=True)
    assert normalised_surface_dice(pred, truth, spacing) == pytest.approx(expected.item(), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(MASKS, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3))
def test_empty_space_around_changes_nothing(masks, margins):
    alone = surface_distances(*masks, (1, 2, 3))
    within = surface_distances(*(np.pad(mask, margins) for mask in masks), (1, 2, 3))
    assert alone.hausdorff() == within.hausdorff()
    assert alone.overlap(1) == within.overlap(1)


@settings(max_examples=25, deadline=None)
@given(MASKS, SPACINGS)
def test_properties(masks, spacing):
    pred, truth = masks
    there, back = surface_distances(pred, truth, spacing), surface_distances(truth, pred, spacing)
    assert there.hausdorff() == back.hausdorff()
    assert there.overlap(1) == pytest.approx(back.overlap(1))
    assert 0 <= there.overlap(0.5) <= there.overlap(1) <= 1
    assert hd95_mm(pred, pred, spacing) == 0
    assert normalised_surface_dice(truth, truth, spacing) == 1


@pytest.mark.parametrize("spacing", [None, (1, 1), (1, 1, 0), (1, 1, float("nan")), 1.0])
def test_refuses_a_spacing(spacing):
    with pytest.raises(ValueError, match=r"spacing: found .*, allowed three positive numbers"):
        hd95_mm(EMPTY, EMPTY, spacing)


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"pred: found shape \(4, 4\), allowed \(rows, columns, slices\)"):
        hd95_mm(EMPTY[0], EMPTY[0], (1, 1, 1))
    with pytest.raises(ValueError, match="pred: found shape"):
        hd95_mm(EMPTY, EMPTY[:2], (1, 1, 1))
