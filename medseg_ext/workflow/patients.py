"""Which patients train, validate, are evaluated or segmented."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from medseg_ext.errors import InputError, escaped
from medseg_ext.layouts import (
    LGG_RULES,
    Study,
    StudyRules,
    check_output_dir,
    find_studies,
    kfold,
    read_split,
    seeded_split,
    select,
    share_of_patients,
)
from medseg_ext.layouts.sequences import split_suffix
from medseg_ext.layouts.splits import choose_patients
from medseg_ext.processes import is_first_process, shard
from medseg_ext.workflow.failures import Failures
from medseg_ext.workflow.records import CaseRecords
from medseg_ext.workflow.run import one_line_errors

Item = dict[str, Any]


def as_items(studies: Sequence[Study], labels: bool) -> list[Item]:
    """Dictionaries for a MONAI pipeline that starts with ``LoadStudyd``."""
    return [{"image": study, "patient": study.patient} | ({"label": study} if labels else {}) for study in studies]


#: What holds sequences without their names, in a named order, by layout; RGB slices have theirs by definition.
_UNNAMED = {"nifti-stack": "channels of 4-D NIfTI files", "nnunet": "channels _0000, _0001, ... of nnU-Net's files"}


def print_assumed_order(studies: Sequence[Study], order: Sequence[str]) -> None:
    """Say what channels are taken for where neither their files nor a ``dataset.json`` names them."""
    for layout, what in _UNNAMED.items():
        if any(study.layout == layout and not study.sequences for study in studies):
            print(f"{what}: {', '.join(order)}", flush=True)


def patient_of(item: Mapping[str, Any]) -> str:
    """The name of an item's patient: ``patient``, or without it the file name of ``image``."""
    return str(item["patient"]) if "patient" in item else split_suffix(Path(item["image"]).name)[0]


def patient_names(train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Who trains and who validates, by name: what makes a training the one it is, whoever chose them.

    Args:
        train, validation: items as :func:`as_items` makes them, or images and labels by their paths.

    Returns:
        Names under ``train`` and ``val``.
    """
    return {"train": [patient_of(item) for item in train], "val": [patient_of(item) for item in validation]}


class TrainingPatients:
    """The training and the validation patients of a folder.

    With a split file its ``train`` and ``val``; with ``folds`` the patients of both in k folds, of which ``fold``
    validates; without a file a seeded split, written to ``<output_dir>/split.json`` and said so, or the one that an
    earlier start of the same training wrote there: patients that have come since take no part. Any patient that
    cannot be used ends the training: one that silently lacks patients is another training. Nothing is read or written
    before the first look at an attribute: MONAI Label puts its own patients in place of these.

    Args:
        dataset_dir: folder in any layout.
        split_file: JSON with ``train`` and ``val``; empty for one's own data without a split.
        folds: number of folds, 0 for none. fold: which one validates, from 0.
        seed: of the split or the folds.
        channel_order: sequences wanted. nifti_channel_order: what channels without names hold; it is printed.
        output_dir: where a drawn split is written; must not be the input folder or lie in it.
        rules: what makes files a study.
        labels: masks are needed; without, patients need none and those there are stay unread.
        patients_share: of the persons in ``train``, those that train, drawn by ``seed``: a smaller share is part of a
            larger one.

    Attributes:
        train, validation: items for ``LoadStudyd``. names: patients by side.

    Raises:
        SystemExit: after one line, at the first look, an unusable file.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        split_file: str | Path | None,
        folds: int = 0,
        fold: int = 0,
        seed: int = 0,
        channel_order: Sequence[str] = ("t1", "flair", "t1ce"),
        output_dir: str | Path = ".",
        rules: StudyRules = LGG_RULES,
        labels: bool = True,
        patients_share: float = 1.0,
        nifti_channel_order: Sequence[str] | None = None,
    ) -> None:
        self.dataset_dir, self.split_file, self.output_dir = dataset_dir, split_file, output_dir
        self.folds, self.fold, self.seed, self.patients_share = folds, fold, seed, patients_share
        self.channel_order, self.nifti_channel_order = channel_order, nifti_channel_order
        self.rules, self.labels = rules, labels

    @property
    def train(self) -> list[Item]:
        """Who trains."""
        return self._chosen.train

    @property
    def validation(self) -> list[Item]:
        """Who validates."""
        return self._chosen.validation

    @property
    def names(self) -> dict[str, list[str]]:
        """Both by name."""
        return self._chosen.names

    @cached_property
    def _chosen(self) -> _Chosen:
        return self._choose()

    @one_line_errors
    def _choose(self) -> _Chosen:
        check_output_dir(self.output_dir, self.dataset_dir)
        studies, errors = find_studies(
            self.dataset_dir,
            channel_order=self.channel_order,
            masks="required" if self.labels else "ignore",
            rules=self.rules,
        )
        check_writable(self.output_dir)
        if self.split_file:
            split = read_split(self.split_file)
            source: str | Path = self.split_file
            for side in ("train", "val"):
                if side not in split:
                    raise InputError(self.split_file, f"no split {side!r}", "train and val")
        else:
            if errors:
                Failures(errors)
                raise SystemExit(1)
            source = Path(self.output_dir) / "split.json"
            if source.exists():
                split = read_split(source)
                said = f"took that of the training's first start, {escaped(source)}"
            else:
                split = seeded_split([study.patient for study in studies], seed=self.seed, path=source)
                said = f"drew one by patient with seed {self.seed}, written to {escaped(source)}"
            if is_first_process():
                print(f"no split file: {said}", flush=True)
        if self.folds:
            split = kfold([*split["train"], *split["val"]], self.folds, self.fold, self.seed)
        if self.patients_share != 1:
            split = {**split, "train": share_of_patients(split["train"], self.patients_share, self.seed)}
        names = {side: list(split[side]) for side in ("train", "val")}
        sides = []
        problems: list[InputError] = []
        for side in ("train", "val"):
            chosen, wrong = choose_patients(studies, split, side, errors=errors, source=source)
            sides.append(chosen)
            problems += [error for error in wrong if error not in problems]
        if problems:
            Failures(problems)
            raise SystemExit(1)
        if is_first_process():
            print_assumed_order([*sides[0], *sides[1]], self.nifti_channel_order or self.channel_order)
        train, validation = (as_items(side, self.labels) for side in sides)
        return _Chosen(train, validation, names)


