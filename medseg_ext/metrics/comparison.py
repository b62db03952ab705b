"""Many methods against one baseline on the same patients: paired differences, tests, and what they allow to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from medseg_ext.metrics.bootstrap import paired_difference

CORRECTION = "Holm 1979"
LEVEL = 0.05


class Comparison(NamedTuple):
    """One method against the baseline.

    Args:
        mean: mean difference over patients, above 0 where the method is better.
        low, high: its 95 % interval, by the bootstrap over patients.
        p: of Wilcoxon's signed-rank test. p_corrected: the same for all methods compared at once.
        n: patients.
    """

    mean: float
    low: float
    high: float
    p: float
    p_corrected: float
    n: int

    @property
    def verdict(self) -> str:
        """What the interval and the corrected test allow to say.

        ``better`` and ``worse`` need both; ``perhaps better`` and ``perhaps worse`` the interval alone; otherwise
        ``no difference shown``, which is not the same as no difference.
        """
        if not (self.low > 0 or self.high < 0):
            return "no difference shown"
        side = "better" if self.low > 0 else "worse"
        return side if self.p_corrected <= LEVEL else f"perhaps {side}"


def signed_rank_p(differences: Iterable[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (1945) that differences lie about 0; 1 where all are 0, NaN of none.

    Args:
        differences: one a patient; zeros are left out, as Wilcoxon did. Exact up to 50 patients without ties.
    """
    array = np.asarray(list(differences), dtype=np.float64)
    if not array.size:
        return float("nan")
    return float(wilcoxon(array).pvalue) if array.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by the step-down method, in the order given (NaN stays, and counts not).

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65-70.
    """
    order = sorted((i for i, p in enumerate(p_values) if not np.isnan(p)), key=lambda i: p_values[i])
    corrected, highest = [float("nan")] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def compare_with_baseline(
    scores: Mapping[str, Mapping[str, float]], baseline: str, draws: int = 10_000, seed: int = 0
) -> dict[str, Comparison]:
    """Compare every method with one of them, patient by patient.

    Args:
        scores: of each method a measure by patient; the patients that both it and the baseline have count.
        baseline: name of that method.
        draws: of the bootstrap. seed: of the bootstrap.

    Returns:
        A comparison for each other method, their p corrected together.
    """
    others = [name for name in scores if name != baseline]
    shared = {name: sorted(scores[name].keys() & scores[baseline].keys()) for name in others}
    pairs = {
        name: [np.array([scores[side][patient] for patient in shared[name]]) for side in (name, baseline)]
        for name in others
    }
    p_values = [signed_rank_p(first - second) for first, second in pairs.values()]
    found = {}
    for (name, (first, second)), p, corrected in zip(pairs.items(), p_values, holm(p_values), strict=True):
        estimate = paired_difference(first, second, draws, seed)
        low, high = estimate["ci95"]
        found[name] = Comparison(estimate["mean"], low, high, p, corrected, estimate["n"])
    return found
