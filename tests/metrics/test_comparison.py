"""Paired comparisons whose answers can be worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_ext.metrics.comparison import Comparison, compare_with_baseline, holm, signed_rank_p


def test_signed_rank_by_hand() -> None:
    # of the 2**5 signs of five ranks one has all positive, one all negative
    assert signed_rank_p([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)
    # rank sums of 1 or less on either side: {} and {1}, twice
    assert signed_rank_p([-0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(4 / 32)
    assert signed_rank_p([0.0, 0.0]) == 1.0
    assert math.isnan(signed_rank_p([]))


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and none below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    first, second = holm([math.nan, 0.02])
    assert math.isnan(first) and second == 0.02
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, c in zip(p_values, corrected, strict=True):
        assert p <= c <= min(1.0, p * len(p_values)) + 1e-12
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_against_the_baseline() -> None:
    patients = [f"p{i}" for i in range(8)]
    base = dict.fromkeys(patients, 0.5)
    up = dict.fromkeys(patients, 0.6)
    mixed = {p: 0.5 + (0.1 if i % 2 else -0.1) for i, p in enumerate(patients)}
    found = compare_with_baseline({"mixed": mixed, "base": base, "up": up}, "base")
    assert list(found) == ["mixed", "up"]
    assert found["up"].mean == pytest.approx(0.1)
    assert (found["up"].low, found["up"].high) == pytest.approx((0.1, 0.1))
    assert found["mixed"].mean == pytest.approx(0.0)
    assert found["mixed"].low < 0 < found["mixed"].high
    assert found["up"].p_corrected == pytest.approx(2 * found["up"].p)


def test_patients_that_both_have_count() -> None:
    found = compare_with_baseline({"base": {"a": 0.5, "b": 0.5}, "other": {"b": 0.7, "c": 0.1}}, "base")
    assert found["other"].n == 1
    assert found["other"].mean == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("low", "high", "corrected", "verdict"),
    [
        (0.01, 0.1, 0.05, "better"),
        (0.01, 0.1, 0.051, "perhaps better"),
        (-0.1, -0.01, 0.01, "worse"),
        (-0.1, -0.01, 0.5, "perhaps worse"),
        (-0.1, 0.1, 0.01, "no difference shown"),
        (0.0, 0.1, 0.01, "no difference shown"),
        (math.nan, math.nan, math.nan, "no difference shown"),
    ],
)
def test_verdict(low: float, high: float, corrected: float, verdict: str) -> None:
    assert Comparison(0.0, low, high, 0.01, corrected, 10).verdict == verdict
