"""Label maps of every convention, by hand: to regions, back again, and which convention a map is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_ext.errors import InputError
from medseg_ext.layouts.labels import (
    CONVENTIONS,
    conventions_of_json,
    conventions_of_names,
    conventions_of_store,
    detect_convention,
    label_values,
    labels_from_regions,
    regions_from_labels,
    resolve_convention,
)

#: One row a value: label, then tumour core, whole tumour, enhancing tumour.
BY_HAND = {
    "brats2013": [(0, 0, 0, 0), (1, 1, 1, 0), (2, 0, 1, 0), (3, 1, 1, 0), (4, 1, 1, 1)],
    "brats2017": [(0, 0, 0, 0), (1, 1, 1, 0), (2, 0, 1, 0), (4, 1, 1, 1)],
    "brats2023": [(0, 0, 0, 0), (1, 1, 1, 0), (2, 0, 1, 0), (3, 1, 1, 1)],
    "brats2024": [(0, 0, 0, 0), (1, 1, 1, 0), (2, 0, 1, 0), (3, 1, 1, 1), (4, 0, 0, 0)],
    "decathlon": [(0, 0, 0, 0), (1, 0, 1, 0), (2, 1, 1, 0), (3, 1, 1, 1)],
}


@pytest.mark.parametrize("convention", BY_HAND)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_regions_by_hand(convention: str, dtype: type) -> None:
    rows = np.array(BY_HAND[convention])
    labels = rows[:, 0].astype(dtype).reshape(1, -1, 1)
    regions = regions_from_labels(labels, convention)
    assert regions.dtype == np.uint8
    np.testing.assert_array_equal(regions, rows[:, 1:].T.reshape(3, 1, -1, 1))


def test_every_convention_is_in_the_table() -> None:
    assert BY_HAND.keys() == CONVENTIONS.keys()


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("brats2013", [0, 2, 1, 4]),
        ("brats2017", [0, 2, 1, 4]),
        ("brats2023", [0, 2, 1, 3]),
        ("brats2024", [0, 2, 1, 3]),
        ("decathlon", [0, 1, 2, 3]),
    ],
)
def test_labels_by_hand(convention: str, expected: list[int]) -> None:
    #                    nothing, edema, core, enhancing
    regions = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]])
    labels = labels_from_regions(regions, convention)
    assert labels.dtype == np.uint8
    assert labels.tolist() == expected


def test_the_inner_region_wins_where_regions_contradict_each_other() -> None:
    # tc without wt, et without tc, et alone, et and tc without wt
    regions = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 1, 1]])
    assert labels_from_regions(regions, "brats2023").tolist() == [1, 3, 3, 3]
    nested = regions_from_labels(labels_from_regions(regions, "brats2023"), "brats2023")
    assert nested.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(labels=arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 4)))
def test_there_and_back(convention: str, labels: np.ndarray) -> None:
    known = CONVENTIONS[convention]
    labels = np.where(np.isin(labels, list(known.tissues)), labels, 0)
    regions = regions_from_labels(labels, convention)
    again = labels_from_regions(regions, convention)
    np.testing.assert_array_equal(regions_from_labels(again, convention), regions)
    if convention not in {"brats2013", "brats2024"}:  # the split core and the cavity are in no region of their own
        np.testing.assert_array_equal(again, labels)


@given(regions=arrays(np.uint8, (3, 5), elements=st.integers(0, 1)), convention=st.sampled_from(sorted(CONVENTIONS)))
def test_regions_become_nested(regions: np.ndarray, convention: str) -> None:
    tc, wt, et = regions_from_labels(labels_from_regions(regions, convention), convention)
    np.testing.assert_array_equal(et, regions[2])
    np.testing.assert_array_equal(tc, regions[0] | regions[2])
    np.testing.assert_array_equal(wt, regions.max(0))


@pytest.mark.parametrize(
    ("values", "known", "expected"),
    [
        ([0, 1, 2, 4], None, "brats2017"),
        ([4], None, "brats2017"),
        ([0], None, "brats2017"),
        ([0], ("decathlon",), "decathlon"),
        ([0, 1, 2], ("brats2017",), "brats2017"),
        ([0, 1, 2], ("brats2023", "brats2024"), "brats2023"),
        ([0, 1, 2, 3], ("brats2023", "brats2024"), "brats2023"),
        ([0, 1, 2, 3, 4], ("brats2023", "brats2024"), "brats2024"),
        ([0, 1, 2, 4], ("brats2023", "brats2024"), "brats2024"),
        ([0, 1, 2, 3], ("decathlon",), "decathlon"),
        ([0, 2, 4], ("brats2013",), "brats2013"),
    ],
)
def test_detected(values: list[int], known: tuple[str, ...] | None, expected: str) -> None:
    assert detect_convention(values, known) == expected


@pytest.mark.parametrize(
    ("values", "known", "message"),
    [
        ([1, 2], None, "label values 1, 2, which brats2017 and decathlon read differently, allowed a declared label"),
        ([2], None, "read differently"),
        ([1, 2, 3], None, "label values 1, 2, 3, which brats2023 and brats2013 and decathlon read differently"),
        ([3], None, "read differently"),
        ([1, 2, 3, 4], None, "label values 1, 2, 3, 4, which brats2013 and brats2024 read differently"),
        ([1, 5], None, r"found label values 1, 5, allowed 0, 1, 2, 4 \(brats2017\) or 0, 1, 2, 3 \(brats2023\) or"),
        ([1, 2, 3], ("brats2017",), r"found label values 1, 2, 3, allowed 0, 1, 2, 4 \(brats2017\)$"),
        ([1, 2, 3], (), "found label values 1, 2, 3 of a set whose labels are not known, allowed a declared"),
    ],
)
def test_never_guessed(values: list[int], known: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        detect_convention(values, known, "seg.nii")


def test_a_declared_convention_is_kept_to() -> None:
    ambiguous = np.array([[0, 1, 2]])
    assert resolve_convention(ambiguous, "decathlon") == "decathlon"
    assert resolve_convention(ambiguous, "brats2023", known=("brats2017",)) == "brats2023"
    with pytest.raises(InputError, match=r"found label values 0, 4, allowed 0, 1, 2, 3 \(brats2023\)"):
        resolve_convention(np.array([0, 4]), "brats2023")
    with pytest.raises(InputError, match="label convention: found 'brats', allowed brats2017"):
        resolve_convention(ambiguous, "brats")
    with pytest.raises(InputError, match="found label values 0, 4"):
        regions_from_labels(np.array([0, 4]), "decathlon")
    with pytest.raises(ValueError, match="2 regions, allowed 3"):
        labels_from_regions(np.zeros((2, 4)), "brats2023")


def test_values() -> None:
    assert label_values(np.array([[3, 0], [3, 1]], np.uint8)) == [0, 1, 3]
    # what a rescaling header does to whole numbers
    assert label_values(np.array([0, 0.99999998, 4.0000005], np.float32)) == [0, 1, 4]
    for odd in (0.5, -1.0, 300.0):
        with pytest.raises(InputError, match=f"seg.nii: found values such as {odd:g} in the label map"):
            label_values(np.array([0, odd]), "seg.nii")


@pytest.mark.parametrize(
    ("images", "mask", "expected"),
    [
        (["BraTS20_Training_001_flair", "BraTS20_Training_001_t1ce"], "BraTS20_Training_001_seg", ("brats2017",)),
        (["BraTS20_Training_355_t1"], "W39_1998.09.19_Segm", ("brats2017",)),
        (["BraTS-GLI-00000-000-t1c", "BraTS-GLI-00000-000-t2f"], "BraTS-GLI-00000-000-seg", ("brats2023", "brats2024")),
        (["BraTS-PED-00000-000-t1c"], "BraTS-PED-00000-000-seg", ()),
        (["Flair_subtrMeanDivStd", "T1c_subtrMeanDivStd"], "OTMultiClass", ("brats2013",)),
        (["flair", "t1"], "lesions", None),
        (["p_flair", "p_t1"], "p_mask", None),
        (["p_flair", "p_t1gd"], "p_seg", None),
    ],
)
def test_file_names(images: list[str], mask: str, expected: tuple[str, ...] | None) -> None:
    assert conventions_of_names(images, mask) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}, ("decathlon",)),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, ("decathlon",)),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3}, ("brats2023",)),
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, ("brats2023",)),
        ({"background": 0, "necrosis": 1, "edema": 2, "GD-enhancing tumor": 4}, ("brats2017",)),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, ("brats2024",)),
        ({"background": 0, "tumour": 1}, None),
        ({"background": 0, "edema": 7}, None),
        ({"background": 0, "edema": "x"}, None),
        (None, None),
    ],
)
def test_dataset_json(labels: object, expected: tuple[str, ...] | None) -> None:
    assert conventions_of_json(labels) == expected


def test_labels_that_monai_label_keeps_need_not_be_told_apart_by_their_values(tmp_path: Path) -> None:
    kept, elsewhere = tmp_path / "labels" / "final" / "p.nii.gz", tmp_path / "other" / "final" / "p.nii.gz"
    assert conventions_of_store(kept) is None
    (tmp_path / "datastore_v2.json").write_text("{}")
    assert conventions_of_store(elsewhere) is None
    known = conventions_of_store(kept)
    assert detect_convention([1, 2], known) in {"brats2017", "brats2023"}  # which read both alike
    assert detect_convention([1, 2, 3], known) == "brats2023"
    assert detect_convention([1, 2, 4], known) == "brats2017"
    with pytest.raises(InputError, match="label values 1, 2, 3, 4"):
        detect_convention([1, 2, 3, 4], known)
