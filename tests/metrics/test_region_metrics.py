import numpy as np
import pytest
import torch

from medseg_ext.metrics import (
    REGION_MEASURES,
    REGIONS,
    expected_calibration_error,
    region_measures,
    region_metrics,
    region_volumes,
    summarise_regions,
)
from medseg_ext.metrics.regions import content_box

MM = (1.0, 1.0, 1.0)


def study(shape=(24, 20, 16)):
    """A whole tumour of 8 x 8 x 8 with a core of half of it and nothing enhancing; the prediction lies 2 rows off."""
    truth = np.zeros((3, *shape), bool)
    truth[1, 4:12, 4:12, 4:12] = True
    truth[0, 4:8, 4:12, 4:12] = True
    return np.roll(truth, 2, axis=1), truth


def test_row_by_hand():
    pred, truth = study()
    pred[2, 20, 15, 15] = True  # claimed where there is none
    row = region_metrics(pred, truth, None, (2, 1, 1))
    # 6 of 8 rows overlap, 2 of 4, none
    assert [row[f"dice_{region}"] for region in REGIONS] == [0.5, 0.75, 0]
    assert row["mean_dice"] == pytest.approx(1.25 / 3)
    assert [row[f"sensitivity_{region}"] for region in REGIONS] == [0.5, 0.75, 0]
    assert [row[f"hd95_mm_{region}"] for region in REGIONS] == [4, 4, 374]
    assert [row[f"lesionwise_dice_{region}"] for region in REGIONS] == [0.5, 0.75, 0]
    assert [row[f"lesionwise_hd95_mm_{region}"] for region in REGIONS] == [4, 4, 374]
    assert [row[f"volume_ml_{region}"] for region in REGIONS] == [0.512, 1.024, 0]
    assert [row[f"predicted_volume_ml_{region}"] for region in REGIONS] == [0.512, 1.024, 0.002]
    assert [row[f"lesions_{region}"] for region in REGIONS] == [1, 1, 0]
    assert [row[f"missed_lesions_{region}"] for region in REGIONS] == [0, 0, 0]
    assert [row[f"false_lesions_{region}"] for region in REGIONS] == [0, 0, 1]
    assert [row[f"largest_false_lesion_ml_{region}"] for region in REGIONS] == [0, 0, 0.002]
    assert np.isnan([row[f"ece_{region}"] for region in REGIONS]).all()


def test_columns_in_order():
    pred, truth = study()
    row = region_metrics(pred, truth, None, MM, tolerances=(0.5, 1.0))
    assert list(row) == ["mean_dice"] + [
        f"{name}_{region}" for name in region_measures((0.5, 1.0)) for region in REGIONS
    ]
    assert {"nsd_0.5mm_tc", "nsd_1mm_wt", "lesionwise_nsd_0.5mm_et"} <= set(row)
    assert set(REGION_MEASURES) < set(region_measures())
    assert REGIONS == ("tc", "wt", "et")


def test_everything_right():
    _, truth = study()
    row = region_metrics(truth, truth, truth.astype(np.float32), MM)
    for name, best in {"dice": 1, "lesionwise_dice": 1, "nsd_1mm": 1, "hd95_mm": 0, "sensitivity": 1, "ece": 0}.items():
        assert [row[f"{name}_{region}"] for region in REGIONS] == [best] * 3


def test_torch_gives_the_same():
    pred, truth = study()
    probability = pred.astype(np.float32)
    tensors = (torch.from_numpy(array) for array in (pred, truth, probability))
    assert region_metrics(*tensors, torch.tensor(MM)) == region_metrics(pred, truth, probability, MM)


def test_empty_space_around_changes_nothing():
    rng = np.random.default_rng(0)
    for _ in range(5):
        pred, truth = (np.pad(rng.random((3, 7, 6, 5)) > 0.9, ((0, 0), *[(3, 3)] * 3)) for _ in range(2))
        small = region_metrics(pred, truth, None, (3, 2, 3))
        large = region_metrics(
            *(np.pad(mask, ((0, 0), (4, 0), (1, 9), (0, 2))) for mask in (pred, truth)), None, (3, 2, 3)
        )
        np.testing.assert_equal(large, small)


