import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg_ext.metrics import hd95_mm, lesionwise_scores, normalised_surface_dice

UNIT = (1.0, 1.0, 1.0)
AROUND = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def cubes(*corners, side=4, shape=(40, 20, 20)):
    """Cubes of 64 voxels, more than the 50 mm3 that count."""
    mask = np.zeros(shape, bool)
    for row, column, number in corners:
        mask[row : row + side, column : column + side, number : number + side] = True
    return mask


def grown(voxels, shape):
    """One dilation with 18-connectivity."""
    steps = [(0, 0, 0), *(step for step in AROUND if np.count_nonzero(step) < 3)]
    reached = {tuple(np.add(voxel, step).tolist()) for voxel in voxels for step in steps}
    return {place for place in reached if all(0 <= at < size for at, size in zip(place, shape, strict=True))}


def components(voxels):
    left, found = set(voxels), []
    while left:
        edge = [left.pop()]
        found.append(set(edge))
        while edge:
            here = edge.pop()
            near = {tuple(np.add(here, step).tolist()) for step in AROUND} & left
            edge += near
            found[-1] |= near
            left -= near
    return found


def as_mask(voxels, shape):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def written_out(pred, truth, spacing):
    """The definition on sets of voxels: Dice, HD95 and surface Dice of each lesion, and the false positives."""
    shape, voxel = pred.shape, np.prod(spacing)
    claimed = components(tuple(place) for place in np.argwhere(pred).tolist())
    real = {tuple(place) for place in np.argwhere(truth).tolist()}
    dilated = real
    for _ in range(3):
        dilated = grown(dilated, shape)
    scores, mine = [], set()
    for near in components(dilated):
        lesion = near & real
        touching = [number for number, component in enumerate(claimed) if component & near]
        mine |= set(touching)
        if len(lesion) * voxel <= 50:
            continue
        both = set().union(*(claimed[number] for number in touching))
        masks = as_mask(both, shape), as_mask(lesion, shape)
        scores.append(
            (
                2 * len(both & lesion) / (len(both) + len(lesion)),
                hd95_mm(*masks, spacing),
                normalised_surface_dice(*masks, spacing),
            )
        )
    false = [component for number, component in enumerate(claimed) if number not in mine]
    return scores, false


def test_one_of_two_found():
    truth = cubes((0, 0, 0), (20, 0, 0))
    scores = lesionwise_scores(cubes((0, 0, 0)), truth, UNIT, tolerances=(0.5, 1.0))
    assert (scores.dice, scores.hd95_mm) == (0.5, 374 / 2)
    assert scores.surface_dice == {0.5: 0.5, 1.0: 0.5}
    assert (scores.lesions, scores.missed, scores.false_positives) == (2, 1, 0)


def test_a_false_positive_of_one_voxel_counts_as_much_as_a_lesion():
    pred = cubes((0, 0, 0))
    pred[30, 10, 10] = True
    scores = lesionwise_scores(pred, cubes((0, 0, 0)), (1, 1, 2), tolerances=(1.0,))
    assert (scores.dice, scores.hd95_mm, scores.surface_dice) == (0.5, 187, {1.0: 0.5})
    assert (scores.lesions, scores.missed, scores.false_positives, scores.largest_false_mm3) == (1, 0, 1, 2)


@pytest.mark.parametrize("gap, lesions", [(6, 1), (7, 2)])
def test_truth_lesions_that_meet_by_dilation_are_one(gap, lesions):
    truth = cubes((2, 2, 2), (6 + gap, 2, 2))
    assert lesionwise_scores(truth, truth, UNIT).lesions == lesions
    scores = lesionwise_scores(cubes((2, 2, 2)), truth, UNIT)
    # one lesion of 128 voxels, half of it found: 2 * 64 / 192; or one found and one missed
    assert scores.dice == pytest.approx({1: 2 / 3, 2: 1 / 2}[lesions])
    assert scores.missed == lesions - 1


@pytest.mark.parametrize("gap, false", [(2, 0), (3, 1)])
def test_a_prediction_beside_a_lesion_belongs_to_it(gap, false):
    """It overlaps nothing and scores 0, but within reach of the dilation it is no false positive."""
    scores = lesionwise_scores(cubes((4 + gap, 0, 0)), cubes((0, 0, 0)), UNIT)
    assert (scores.dice, scores.false_positives, scores.missed) == (0, false, false)


