import numpy as np
import pytest

from medseg_ext.metrics import bootstrap_mean, paired_difference


def test_two_values():
    # of the four equally likely pairs the means are 0, .5, .5, 1
    assert bootstrap_mean([0, 1]) == {"mean": 0.5, "median": 0.5, "ci95": [0.0, 1.0], "n": 2}


def test_one_value():
    assert bootstrap_mean([0.7]) == {"mean": 0.7, "median": 0.7, "ci95": [0.7, 0.7], "n": 1}


def test_undefined_values_are_left_out_and_counted():
    assert bootstrap_mean([float("nan"), 0.5, 0.5])["n"] == 2
    assert bootstrap_mean([float("nan"), 0.5, 0.5])["ci95"] == [0.5, 0.5]
    nothing = bootstrap_mean([])
    assert nothing["n"] == 0
    assert np.isnan([nothing["mean"], nothing["median"], *nothing["ci95"]]).all()


def test_seeded():
    values = np.random.default_rng(1).random(12)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values)["ci95"] != bootstrap_mean(values, seed=1)["ci95"]


def test_interval_covers_the_true_mean():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(size=40), draws=500, seed=trial)["ci95"] for trial in range(300)]
    assert 0.90 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.98


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(2).normal(size=400)
    low, high = bootstrap_mean(values)["ci95"]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_many_patients_in_chunks():
    values = np.tile([0.0, 1.0], 1000)
    low, high = bootstrap_mean(values)["ci95"]
    assert low == pytest.approx(0.478, abs=0.003)
    assert high == pytest.approx(0.522, abs=0.003)


def test_pairing_removes_what_patients_have_in_common():
    patients = np.random.default_rng(3).random(20)
    found = paired_difference(patients + 0.01, patients)
    assert found["mean"] == pytest.approx(0.01)
    assert found["ci95"] == pytest.approx([0.01, 0.01])


def test_pairing_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="second: found 1 patients, allowed as many as in first, 2"):
        paired_difference([1, 2], [1])
