"""Splits by patient: read from a file, drawn by a seed, k folds; never one patient on two sides."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg_ext.errors import InputError
from medseg_ext.files import read_json, write_atomically
from medseg_ext.layouts.study import PatientError, Study

ALL = "all"
DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
_ALLOWED_FILE = 'JSON such as {"train": ["p1", "p2"], "val": ["p3"], "test": ["p4"]}'
_TCGA = re.compile(r"(TCGA)[_.-]([A-Z0-9]{2})[_.-]([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)
_BIDS = re.compile(r"sub-[A-Za-z0-9]+(?=_|$)")


def patient_group(name: str) -> str:
    """The person behind a study's name.

    Studies of the Cancer Genome Atlas are named after person and date, ``TCGA_CS_4941_19960909``, and go by the
    person, those of BIDS (``sub-01_ses-2``) by the subject; any other name stands for itself.
    """
    if match := _TCGA.match(name):
        return "_".join(match.groups()).upper()
    subject = _BIDS.match(name)
    return subject.group() if subject else name


def check_leakage(split: Mapping[str, Sequence[str]], source: str | os.PathLike[str] = "split") -> None:
    """Refuse a person on two sides, be it by two studies of different dates.

    Args:
        split: names of patients by the name of their side.
        source: the file it came from, for the error.

    Raises:
        InputError: naming all of them.
    """
    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for side, patients in split.items():
        for patient in patients:
            sides[patient_group(patient)][side].append(patient)
    leaks = [
        " and ".join(f"{', '.join(dict.fromkeys(names))} in {side}" for side, names in found.items())
        for found in sides.values()
        if len(found) > 1
    ]
    if leaks:
        raise InputError(source, f"a patient in two splits: {'; '.join(leaks)}", "each patient in one split")


def read_split(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read a split file, a JSON object of lists of patients' names.

    Raises:
        InputError: for a file that is missing or malformed, that names a patient twice, or whose splits leak.
    """
    content = read_json(path, _ALLOWED_FILE)
    if not isinstance(content, dict) or not content:
        raise InputError(path, f"a JSON {type(content).__name__} without splits", _ALLOWED_FILE)
    for side, patients in content.items():
        if side == ALL:
            raise InputError(path, f"a split named {ALL!r}", "another name, as that one means every patient found")
        if not isinstance(patients, list) or not all(isinstance(name, str) and name for name in patients):
            raise InputError(path, f"{side!r} that is no list of names", _ALLOWED_FILE)
        twice = sorted({name for name in patients if patients.count(name) > 1})
        if twice:
            raise InputError(path, f"{', '.join(twice)} twice in {side!r}", "each patient once")
    check_leakage(content, path)
    return content


def write_split(path: str | os.PathLike[str], split: Mapping[str, Sequence[str]]) -> Path:
    """Write a split file that `read_split` reads.

    Raises:
        InputError: where it cannot be written.
    """
    return write_atomically(Path(path), json.dumps(split, indent=2) + "\n")


def _shuffled_groups(patients: Iterable[str], seed: int) -> list[list[str]]:
    """Persons in an order that the seed fixes, each with all studies.

    Ordered by a hash of seed and name: the same on every machine and for every release of numpy, and one more patient
    leaves the order of the others as it is.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(set(patients)):
        groups[patient_group(patient)].append(patient)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    return [groups[group] for group in order]


def _flat(groups: Iterable[list[str]]) -> list[str]:
    return sorted(patient for group in groups for patient in group)


def seeded_split(
    patients: Iterable[str],
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
) -> dict[str, list[str]]:
    """Draw a split by patient.

    Args:
        patients: names; studies of one person stay together.
        fractions: share of the persons by split, `DEFAULT_FRACTIONS` unless given; they are scaled to a sum of 1.
            Every split with a share gets at least one person.
        seed: of the order.
        path: where to write the split, if anywhere.

    Raises:
        InputError: for fewer persons than splits, or where `path` cannot be written.
        ValueError: for shares that are negative or all 0.
    """
    shares = dict(DEFAULT_FRACTIONS if fractions is None else fractions)
    if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise ValueError(f"fractions {shares}, allowed shares of 0 or more that are not all 0")
    groups = _shuffled_groups(patients, seed)
    asked = [name for name, share in shares.items() if share > 0]
    if len(groups) < len(asked):
        raise InputError("patients", f"{len(groups)} for {len(asked)} splits ({', '.join(asked)})", "at least as many")
    counts = _apportion(len(groups), [shares[name] for name in asked])
    split: dict[str, list[str]] = {name: [] for name in shares}
    start = 0
    for name, count in zip(asked, counts, strict=True):
        split[name] = _flat(groups[start : start + count])
        start += count
    if path is not None:
        write_split(path, split)
    return split


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers of the given sum, none below 1, in proportion to the shares (largest remainder)."""
    free = total - len(shares)
    exact = [max(total * share / sum(shares) - 1, 0) for share in shares]
    scale = free / sum(exact) if sum(exact) > 0 else 0
    counts = [int(part * scale) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i] * scale)
    for i in range(free - sum(counts)):
        counts[by_remainder[i % len(shares)]] += 1
    return [count + 1 for count in counts]


