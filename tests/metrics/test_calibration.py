import numpy as np
import pytest

from medseg_ext.metrics import expected_calibration_error


def test_by_hand():
    # bin [3/15, 4/15): mean .22, of two voxels one lesion -> .28; last bin: mean .95, both lesion -> .05
    probability = np.array([0.21, 0.23, 0.95, 0.95]).reshape(2, 2, 1)
    truth = np.array([1, 0, 1, 1], bool).reshape(2, 2, 1)
    assert expected_calibration_error(probability, truth) == pytest.approx((2 * 0.28 + 2 * 0.05) / 4)


def test_opposite_errors_in_one_bin_cancel_and_in_two_do_not():
    assert expected_calibration_error(np.array([0.5, 0.5]), np.array([0, 1])) == 0
    assert expected_calibration_error(np.array([0.1, 0.9]), np.array([1, 0])) == pytest.approx(0.9)


def test_ends_of_the_range():
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])) == 0
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([1, 0])) == 1


def test_region():
    probability, truth = np.array([0.0, 0.0, 0.5]), np.array([0, 0, 1])
    assert expected_calibration_error(probability, truth) == pytest.approx(0.5 / 3)
    assert expected_calibration_error(probability, truth, region=np.array([0, 0, 1])) == 0.5
    assert np.isnan(expected_calibration_error(probability, truth, region=np.zeros(3)))


def test_calibrated_by_construction_is_near_zero():
    rng = np.random.default_rng(0)
    probability = rng.random(200_000)
    truth = rng.random(200_000) < probability
    assert expected_calibration_error(probability, truth) < 0.006
    assert expected_calibration_error(probability**2, truth) > 0.1


@pytest.mark.parametrize("bad", [1.2, -0.1, np.nan])
def test_refuses_what_is_no_probability(bad):
    with pytest.raises(ValueError, match="allowed 0 to 1"):
        expected_calibration_error(np.array([0.5, bad]), np.array([0, 1]))


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match="probability: found shape"):
        expected_calibration_error(np.zeros((2, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="region: found shape"):
        expected_calibration_error(np.zeros(4), np.zeros(4), region=np.zeros(3))
