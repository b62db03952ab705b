import numpy as np
import pytest
import torch

from medseg_ext.metrics import MEASURES, patient_areas, patient_metrics, summarise


def study(depth=5):
    image = np.zeros((3, 16, 16, depth), np.float32)
    image[:, 2:14, 2:14] = 100
    truth = np.zeros((16, 16, depth), bool)
    truth[4:8, 4:8, 1:3] = True  # 2 x 16 pixels
    pred = np.zeros_like(truth)
    pred[4:8, 6:10, 1:3] = True  # half of them, and as many beside
    return image, pred, truth


def test_row_by_hand():
    image, pred, truth = study()
    row = patient_metrics(pred, truth, pred.astype(np.float32), image, spacing=(2.0, 1.0, 5.0))
    assert {name: row[name] for name in ("dice", "iou", "precision", "recall", "hd95_px")} == {
        "dice": 0.5,
        "iou": 1 / 3,
        "precision": 0.5,
        "recall": 0.5,
        "hd95_px": 2.0,
    }
    assert (row["area_px"], row["predicted_area_px"], row["n_slices"]) == (32, 32, 5)
    assert row["volume_ml"] == row["predicted_volume_ml"] == 0.32
    # the head's box is rows and columns 0 to 15 in blocks of 4, all slices; 32 voxels lie wrong, at p = 0 or 1
    assert row["ece"] == pytest.approx(32 / (16 * 16 * 5))
    assert 0.4 < row["dice_reference_protocol"] < 0.6
    assert set(row) == set(MEASURES)


def test_torch_gives_the_same():
    image, pred, truth = study()
    expected = patient_metrics(pred, truth, pred.astype(np.float32), image)
    tensors = [torch.from_numpy(array) for array in (pred, truth, pred.astype(np.float32), image)]
    assert patient_metrics(*tensors) == expected
    assert "volume_ml" not in expected


def test_claims_outside_the_head_count_for_calibration():
    image, pred, truth = study()
    image[:, 8:] = 0
    probability = np.zeros(truth.shape, np.float32)
    quiet = patient_metrics(np.zeros_like(pred), truth, probability, image)["ece"]
    pred[15, 15, 0], probability[15, 15, 0] = True, 1
    assert patient_metrics(pred, truth, probability, image)["ece"] != quiet


@pytest.mark.parametrize("depth", [1, 2])
def test_too_few_slices_for_the_reference_protocol(depth):
    image, pred, truth = study(5)
    row = patient_metrics(*(array[..., 1 : 1 + depth] for array in (pred, truth)), None, image[..., :depth])
    assert np.isnan(row["dice_reference_protocol"])
    assert np.isnan(row["ece"])
    assert row["dice"] == 0.5


def test_image_has_to_fit():
    image, pred, truth = study()
    with pytest.raises(ValueError, match=r"image: found shape \(3, 16, 16, 4\), allowed \(channels, 16, 16, 5\)"):
        patient_metrics(pred, truth, None, image[..., :4])


def test_summary():
    image, pred, truth = study()
    empty = np.zeros_like(truth)
    rows = [
        {"patient": "a"} | patient_metrics(pred, truth, None, image),
        {"patient": "b"} | patient_metrics(truth, truth, None, image),
        {"patient": "c"} | patient_metrics(empty, empty, None, image),
        {"patient": "d"} | patient_metrics(empty, truth, None, image),
    ]
    summary = summarise(rows, draws=200)
    assert (summary["patients"], summary["scored"]) == (4, 4)
    assert (summary["empty_truth"], summary["empty_prediction"]) == (1, 2)
    assert summary["dice"]["mean"] == (0.5 + 1 + 1 + 0) / 4
    assert summary["dice"]["median"] == 0.75
    low, high = summary["dice"]["ci95"]
    assert 0 <= low < 0.625 < high <= 1
    assert summary["hd95_px"]["n"] == 2
    assert summary["ece"]["n"] == 0
    assert set(summary["dice_reference_protocol"]) == {"mean", "median", "ci95", "n"}


def test_summary_without_truth_or_patients():
    _, pred, _ = study()
    summary = summarise([patient_areas(pred, spacing=(1, 1, 1))])
    assert summary["scored"] == summary["empty_truth"] == 0
    assert summary["predicted_volume_ml"]["mean"] == 0.032
    assert "dice" not in summary
    assert summarise([]) == {"patients": 0, "scored": 0, "empty_truth": 0, "empty_prediction": 0}
