"""Where windows lie and how they are weighted, by hand and for any size."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_ext.inferers.window.box import Box, air_values, grown, head_bounds, head_mask
from medseg_ext.inferers.window.tiling import even_starts, halved, largest_window, round_up, tile
from medseg_ext.inferers.window.weights import axis_weights, profile

OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9])
HALF_AT_ONE = 1 / (3 * math.sqrt(2 * math.log(2)))
"""Sigma for which a gaussian over three voxels is 1/2, 1, 1/2."""


@pytest.mark.parametrize(
    ("size", "window", "overlap", "starts"),
    [
        (4, 4, 0.5, (0,)),
        (3, 4, 0.5, (0,)),
        (8, 4, 0.0, (0, 4)),
        (8, 4, 0.5, (0, 2, 4)),
        (10, 4, 0.0, (0, 3, 6)),  # MONAI's would be 0, 4, 6
        (240, 128, 0.5, (0, 56, 112)),
        (155, 128, 0.5, (0, 27)),
        (5, 1, 0.9, (0, 1, 2, 3, 4)),
        (144, 96, 0.5, (0, 48)),
    ],
)
def test_starts(size: int, window: int, overlap: float, starts: tuple[int, ...]) -> None:
    assert even_starts(size, window, overlap) == starts


@given(size=st.integers(1, 600), window=st.integers(1, 200), overlap=OVERLAPS)
def test_starts_cover_everything_evenly(size: int, window: int, overlap: float) -> None:
    starts = even_starts(size, window, overlap)
    covered = {voxel for start in starts for voxel in range(start, start + window)}
    assert covered >= set(range(size))
    assert starts[-1] == max(0, size - window)
    steps = [b - a for a, b in itertools.pairwise(starts)]
    if steps:
        assert min(steps) >= 1
        assert max(steps) - min(steps) <= 1
        assert max(steps) < max(1, window * (1 - overlap)) + 1


def test_windows_of_a_grid() -> None:
    tiling = tile((5, 4), (3, 4), (0.0, 0.0))
    assert tiling.starts == ((0, 2), (0,))
    assert len(tiling) == 2
    assert [tiling.start(index) for index in tiling] == [(0, 0), (2, 0)]


def test_the_box_is_cut_where_it_costs_least() -> None:
    """Two windows with a quarter in common need 88 of 152 voxels (16 % more to compute); 22 % on the other axes."""
    whole = (144, 184, 152)
    options = {"overlap": (0.25,) * 3, "divisor": (8,) * 3, "least": (16,) * 3}
    assert largest_window(whole, most_voxels=math.prod(whole), **options) == whole
    assert largest_window(whole, most_voxels=math.prod(whole) - 1, **options) == (144, 184, 88)
    assert largest_window((20, 20), (0.0, 0.0), (8, 8), (8, 8), 24 * 24) == (24, 24)
    assert largest_window((20, 20), (0.0, 0.0), (8, 8), (8, 8), 24 * 16) in {(24, 16), (16, 24)}


def test_a_budget_that_is_too_small_gives_the_smallest_window() -> None:
    assert largest_window((50, 50), (0.25, 0.25), (8, 8), (16, 16), 1) == (16, 16)
    assert largest_window((50, 5), (0.25, 0.25), (8, 8), (16, 16), -1) == (16, 8)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 70)] * 3),
    overlap=OVERLAPS,
    divisor=st.sampled_from([1, 4, 8]),
    most=st.integers(1, 400_000),
)
def test_windows_stay_within_the_voxels(size: tuple[int, ...], overlap: float, divisor: int, most: int) -> None:
    least = (2 * divisor,) * 3
    window = largest_window(size, (overlap,) * 3, (divisor,) * 3, least, most)
    assert all(w % divisor == 0 for w in window)
    assert all(w <= round_up(n, divisor) for w, n in zip(window, size, strict=True))
    smallest = math.prod(min(low, round_up(n, divisor)) for low, n in zip(least, size, strict=True))
    assert math.prod(window) <= max(most, smallest)
    if math.prod(round_up(n, divisor) for n in size) <= most:
        assert len(tile(size, window, (overlap,) * 3)) == 1


def test_halving() -> None:
    assert halved((64, 48, 32), (16, 16, 16), (16, 16, 16), math.inf) == (64, 48, 32)
    assert halved((64, 48, 32), (16, 16, 16), (16, 16, 16), 64 * 48 * 32 / 2) == (32, 48, 32)
    assert halved((48, 48), (16, 16), (16, 16), 48 * 48 / 2) == (32, 32)  # 24 is no multiple of 16
    assert halved((48, 48), (16, 16), (16, 16), 0) == (16, 16)
    assert halved((3, 2), (2, 2), (1, 1), 0) == (2, 2)


def test_weights_by_hand() -> None:
    torch.testing.assert_close(profile(3, "gaussian", HALF_AT_ONE).float(), torch.tensor([0.5, 1.0, 0.5]))
    weights = axis_weights((0, 1), 3, "gaussian", HALF_AT_ONE)
    torch.testing.assert_close(weights, torch.tensor([[1, 2 / 3, 1 / 3], [1 / 3, 2 / 3, 1]]))
    assert axis_weights((0, 2), 3, "constant").tolist() == [[1, 1, 0.5], [0.5, 1, 1]]


def test_a_single_window_weighs_one() -> None:
    assert axis_weights((0,), 129, "gaussian", 0.01).tolist() == [[1.0] * 129]


def test_unknown_weights_are_named() -> None:
    with pytest.raises(ValueError, match="weights: found 'mean', allowed 'gaussian' or 'constant'"):
        profile(3, "mean")


@given(
    size=st.integers(1, 200),
    window=st.integers(1, 99),
    overlap=OVERLAPS,
    sigma=st.sampled_from([0.02, 0.125, 1.0]),
    mode=st.sampled_from(["gaussian", "constant"]),
)
def test_weights_sum_to_one(size: int, window: int, overlap: float, sigma: float, mode: str) -> None:
    starts = even_starts(size, window, overlap)
    total = torch.zeros(max(size, window))
    for start, weights in zip(starts, axis_weights(starts, window, mode, sigma), strict=True):
        assert (weights > 0).all()
        total[start : start + window] += weights
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_box_of_a_head() -> None:
    image = torch.zeros(2, 4, 5)
    image[0, 1, 2] = -1.0  # darker than the air, as in a z-scored brain
    image[1, 2, 3] = 2.0
    mask = head_mask(image, air_values(image, 0.0))
    assert mask.nonzero().tolist() == [[1, 2], [2, 3]]
    assert head_bounds(mask) == Box((1, 2), (2, 2))
    assert head_bounds(mask, margin=1) == Box((0, 1), (4, 4))
    assert head_bounds(mask, margin=9) == Box((0, 0), (4, 5))
    assert head_bounds(torch.zeros(4, 5, dtype=torch.bool)) is None


def test_air_is_given_or_the_smallest_value() -> None:
    image = torch.tensor([[[-3.0, 1.0]], [[-2.0, -2.0]]])
    assert air_values(image, None).tolist() == [-3, -2]
    assert air_values(image, 0.5).tolist() == [0.5, 0.5]
    assert head_mask(image, air_values(image, None)).tolist() == [[False, True]]


def test_specks_do_not_widen_the_box() -> None:
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[2:8, 3:7] = True
    mask[0, 9] = True
    assert head_bounds(mask) == Box((0, 3), (8, 7))
    assert head_bounds(mask, share=0.1) == Box((2, 3), (6, 4))


@pytest.mark.parametrize(
    ("start", "size", "new", "grown_start"),
    [
        (4, 4, 6, 3),  # on both sides
        (0, 4, 6, 0),  # the volume ends on the left
        (8, 4, 6, 6),  # and on the right
        (2, 9, 12, 0),
        (0, 12, 16, -2),  # larger than the volume of 12: out of it, on both sides
        (1, 3, 3, 1),
    ],
)
def test_a_box_grows_into_the_volume(start: int, size: int, new: int, grown_start: int) -> None:
    assert grown(Box((start,), (size,)), (new,), (12,)) == Box((grown_start,), (new,))


def test_what_of_a_box_is_inside() -> None:
    assert Box((-2, 3), (6, 4)).within((3, 9)) == ((slice(0, 3), slice(3, 7)), (slice(2, 5), slice(0, 4)))
    assert Box((2, 3), (6, 6)).part((1, 0), (2, 3)) == Box((3, 3), (2, 3))
