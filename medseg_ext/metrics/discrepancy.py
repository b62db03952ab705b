"""How far two samples of features lie apart: the maximum mean discrepancy, and their first principal components."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist

Array = NDArray[np.float64]


class Discrepancy(NamedTuple):
    """Distance of two samples.

    Args:
        mmd2: unbiased estimate of the squared maximum mean discrepancy; about 0, also below, where both are alike.
        bandwidth: of the Gaussian kernel. p: of the permutation test that both are alike. n: sizes of the two samples.
    """

    mmd2: float
    bandwidth: float
    p: float
    n: tuple[int, int]


def median_bandwidth(samples: ArrayLike) -> float:
    """Median distance between two different members of (n, d) samples: the usual choice of a kernel's bandwidth.

    1 where that is 0, for any bandwidth says the same of samples that are equal.
    """
    distances = pdist(np.asarray(samples, np.float64))
    return float(np.median(distances)) or 1.0


def mmd2_unbiased(kernel: Array, first: NDArray[np.bool_]) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy.

    Args:
        kernel: (n, n) values between all members of both samples.
        first: (n,) bool, the members of the first; two or more on either side.

    Source: Gretton et al. 2012, JMLR 13:723-773, equation 3.
    """
    within = []
    for side in (first, ~first):
        part, count = kernel[np.ix_(side, side)], int(side.sum())
        within.append((part.sum() - np.trace(part)) / (count * (count - 1)))
    return float(within[0] + within[1] - 2 * kernel[np.ix_(first, ~first)].mean())


def maximum_mean_discrepancy(
    first: ArrayLike, second: ArrayLike, bandwidth: float | None = None, permutations: int = 1000, seed: int = 0
) -> Discrepancy:
    """Maximum mean discrepancy with the kernel ``exp(-d**2 / (2 * bandwidth**2))``, and its permutation test.

    The members must be independent of each other, one a patient: p is the share of random divisions of all members
    into two of these sizes that lie as far apart, the division at hand counted among them.

    Args:
        first: (n, d). second: (m, d); two members or more each.
        bandwidth: of the kernel; the median distance of all members when None.
        permutations: how many. seed: of them.

    Raises:
        ValueError: too few members, another number of features, or a bandwidth of 0 or less.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"samples: found shapes {a.shape} and {b.shape}, allowed (2 or more, d) and (2 or more, d)")
    both = np.concatenate([a, b])
    width = median_bandwidth(both) if bandwidth is None else bandwidth
    if width <= 0:
        raise ValueError(f"bandwidth: found {width}, allowed above 0")
    kernel = np.exp(-cdist(both, both, "sqeuclidean") / (2 * width**2))
    side = np.arange(len(both)) < len(a)
    found = mmd2_unbiased(kernel, side)
    rng = np.random.default_rng(seed)
    # the same division comes out of another order of sums: a hair of tolerance counts it as equal
    as_far = sum(mmd2_unbiased(kernel, rng.permutation(side)) >= found - 1e-12 for _ in range(permutations))
    return Discrepancy(found, width, (1 + as_far) / (1 + permutations), (len(a), len(b)))


def principal_components(samples: ArrayLike, count: int = 2) -> tuple[Array, Array]:
    """Coordinates of samples along the directions in which they vary most.

    Args:
        samples: (n, d).
        count: directions, at most the smaller of n and d.

    Returns:
        coordinates (n, count), and each direction's share of the variance (count,). A direction's sign is such that
        its largest weight is positive, so that a picture is the same twice.
    """
    centred = np.asarray(samples, np.float64)
    centred = centred - centred.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    kept = directions[:count]
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(1)])
    total = float((lengths**2).sum()) or 1.0
    return centred @ (kept * signs[:, None]).T, lengths[:count] ** 2 / total
