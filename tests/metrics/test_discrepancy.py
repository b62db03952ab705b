"""Maximum mean discrepancy and principal components, by hand and against the definition written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg_ext.metrics.discrepancy import maximum_mean_discrepancy, median_bandwidth, principal_components


def test_by_hand() -> None:
    # two points at 0 and two at 1, bandwidth 1: within k = 1, between k = exp(-1/2)
    found = maximum_mean_discrepancy([[0.0], [0.0]], [[1.0], [1.0]], bandwidth=1.0)
    assert found.mmd2 == pytest.approx(2 - 2 * math.exp(-0.5))
    assert found.n == (2, 2)


def test_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b, width = rng.normal(size=(5, 3)), rng.normal(1, 2, (4, 3)), 1.7

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return math.exp(-float(((x - y) ** 2).sum()) / (2 * width**2))

    within_a = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_b = sum(k(b[i], b[j]) for i in range(4) for j in range(4) if i != j) / 12
    between = sum(k(x, y) for x in a for y in b) / 20
    found = maximum_mean_discrepancy(a, b, bandwidth=width)
    assert found.mmd2 == pytest.approx(within_a + within_b - 2 * between)


def test_median_bandwidth_by_hand() -> None:
    # distances 1, 2, 3 of points 0, 1, 3
    assert median_bandwidth([[0.0], [1.0], [3.0]]) == 2.0
    assert median_bandwidth([[1.0], [1.0]]) == 1.0


def test_p_by_all_divisions() -> None:
    # of the six divisions of 0 0 1 1 into two pairs two lie as far apart as {0 0} and {1 1}: p tends to a third
    found = maximum_mean_discrepancy([[0.0], [0.0]], [[1.0], [1.0]], permutations=4000)
    assert found.p == pytest.approx(1 / 3, abs=0.03)


def test_far_apart_and_alike() -> None:
    rng = np.random.default_rng(1)
    far = maximum_mean_discrepancy(rng.normal(size=(20, 4)), rng.normal(3, 1, (25, 4)), permutations=200)
    assert far.p == pytest.approx(1 / 201)
    alike = maximum_mean_discrepancy(rng.normal(size=(20, 4)), rng.normal(size=(25, 4)), permutations=200)
    assert alike.p > 0.05
    assert abs(alike.mmd2) < 0.05 < far.mmd2


@pytest.mark.parametrize(
    ("first", "second", "bandwidth"),
    [([[0.0]], [[1.0], [2.0]], None), ([[0.0], [1.0]], [[1.0, 2.0]] * 2, None), ([[0.0], [1.0]], [[1.0], [2.0]], 0.0)],
)
def test_refusals(first: list, second: list, bandwidth: float | None) -> None:
    with pytest.raises(ValueError, match="found"):
        maximum_mean_discrepancy(first, second, bandwidth)


def test_principal_components_by_hand() -> None:
    # along (1, 1) the points lie at -sqrt 2, 0, sqrt 2; across it nowhere
    places, shares = principal_components([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    assert np.abs(places[:, 0]) == pytest.approx([math.sqrt(2), 0, math.sqrt(2)])
    assert places[:, 1] == pytest.approx([0, 0, 0])
    assert shares == pytest.approx([1, 0])