def test_calibration_over_the_head_and_both_masks():
    pred, truth = study()
    image = np.zeros((2, *truth.shape[1:]), np.float32)
    image[:, 4:16, 4:16, 4:16] = 100
    probability = np.full(truth.shape, 0.3, np.float32)
    pred[2, 23, 19, 15], probability[2, 23, 19, 15] = True, 1
    row = region_metrics(pred, truth, probability, MM, image)
    head = np.zeros(truth.shape[1:], bool)
    head[4:16, 4:16, 4:16] = True
    for number, region in enumerate(REGIONS):
        counted = head | pred[number] | truth[number]
        expected = expected_calibration_error(probability[number], truth[number], counted)
        assert row[f"ece_{region}"] == pytest.approx(expected)
    whole = region_metrics(pred, truth, probability, MM)
    assert whole["ece_wt"] == pytest.approx(abs(0.3 - truth[1].mean()), abs=1e-6)


def test_head_of_a_normalised_image():
    """Zeros around values below and above 0, as after a z-score of what is inside the head."""
    image = np.zeros((2, 16, 16, 8), np.float32)
    image[1, 3:9, 4:15, 2:7] = np.random.default_rng(0).normal(size=(6, 11, 5))
    assert content_box(image) == (slice(3, 9), slice(4, 15), slice(2, 7))
    assert content_box(np.full((1, 16, 16, 8), 100.0)) == (slice(0, 16), slice(0, 16), slice(0, 8))


def test_without_truth():
    pred, _ = study()
    assert region_volumes(pred, (2, 1, 1)) == {
        "predicted_volume_ml_tc": 0.512,
        "predicted_volume_ml_wt": 1.024,
        "predicted_volume_ml_et": 0,
    }


def test_other_regions():
    pred, truth = study()
    row = region_metrics(pred[:2], truth[:2], None, MM, regions=("core", "whole"))
    assert (row["dice_core"], row["dice_whole"], row["mean_dice"]) == (0.5, 0.75, 0.625)


def test_refuses():
    pred, truth = study()
    with pytest.raises(ValueError, match=r"pred: found shape \(2, 24, 20, 16\), allowed \(3, rows, columns, slices\)"):
        region_metrics(pred[:2], truth[:2], None, MM)
    with pytest.raises(ValueError, match="probability: found shape"):
        region_metrics(pred, truth, np.zeros((1, 24, 20, 16)), MM)
    with pytest.raises(ValueError, match=r"image: found shape \(4, 4\), allowed \(channels, 24, 20, 16\)"):
        region_metrics(pred, truth, pred.astype(float), MM, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="spacing: found None"):
        region_volumes(pred, None)


def test_summary():
    pred, truth = study()
    nothing = np.zeros_like(truth)
    both = truth.copy()
    both[2, 4:6, 4:12, 4:12] = True
    rows = [
        {"patient": "a"} | region_metrics(pred, truth, None, MM),
        {"patient": "b"} | region_metrics(truth, truth, None, MM),
        {"patient": "c"} | region_metrics(nothing, both, None, MM),
        {"patient": "d"} | region_metrics(both, truth, None, MM),
    ]
    summary = summarise_regions(rows, draws=200)
    assert (summary["patients"], summary["scored"]) == (4, 4)
    assert summary["empty_truth"] == {"tc": 0, "wt": 0, "et": 3}
    assert summary["empty_prediction"] == {"tc": 1, "wt": 1, "et": 3}
    assert summary["both_empty"] == {"tc": 0, "wt": 0, "et": 2}
    assert summary["dice"]["tc"]["mean"] == (0.5 + 1 + 0 + 1) / 4
    assert summary["dice"]["et"]["mean"] == (1 + 1 + 0 + 0) / 4
    assert set(summary["dice"]) == set(REGIONS)
    assert set(summary["dice"]["et"]) == {"mean", "median", "ci95", "n"}
    assert (summary["dice_where_present"]["et"]["mean"], summary["dice_where_present"]["et"]["n"]) == (0, 1)
    claimed = summary["predicted_volume_ml_where_absent"]
    assert (claimed["et"]["mean"], claimed["et"]["n"]) == (pytest.approx(0.128 / 3), 3)
    assert claimed["wt"]["n"] == 0
    assert summary["mean_dice"]["n"] == 4
    assert summary["ece"]["wt"]["n"] == 0


def test_summary_without_truth_or_patients():
    pred, _ = study()
    summary = summarise_regions([region_volumes(pred, MM)])
    assert summary["scored"] == 0
    assert summary["predicted_volume_ml"]["wt"]["mean"] == 0.512
    assert "dice" not in summary
    empty = summarise_regions([])
    assert empty["patients"] == empty["scored"] == 0
    assert empty["empty_truth"] == {"tc": 0, "wt": 0, "et": 0}
