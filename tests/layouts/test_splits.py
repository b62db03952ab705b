from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_ext.errors import InputError
from medseg_ext.layouts import (
    PatientError,
    Study,
    check_leakage,
    choose_patients,
    find_studies,
    kfold,
    load_study,
    patient_group,
    read_split,
    seeded_split,
    select,
    share_of_patients,
)

PATIENTS = [f"p{i:02d}" for i in range(20)]


def study(name: str) -> Study:
    return Study(patient=name, layout="slices", folder=Path(name), images=(Path(name) / "1.png",))


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_groups() -> None:
    assert patient_group("TCGA_CS_4941_19960909") == patient_group("TCGA-CS-4941") == "TCGA_CS_4941"
    assert patient_group("TCGA_CS_49411_1") == "TCGA_CS_49411_1"
    assert patient_group("p_1") == "p_1"
    assert patient_group("sub-01_ses-2") == patient_group("sub-01") == "sub-01"
    assert patient_group("sub-01b") == "sub-01b"


def test_leakage_by_patient_and_by_date() -> None:
    check_leakage({"train": ["TCGA_CS_4941_19960909", "TCGA_CS_4941_19970101"], "val": ["TCGA_CS_4942_19960909"]})
    with pytest.raises(InputError) as caught:
        check_leakage({"train": ["a", "TCGA_CS_4941_1996"], "val": ["TCGA_CS_4941_1997"], "test": ["a"]}, "s.json")
    assert str(caught.value) == (
        "s.json: found a patient in two splits: a in train and a in test; "
        "TCGA_CS_4941_1996 in train and TCGA_CS_4941_1997 in val, allowed each patient in one split"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "found no readable JSON"),
        ("[]", "found a JSON list without splits"),
        ("{}", "found a JSON dict without splits"),
        ('{"train": "p1"}', "found 'train' that is no list of names"),
        ('{"train": [1]}', "found 'train' that is no list of names"),
        ('{"train": ["a", "a"]}', "found a twice in 'train'"),
        ('{"all": ["a"]}', "found a split named 'all'"),
        ('{"train": ["a"], "val": ["a"]}', "found a patient in two splits: a in train and a in val"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_split(path)
    assert str(caught.value).startswith(f"{path}: {found}")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        read_split(tmp_path / "no.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="found no readable JSON"):
        read_split(tmp_path / "binary.json")
    with pytest.raises(InputError, match="found a folder"):
        read_split(tmp_path)


def test_only_the_patients_asked_for_have_to_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", {"train": ["a", "b"], "test": ["d", "c"]})
    broken = [PatientError("a/1.png", "x", "y", "a"), PatientError("d/1.png", "x", "y", "d")]
    chosen, errors = select([study("c"), study("other")], path, "test", errors=broken)
    assert ([s.patient for s in chosen], errors) == (["c"], [broken[1]])


def test_absent_patients_are_all_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", {"train": ["b"], "test": ["c", "d", "e"]})
    chosen, errors = select([study("c")], path, "test")
    assert [s.patient for s in chosen] == ["c"]
    assert [str(error) for error in errors] == [
        f"{path}: found patients of 'test' that are absent from the folder: d, e, "
        "allowed patients that are there, or --split all"
    ]
    with pytest.raises(InputError, match=r"found no split 'tset' \(only train, test\), allowed train, test or all"):
        select([study("c")], path, "tset")


def test_all_reads_no_file(tmp_path: Path) -> None:
    assert select([study("c")], tmp_path / "absent.json", "all") == ([study("c")], [])
    with pytest.raises(InputError, match="split_file: found none"):
        select([study("c")], None, "test")
    with pytest.raises(InputError, match="split_file: found none"):
        select([study("c")], "", "test")


def test_choose_keeps_the_order_of_the_split() -> None:
    chosen, errors = choose_patients([study("a"), study("b")], {"x": ["b", "a"]}, "x")
    assert ([s.patient for s in chosen], errors) == (["b", "a"], [])


def test_seeded_split(tmp_path: Path) -> None:
    split = seeded_split(PATIENTS, seed=3, path=tmp_path / "run" / "split.json")
    assert {name: len(patients) for name, patients in split.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(chain(*split.values())) == PATIENTS
    assert split == seeded_split(reversed(PATIENTS), seed=3) == read_split(tmp_path / "run" / "split.json")
    assert split != seeded_split(PATIENTS, seed=4)
    assert seeded_split(["a", "b"], {"train": 0.99, "val": 0.01, "test": 0})["test"] == []
    with pytest.raises(InputError, match="patients: found 2 for 3 splits"):
        seeded_split(["a", "b"])
    with pytest.raises(ValueError, match="shares"):
        seeded_split(PATIENTS, {"train": -1, "val": 2})


@settings(max_examples=60, deadline=None)
@given(
    persons=st.integers(3, 40),
    dates=st.integers(1, 3),
    seed=st.integers(0, 99),
    shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=3),
)
def test_drawn_splits_never_leak(persons: int, dates: int, seed: int, shares: list[float]) -> None:
    names = [f"TCGA_AB_{i:04d}_{d}" for i in range(persons) for d in range(dates)]
    split = seeded_split(names, dict(zip(("train", "val", "test"), shares, strict=False)), seed)
    check_leakage(split)
    assert sorted(chain(*split.values())) == sorted(names)
    assert all(split.values())
    folds = [kfold(names, 3, fold, seed) for fold in range(3)]
    for fold in folds:
        check_leakage(fold)
        assert sorted(fold["train"] + fold["val"]) == sorted(names)
    assert sorted(chain(*(fold["val"] for fold in folds))) == sorted(names)


@given(persons=st.integers(1, 30), seed=st.integers(0, 5), shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=2))
@settings(max_examples=30, deadline=None)
def test_shares_of_patients_are_nested(persons: int, seed: int, shares: list[float]) -> None:
    # each person has studies of two dates
    names = [f"TCGA_CS_{person:04d}_{date}" for person in range(persons) for date in (19990101, 20000101)]
    small, large = (share_of_patients(names, share, seed) for share in sorted(shares))
    assert {*small} <= {*large}
    assert len(small) == 2 * max(1, round(min(shares) * persons))
    assert share_of_patients(names, 1.0, seed) == names


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_no_such_share(share: float) -> None:
    with pytest.raises(InputError, match=f"patients_share: found {share}, allowed above 0, 1 at the most"):
        share_of_patients(["a"], share)


def test_folds_that_there_are_not() -> None:
    for folds, fold, message in (
        (1, 0, "folds: found 1"),
        (5, 5, "fold: found 5, allowed 0 to 4"),
        (21, 0, "found 20"),
    ):
        with pytest.raises(InputError, match=message):
            kfold(PATIENTS, folds, fold)


def test_unwritable_split(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="allowed a writable folder"):
        seeded_split(PATIENTS, path=tmp_path / "file" / "split.json")


def test_real_split_and_patient(medseg_data: Path, lgg_dir: Callable[..., Path]) -> None:
    path = medseg_data / "lgg" / "split.json"
    assert {name: len(patients) for name, patients in read_split(path).items()} == {"train": 78, "val": 10, "test": 10}
    studies, errors = find_studies(lgg_dir("val", 1), masks="required")
    chosen, missing = select(studies, path, "val", errors=errors)
    assert [s.layout for s in chosen] == ["kaggle"]
    assert len(str(missing[0]).split("folder: ")[1].split(", allowed")[0].split(", ")) == 9
    loaded = load_study(chosen[0], masks="required")
    assert loaded.image.shape[:3] == (3, 256, 256)
    assert loaded.image.shape[1:] == loaded.mask.shape
    assert loaded.image.shape[3] == len(chosen[0].images) == len(chosen[0].masks)
    assert set(loaded.mask.ravel().tolist()) == {0, 1}
