"""The real cases, where they are at hand: found, named, and the same voxels in memory as on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_ext.layouts import BRATS_CHANNELS, BRATS_RULES, Study, find_studies, labels_from_regions, load_aligned


@pytest.fixture(scope="module")
def cases(medseg_data: Path) -> dict[str, Study]:
    folder = medseg_data / "brats" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no BraTS cases in {folder}")
    studies, errors = find_studies(folder, channel_order=BRATS_CHANNELS, masks="required", rules=BRATS_RULES)
    assert not errors
    return {study.patient: study for study in studies}


def test_all_are_found(cases: dict[str, Study]) -> None:
    for name, study in cases.items():
        old = name.startswith("brats_2013")
        assert study.sequences == (("t1ce", "flair") if old else BRATS_CHANNELS)
        assert study.conventions == (("brats2013",) if old else ("brats2017",))


def test_voxels_are_not_touched(cases: dict[str, Study]) -> None:
    study = next(study for name, study in cases.items() if not name.startswith("brats_2013"))
    loaded = load_aligned(study, labels=True)
    assert loaded.skull_stripped
    for channel, path in zip(loaded.image, study.images, strict=True):
        np.testing.assert_array_equal(loaded.native.stored(channel), np.asarray(nibabel.load(path).dataobj))
    labels = loaded.native.stored(labels_from_regions(loaded.regions, "brats2017"))
    np.testing.assert_array_equal(labels, np.asarray(nibabel.load(study.masks[0]).dataobj))


def test_heads_with_sclerosis_are_read_without_labels(medseg_data: Path) -> None:
    folder = medseg_data / "ms"
    if not folder.is_dir():
        pytest.skip(f"no patients in {folder}")
    studies, errors = find_studies(folder, channel_order=BRATS_CHANNELS, masks="ignore", rules=BRATS_RULES)
    assert not errors
    assert {study.sequences for study in studies} == {BRATS_CHANNELS}
