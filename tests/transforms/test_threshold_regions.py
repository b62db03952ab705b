"""Regions that do not contradict each other: by hand, and as those of the label map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_ext.layouts import CONVENTIONS, regions_from_labels
from medseg_ext.transforms import RegionsToLabelsd, ThresholdRegionsd

#: A voxel a column: tumour core, whole tumour, enhancing tumour.
COLUMNS = [[0.4, 0.6, 0.4, 0.1, 0.9, 0.5], [0.4, 0.4, 0.6, 0.2, 0.9, 0.1], [0.4, 0.4, 0.4, 0.7, 0.9, 0.1]]


def probability() -> torch.Tensor:
    return torch.tensor(COLUMNS)[:, None, :, None]


def thresholded(threshold: float | tuple[float, float, float]) -> list[list[int]]:
    masks = ThresholdRegionsd("pred", threshold)({"pred": probability()})["pred"]
    assert masks.dtype == torch.uint8
    assert masks.shape == (3, 1, 6, 1)
    return masks[:, 0, :, 0].tolist()


def test_by_hand() -> None:
    assert thresholded(0.5) == [[0, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert thresholded(0.65) == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0]]


def test_a_threshold_each() -> None:
    assert thresholded((0.9, 0.4, 0.9)) == [[0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0]]
    assert thresholded((1.0, 1.0, 0.7)) == [[0, 0, 0, 1, 1, 0]] * 3


def test_dictionary() -> None:
    before = probability()
    data = {"pred": before, "regions": probability(), "other": 3}
    result = ThresholdRegionsd(["pred", "regions", "missing"], allow_missing_keys=True)(data)
    assert torch.equal(result["pred"], result["regions"])
    assert result["other"] == 3
    assert data["pred"] is before
    assert torch.equal(before, probability())
    with pytest.raises(KeyError):
        ThresholdRegionsd("missing")(data)


@settings(deadline=None)
@given(
    arrays(np.float32, st.tuples(st.just(3), *[st.integers(1, 4)] * 3), elements=st.floats(0, 1, width=32)),
    st.lists(st.floats(0.0625, 1, width=32), min_size=3, max_size=3),
    st.sampled_from(sorted(CONVENTIONS)),
)
def test_they_are_the_regions_of_the_label_map(values: np.ndarray, threshold: list[float], convention: str) -> None:
    data = {"pred": torch.from_numpy(values)}
    labels = RegionsToLabelsd("pred", convention, threshold)(data)["pred"]
    wanted = regions_from_labels(labels[0].numpy(), convention)
    found = ThresholdRegionsd("pred", threshold)(data)["pred"]
    np.testing.assert_array_equal(found.numpy(), wanted)
