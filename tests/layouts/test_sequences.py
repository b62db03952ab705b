from __future__ import annotations

import pytest

from medseg_ext.errors import InputError
from medseg_ext.layouts.sequences import (
    canonical_channels,
    canonical_sequence,
    is_mask_folder,
    names_mask,
    sequence_of_file,
    split_suffix,
    without_sequence,
)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [(n, "t1") for n in ("t1", "T1n", "t1w", "T1-pre", "pre")]
    + [(n, "t1ce") for n in ("t1ce", "t1c", "T1Gd", "t1_post", "T1wCE", "post")]
    + [(n, "t2") for n in ("T2", "t2w")]
    + [(n, "flair") for n in ("FLAIR", "t2f", "fla", "T2-FLAIR", "t2_flair")],
)
def test_names_in_use(name: str, canonical: str) -> None:
    assert canonical_sequence(name) == canonical


def test_unknown_name() -> None:
    with pytest.raises(InputError, match=r"^sequence name: found 'dwi', allowed t1 \(t1n, t1w, "):
        canonical_sequence("dwi")


def test_channel_orders() -> None:
    assert canonical_channels("T1,FLAIR,T1Gd") == canonical_channels(["t1n", "t2f", "t1c"]) == ("t1", "flair", "t1ce")
    for bad in (["t1", "t1n"], [], ["t1", "adc"]):
        with pytest.raises(InputError):
            canonical_channels(bad)


@pytest.mark.parametrize(
    ("file", "sequence", "case"),
    [
        ("case_flair.nii.gz", "flair", "case"),
        ("case-t2f.nii.gz", "flair", "case"),
        ("x_T1Gd.nii", "t1ce", "x"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "t1ce", "BraTS-GLI-00000-000"),
        ("p_t2_flair.nii", "flair", "p"),
        ("p_T1_post.nii", "t1ce", "p"),
        ("post_op_7_t1.nii", "t1", "post_op_7"),
        ("Flair_subtrMeanDivStd.nii.gz", "flair", "subtrMeanDivStd"),
        ("t1.nii.gz", "t1", ""),
        ("TCGA_x_3_flair.png", "flair", "TCGA_x_3"),
        ("sub-01_ce-gd_T1w.nii.gz", "t1ce", "sub-01"),
        ("sub-01_ses-2_acq-se_ce-GADOLINIUM_run-1_T1w.nii", "t1ce", "sub-01_ses-2_acq-se_run-1"),
        ("sub-01_ce-post_T1w.nii", "t1ce", "sub-01"),
        ("sub-01_ce-none_T1w.nii", "t1", "sub-01"),
        ("sub-01_T1w.nii.gz", "t1", "sub-01"),
        ("sub-01_ce-gd_FLAIR.nii.gz", "flair", "sub-01"),
        ("sub-ce_T1w.nii", "t1", "sub-ce"),
    ],
)
def test_sequence_of_file(file: str, sequence: str, case: str) -> None:
    assert sequence_of_file(file) == sequence
    assert without_sequence(split_suffix(file)[0]) == case


@pytest.mark.parametrize(
    "stem",
    [
        "p_seg_flair",
        "p_flair_seg",
        "seg_flair",
        "p_flair_gt",
        "gt_p",
        "p_gt2",
        "mask_t1",
        "lesion_t1",
        "p_prob",
        "ROI1_t1",
    ],
)
def test_names_of_masks(stem: str) -> None:
    assert names_mask(stem)


@pytest.mark.parametrize("stem", ["p_flair", "lesion_12_flair", "segal_t1", "augtest_t1", "MASKED_t1", "problem_1_t2"])
def test_names_that_only_look_like_it(stem: str) -> None:
    assert not names_mask(stem)


def test_folders_of_masks() -> None:
    for name in ("masks", "Mask", "p1_masks", "labels", "gt", "ground truth", "segmentations"):
        assert is_mask_folder(name)
    for name in ("masks_only", "p1", "lesions", "unmasked", "labelled"):
        assert not is_mask_folder(name)


def test_a_name_that_says_nothing_or_two_things() -> None:
    with pytest.raises(InputError, match=r"^a_dwi\.nii: found no sequence in the name \(files: a_dwi\.nii, b\.nii\), "):
        sequence_of_file("a_dwi.nii", ["a_dwi.nii", "b.nii"])
    with pytest.raises(InputError, match="found flair and t1 in the name"):
        sequence_of_file("flair_to_t1.nii.gz")