class _Chosen(NamedTuple):
    train: list[Item]
    validation: list[Item]
    names: dict[str, list[str]]


class BatchPatients:
    """The patients that an evaluation or an inference goes over.

    Nothing is read or written before the first look at an attribute: a program that brings its images along and takes
    only some of a config's components, as MONAI Label does, needs no data folder.

    Args:
        dataset_dir: folder in any layout, or one file.
        output_dir: must not be the input folder or lie in it.
        split_file: read unless ``split`` is ``all``.
        split: name of a split, or ``all`` for every patient found.
        labels: masks are needed (evaluation) or left alone (inference).
        channel_order: sequences wanted. nifti_channel_order: what channels without names hold; it is printed.
        rules: what makes files a study.
        records: what an earlier start of the same run has done, which is left out now; None does everything.
        rank: this process. world_size: processes, of which each takes its share.

    Attributes:
        studies: the usable ones, of all processes. items: for ``LoadStudyd``, those that this process has to do.
        failures: those that are not usable, already printed.

    Raises:
        SystemExit: after one line, at the first look, when nothing can be done at all.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        output_dir: str | Path,
        split_file: str | Path | None = None,
        split: str = "all",
        labels: bool = False,
        channel_order: Sequence[str] = ("t1", "flair", "t1ce"),
        nifti_channel_order: Sequence[str] | None = None,
        rules: StudyRules = LGG_RULES,
        records: CaseRecords | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset_dir, self.output_dir = dataset_dir, output_dir
        self.split_file, self.split, self.labels = split_file, split, labels
        self.channel_order, self.nifti_channel_order, self.rules = channel_order, nifti_channel_order, rules
        self.records, self.rank, self.world_size = records, rank, world_size

    @property
    def studies(self) -> list[Study]:
        """The usable studies, of all processes."""
        return self._found.studies

    @property
    def items(self) -> list[Item]:
        """What this process has to do."""
        return self._found.items

    @property
    def failures(self) -> Failures:
        """What is not usable, and what fails later."""
        return self._found.failures

    @cached_property
    def _found(self) -> _Found:
        return self._find()

    @one_line_errors
    def _find(self) -> _Found:
        check_output_dir(self.output_dir, self.dataset_dir)
        found, errors = find_studies(
            self.dataset_dir,
            channel_order=self.channel_order,
            masks="required" if self.labels else "ignore",
            rules=self.rules,
        )
        studies, wrong = select(found, self.split_file, self.split, errors=errors)
        failures = Failures(wrong, silent=self.rank > 0 and bool(studies))
        if self.rank == 0:
            print_assumed_order(studies, self.nifti_channel_order or self.channel_order)
        if not studies:
            raise SystemExit(1)
        check_writable(self.output_dir)
        done = self.records.done(studies) if self.records is not None else set()
        if done and self.rank == 0:
            print(f"done before: {len(done)} of {len(studies)} patients", flush=True)
        left = [study for study in studies if study.patient not in done]
        return _Found(studies, as_items(shard(left, self.rank, self.world_size), self.labels), failures)


class _Found(NamedTuple):
    studies: list[Study]
    items: list[Item]
    failures: Failures


def check_writable(folder: str | Path) -> None:
    """Make an output folder and try it, before hours of work.

    Raises:
        InputError: it cannot be made or written.
    """
    target = Path(folder)
    probe = target / f".part-{os.getpid()}-writable"  # several processes may try at once
    try:
        target.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(target, error.strerror or str(error), "a writable folder") from error