def kfold(patients: Iterable[str], folds: int, fold: int, seed: int = 0) -> dict[str, list[str]]:
    """One of k splits into ``train`` and ``val``; over all folds each patient is in ``val`` once.

    Args:
        patients: names; studies of one person stay together.
        folds: how many, at least 2.
        fold: which one, from 0.
        seed: of the order.

    Raises:
        InputError: for a fold that there is not, or fewer persons than folds.
    """
    groups = _shuffled_groups(patients, seed)
    if folds < 2:
        raise InputError("folds", str(folds), "2 or more")
    if not 0 <= fold < folds:
        raise InputError("fold", str(fold), f"0 to {folds - 1}")
    if len(groups) < folds:
        raise InputError("patients", f"{len(groups)} for {folds} folds", "at least as many as folds")
    held_out = groups[fold::folds]
    rest = [group for i, group in enumerate(groups) if i % folds != fold]
    return {"train": _flat(rest), "val": _flat(held_out)}


def share_of_patients(patients: Iterable[str], share: float, seed: int = 0) -> list[str]:
    """A share of the patients, drawn by the seed; a smaller share of the same seed is part of a larger one.

    Args:
        patients: names; studies of one person stay together.
        share: of the persons, above 0 to 1; at least one person is left.
        seed: of the draw.

    Raises:
        InputError: for a share that is none.
    """
    if not 0 < share <= 1:
        raise InputError("patients_share", str(share), "above 0, 1 at the most")
    groups = _shuffled_groups(patients, seed)
    return _flat(groups[: max(1, round(share * len(groups)))])


def choose_patients(
    studies: Sequence[Study],
    split: Mapping[str, Sequence[str]],
    name: str,
    *,
    errors: Sequence[InputError] = (),
    source: str | os.PathLike[str] = "split",
) -> tuple[list[Study], list[InputError]]:
    """The studies of one split; patients of the others need not be there.

    Args:
        studies: as found in a folder.
        split: names of patients by split.
        name: the split to take.
        errors: of patients that were found and cannot be used; those of other splits are dropped.
        source: the split's file, for errors.

    Returns:
        The split's studies in its order, and what is wrong with the rest of it: patients that cannot be used, and one
        error that names all absent ones.

    Raises:
        InputError: for a split that is not in the file, or that is empty.
    """
    if name not in split:
        raise InputError(source, f"no split {name!r} (only {', '.join(split)})", f"{', '.join(split)} or {ALL}")
    wanted = split[name]
    if not wanted:
        raise InputError(source, f"no patient in the split {name!r}", "at least one")
    by_name = {study.patient: study for study in studies}
    kept: list[InputError] = [e for e in errors if not isinstance(e, PatientError) or e.patient in wanted]
    failed = {error.patient for error in errors if isinstance(error, PatientError)}
    absent = [patient for patient in wanted if patient not in by_name and patient not in failed]
    if absent:
        found = f"patients of {name!r} that are absent from the folder: {', '.join(absent)}"
        kept.append(InputError(source, found, f"patients that are there, or --split {ALL}"))
    return [by_name[patient] for patient in wanted if patient in by_name], kept


def select(
    studies: Sequence[Study],
    split_file: str | os.PathLike[str] | None,
    split: str,
    *,
    errors: Sequence[InputError] = (),
) -> tuple[list[Study], list[InputError]]:
    """The studies that a split file and a split's name stand for.

    Args:
        studies: as found in a folder.
        split_file: not read where `split` is ``all``.
        split: a split's name, or ``all`` for every study.
        errors: of patients that were found and cannot be used.

    Returns:
        As `choose_patients`.

    Raises:
        InputError: for a split file that cannot be used.
    """
    if split == ALL:
        return list(studies), list(errors)
    if not split_file:
        raise InputError("split_file", f"none for the split {split!r}", f"a split file, or --split {ALL}")
    return choose_patients(studies, read_split(split_file), split, errors=errors, source=split_file)