def test_a_prediction_over_two_lesions_counts_whole_in_both():
    truth = cubes((0, 0, 0), (20, 0, 0))
    pred = np.zeros_like(truth)
    pred[0:24, 0:4, 0:4] = True  # 384 voxels
    scores = lesionwise_scores(pred, truth, UNIT)
    assert scores.dice == pytest.approx(2 * 64 / (64 + 384))
    assert (scores.lesions, scores.missed, scores.false_positives) == (2, 0, 0)


def test_corners_join_a_prediction():
    pred = cubes((0, 0, 0), (4, 4, 4))
    scores = lesionwise_scores(pred, cubes((0, 0, 0)), UNIT)
    assert scores.dice == pytest.approx(2 * 64 / (64 + 128))


@pytest.mark.parametrize("slices, lesions", [(2, 0), (3, 1)])
def test_lesions_of_50_mm3_are_ignored_with_what_belongs_to_them(slices, lesions):
    truth = np.zeros((30, 30, 10), bool)
    truth[0:5, 0:5, 0:slices] = True
    for pred, dice in ((truth[::-1], 0), (np.roll(truth, 2, 0), 0.6 if lesions else 1), (truth & False, 1 - lesions)):
        assert lesionwise_scores(pred, truth, UNIT).dice == pytest.approx(dice)
        assert lesionwise_scores(pred, truth, UNIT).lesions == lesions


def test_volume_is_in_mm3():
    truth = cubes((0, 0, 0), side=2)
    assert lesionwise_scores(truth, truth, UNIT).lesions == 0
    assert lesionwise_scores(truth, truth, (1, 1, 7)).lesions == 1


def test_empty_masks():
    empty, full = np.zeros((9, 9, 9), bool), cubes((1, 1, 1), shape=(9, 9, 9))
    nothing = lesionwise_scores(empty, empty, UNIT, tolerances=(1,))
    assert (nothing.dice, nothing.hd95_mm, nothing.surface_dice) == (1, 0, {1: 1})
    claimed, missed = lesionwise_scores(full, empty, UNIT), lesionwise_scores(empty, full, UNIT)
    assert (claimed.dice, claimed.hd95_mm, claimed.false_positives, claimed.largest_false_mm3) == (0, 374, 1, 64)
    assert (missed.dice, missed.hd95_mm, missed.missed) == (0, 374, 1)


SPOTS = hnp.array_shapes(min_dims=3, max_dims=3, min_side=4, max_side=14).flatmap(
    lambda shape: st.tuples(
        st.just(shape),
        *[st.lists(st.tuples(*(st.integers(0, size - 1) for size in shape), st.integers(1, 3)), max_size=5)] * 2,
    )
)


def spotted(shape, spots):
    mask = np.zeros(shape, bool)
    for row, column, number, side in spots:
        mask[row : row + side, column : column + side, number : number + side] = True
    return mask


@settings(max_examples=30, deadline=None)
@given(SPOTS, st.sampled_from([(3.0, 3.0, 3.0), (1.0, 2.0, 4.0)]))
def test_against_written_out(spots, spacing):
    shape, *both = spots
    pred, truth = (spotted(shape, one) for one in both)
    lesions, false = written_out(pred, truth, spacing)
    scores = lesionwise_scores(pred, truth, spacing, tolerances=(1.0,))
    assert (scores.lesions, scores.false_positives) == (len(lesions), len(false))
    assert scores.largest_false_mm3 == pytest.approx(max(map(len, false), default=0) * np.prod(spacing))
    table = np.array(lesions + [(0, 374, 0)] * len(false)).reshape(-1, 3)
    expected = table.mean(0) if len(table) else (1, 0, 1)
    assert (scores.dice, scores.hd95_mm, scores.surface_dice[1.0]) == pytest.approx(tuple(expected))


@settings(max_examples=25, deadline=None)
@given(SPOTS, st.integers(3, 6))
def test_empty_space_around_changes_nothing(spots, margin):
    shape, *both = spots
    masks = [np.pad(spotted(shape, one), 3) for one in both]  # within reach of the edge dilation is cut off
    assert lesionwise_scores(*masks, (3, 3, 3)) == lesionwise_scores(*(np.pad(one, margin) for one in masks), (3, 3, 3))
