"""nnU-Net's raw data: ``imagesTr/case_0000.nii.gz``, ``imagesTs``, ``labelsTr/case.nii.gz``, ``dataset.json``.

F. Isensee et al., Nature Methods 18, 2021. The older layout of the Medical Segmentation Decathlon, one 4-D file
``imagesTr/case.nii.gz`` with ``modality`` in ``dataset.json``, is read too.
"""

from __future__ import annotations

import re
import reprlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.files import read_json
from medseg_ext.layouts.channels import check_required
from medseg_ext.layouts.labels import conventions_of_json
from medseg_ext.layouts.listing import Listing, list_folder
from medseg_ext.layouts.sequences import canonical_channels, split_suffix
from medseg_ext.layouts.study import LGG_RULES, MaskMode, PatientError, Study, StudyRules
from medseg_ext.layouts.volumes import is_stack_shape, open_volume

_PARTS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
_CHANNEL = re.compile(r"(.+)_(\d{4})", re.ASCII)
_JSON = "dataset.json"


def is_dataset(folder: Path, listing: Listing) -> bool:
    """Whether a folder is an nnU-Net set, its images folder, or the flat folder that nnU-Net predicts from."""
    if any(sub.name in _PARTS for sub in listing.folders) or (folder.name in _PARTS and listing.niftis):
        return True
    if not listing.niftis or not all(_CHANNEL.fullmatch(split_suffix(path.name)[0]) for path in listing.niftis):
        return False
    if any(path.name == _JSON for path in listing.others):
        return True
    # case_0000, case_0001 may be channels of one case or two patients' stacks; the files themselves say which.
    try:
        return not is_stack_shape(open_volume(listing.niftis[0]).shape)
    except InputError:
        return False


def find_studies(
    folder: Path, listing: Listing, mode: MaskMode, rules: StudyRules = LGG_RULES
) -> tuple[list[Study], list[InputError]]:
    """The cases of an nnU-Net set.

    Args:
        folder: the set, its ``imagesTr`` or ``imagesTs``, or a flat folder of cases.
        listing: what it holds.
        mode: with ``required`` the cases of ``imagesTs`` count only if there is a ``labelsTs``.
        rules: what makes files a study.

    Returns:
        Studies, and the errors of cases that cannot be used.

    Raises:
        InputError: for a ``dataset.json`` that cannot be used.
    """
    parts = [sub for sub in listing.folders if sub.name in _PARTS] or [folder]
    root = folder if parts != [folder] else folder.parent
    settings = next((path for path in (root / _JSON, folder / _JSON) if path.is_file()), None)
    content = _read_json(settings) if settings else {}
    names = _channels(content, settings, rules.required) if settings else ()
    conventions = conventions_of_json(content.get("labels"))
    studies: list[Study] = []
    errors: list[InputError] = []
    for part in parts:
        labels = part.parent / _PARTS.get(part.name, "labels")
        if mode == "required" and part.name == "imagesTs" and len(parts) > 1 and not labels.is_dir():
            continue
        found, failed = _Part(part, labels, names, settings, mode, conventions).find()
        studies += found
        errors += failed
    return studies, errors


_ALLOWED = 'channel_names such as {"0": "T1", "1": "FLAIR", "2": "T1Gd"}'


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, _ALLOWED)
    return content if isinstance(content, dict) else {}


def _channels(content: dict[str, Any], path: Path, required: tuple[str, ...]) -> tuple[str, ...]:
    """Canonical names of the channels, in their order."""
    named = content.get("channel_names", content.get("modality"))
    if not isinstance(named, dict) or sorted(named) != sorted(str(i) for i in range(len(named))) or not named:
        raise InputError(path, f"channel_names {reprlib.repr(named)}", _ALLOWED)
    ending = content.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or ending not in {".nii.gz", ".nii"}:
        raise InputError(path, f"file_ending {reprlib.repr(ending)}", ".nii.gz or .nii")
    order = [named[str(i)] for i in range(len(named))]
    for name in order:
        if not isinstance(name, str):
            raise InputError(path, f"a channel named {reprlib.repr(name)}", _ALLOWED)
    try:
        channels = canonical_channels(order)
    except InputError as error:
        raise InputError(path, f"channels {', '.join(order)}", f"each a sequence, {error.allowed}") from error
    check_required(channels, path, required)
    return channels


@dataclass(frozen=True)
class _Part:
    """One folder of images with what its cases have in common."""

    folder: Path
    labels: Path
    names: tuple[str, ...]
    settings: Path | None
    mode: MaskMode
    conventions: tuple[str, ...] | None

    def find(self) -> tuple[list[Study], list[InputError]]:
        """Studies, and the errors of cases that cannot be used."""
        studies: list[Study] = []
        errors: list[InputError] = []
        cases: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for path in list_folder(self.folder).niftis:
            stem = split_suffix(path.name)[0]
            match = _CHANNEL.fullmatch(stem)
            # BRATS_0001 of a Decathlon-like set is a case, not channel 1.
            if match and not (len(self.names) > 1 and _is_stack(path)):
                cases[match.group(1)][int(match.group(2))].append(path)
            else:
                cases[stem][0].append(path)
        masks: dict[str, list[Path]] = defaultdict(list)
        if self.mode != "ignore" and self.labels.is_dir():
            for path in list_folder(self.labels).niftis:
                masks[split_suffix(path.name)[0]].append(path)
        for case, files in sorted(cases.items()):
            made = self._study_or_error(case, files, masks.pop(case, []))
            if isinstance(made, Study):
                studies.append(made)
            else:
                errors.append(made)
        for case, paths in masks.items():
            found, allowed = "a mask without its images", f"{self.folder.name}/{case}_0000.nii.gz"
            errors.append(PatientError(paths[0], found, allowed, case))
        return studies, errors

    def _study_or_error(self, case: str, files: dict[int, list[Path]], masks: list[Path]) -> Study | PatientError:
        try:
            return self._study(case, files, masks)
        except InputError as error:
            return PatientError.of(error, case)

    def _study(self, case: str, files: dict[int, list[Path]], masks: list[Path]) -> Study:
        for paths in (*files.values(), masks):
            if len(paths) > 1:
                raise InputError(paths[1], f"a second file of the same name (also {paths[0].name})", "one file")
        first = next(iter(files.values()))[0]
        count = len(self.names) or max(files) + 1
        one_file = len(files) == 1 and count > 1 and _is_stack(first)
        if not one_file and sorted(files) != list(range(count)):
            have = ", ".join(f"{channel:04d}" for channel in sorted(files))
            listed = f" ({', '.join(self.names)} in {self.settings.name})" if self.settings else ""
            raise InputError(first, f"channels {have} of case {case}", f"0000 to {count - 1:04d}{listed}")
        if self.mode == "required" and not masks:
            wanted = self.labels / f"{case}{split_suffix(first.name)[1]}"
            raise InputError(first, "no mask for the case", str(wanted))
        images = tuple(files[channel][0] for channel in sorted(files))
        return Study(
            patient=case,
            layout="nnunet",
            folder=self.folder,
            images=images,
            masks=tuple(masks),
            sequences=self.names,
            conventions=self.conventions,
        )


def _is_stack(path: Path) -> bool:
    try:
        return is_stack_shape(open_volume(path).shape)
    except InputError:
        return False  # the reader says what is wrong with it
