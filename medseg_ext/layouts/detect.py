"""Find the studies in a folder, whichever of the layouts it has, and load them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medseg_ext.errors import InputError, blaming
from medseg_ext.layouts import dicom, kaggle, nifti, nnunet, slices
from medseg_ext.layouts.channels import print_note
from medseg_ext.layouts.listing import Listing, list_folder
from medseg_ext.layouts.sequences import (
    CANONICAL,
    NIFTI_SUFFIXES,
    PICTURE_SUFFIXES,
    canonical_channels,
    canonical_sequence,
    file_of_each,
    is_mask_folder,
    sequence_of_file,
    split_suffix,
    without_sequence,
)
from medseg_ext.layouts.study import (
    LGG_CHANNELS,
    LGG_RULES,
    MASK_MODES,
    LoadedStudy,
    MaskMode,
    PatientError,
    Study,
    StudyRules,
)

#: How far below the folder given is looked.
MAX_DEPTH = 6


class _Finder:
    """Walks a folder and collects studies and the errors of single patients."""

    def __init__(self, root: Path, mode: MaskMode, channels: tuple[str, ...], rules: StudyRules) -> None:
        self.mode, self.channels, self.rules = mode, channels, rules
        self.studies: list[Study] = []
        self.errors: list[InputError] = []
        # Links may lead to one folder twice, in a circle, or up and out of the folder that was named.
        self._seen = {str(parent) for parent in Path(os.path.realpath(root)).parents}

    def walk(self, folder: Path, depth: int = 0) -> None:
        """Look at a folder and those below it."""
        self._seen.add(os.path.realpath(folder))
        listing = list_folder(folder, self.rules.allowed)
        listing.folders = [sub for sub in listing.folders if self._is_new(sub)]
        own = kaggle.data_folder(listing.folders)
        if own is not None:
            self._descend([own], depth)
            return
        if nnunet.is_dataset(folder, listing):
            self._collect(*nnunet.find_studies(folder, listing, self.mode, self.rules))
            return
        before = len(self.studies) + len(self.errors)
        if listing.niftis:
            if listing.pictures:
                print_note(f"{folder}: NIfTI files and pictures together, the pictures are left alone")
            top = depth == 0
            self._collect(*nifti.find_studies(folder, listing.niftis, self.mode, self.channels, top, self.rules))
            self._descend(listing.folders, depth)
            return
        if listing.pictures:
            try:
                study = slices.find_study(folder, listing.pictures, self.mode)
            except PatientError as error:
                self.errors.append(error)
            else:
                if study is not None:
                    # A stack of slices is one patient: what lies below it (overlays, masks) is not another.
                    self.studies.append(study)
                    return
        taken = self._take_dicom(folder, listing) if self.rules.dicom else set()
        self._descend([sub for sub in listing.folders if sub not in taken], depth)
        masks_alone = bool(listing.pictures) and self.mode == "ignore"
        below = [sub for sub in listing.folders if not is_mask_folder(sub.name)]
        if depth and not below and not masks_alone and len(self.studies) + len(self.errors) == before:
            kinds = sorted(
                {path.suffix or path.name for path in listing.others} | {f"{x.name}/" for x in listing.folders}
            )
            found = f"no slices or volumes (only {', '.join(kinds)})" if kinds else "an empty folder"
            self.errors.append(PatientError(folder, found, self.rules.allowed, folder.name))

    def _is_new(self, folder: Path) -> bool:
        """Whether a folder is still to be looked at."""
        return os.path.realpath(folder) not in self._seen

    def _take_dicom(self, folder: Path, listing: Listing) -> set[Path]:
        """Collect the DICOM studies of a folder and of those right below it; return the folders that are done."""
        folders = [sub for sub in listing.folders if not is_mask_folder(sub.name)]
        own, below = dicom.dicom_files(listing), dicom.files_below(folders)
        if own or below:
            self._collect(*dicom.find_studies(folder, own, below, self.rules))
        return {place for place, _ in below}

    def _descend(self, folders: Sequence[Path], depth: int) -> None:
        if depth >= MAX_DEPTH:
            if folders:
                print_note(f"{folders[0].parent}: {MAX_DEPTH} folders down, what lies below is left alone")
            return
        for folder in folders:
            if is_mask_folder(folder.name):
                print_note(f"{folder}: a folder of masks by its name, left alone")
            else:
                self._walk_below(folder, depth + 1)

    def _walk_below(self, folder: Path, depth: int) -> None:
        if not self._is_new(folder):  # two links to one folder
            return
        try:
            with blaming(folder, self.rules.allowed):
                self.walk(folder, depth)
        except InputError as error:
            self.errors.append(PatientError.of(error, folder.name))

    def _collect(self, studies: Iterable[Study], errors: Iterable[InputError]) -> None:
        self.studies.extend(studies)
        self.errors.extend(errors)

    def refuse_twins(self) -> None:
        """Two studies under one name would write over each other's masks; neither is taken."""
        by_name = self._by_name()
        for twins in by_name.values():
            # p1/scan_1.nii and p2/scan_1.nii: files named alike in folders named after the patients.
            if len(twins) > 1 and len({twin.folder.name for twin in twins}) == len(twins):
                for twin in twins:
                    self.studies[self.studies.index(twin)] = replace(twin, patient=twin.folder.name)
        by_name = self._by_name()
        self.studies = [study for study in self.studies if len(by_name[study.patient]) == 1]
        for patient, twins in by_name.items():
            if len(twins) > 1:
                found = f"patient {patient} again (also in {twins[0].folder})"
                self.errors.append(PatientError(twins[1].folder, found, "each patient once", patient))

    def _by_name(self) -> dict[str, list[Study]]:
        by_name: dict[str, list[Study]] = defaultdict(list)
        for study in self.studies:
            by_name[study.patient].append(study)
        return by_name


def _check_mode(masks: str) -> MaskMode:
    for mode in MASK_MODES:
        if mode == masks:
            return mode
    raise InputError("masks", repr(masks), " or ".join(MASK_MODES))


def find_studies(
    directory: str | os.PathLike[str],
    *,
    channel_order: Iterable[str] = LGG_CHANNELS,
    masks: MaskMode = "optional",
    rules: StudyRules = LGG_RULES,
) -> tuple[list[Study], list[InputError]]:
    """Find the studies in a folder; the layout is told from the files.

    Args:
        directory: a data set's folder, the folder that holds it, or one patient's folder.
        channel_order: sequences that will be asked for.
        masks: ``required`` (training, evaluating: a slice without mask, or a mask without slice, is an error),
            ``optional`` (the same where a patient has any mask) or ``ignore`` (inferring: masks are left alone).
        rules: what makes files a study: `LGG_RULES` or `BRATS_RULES`.

    Returns:
        Studies sorted by patient, and the errors of patients that cannot be used.

    Raises:
        InputError: for a folder that is missing, unreadable or holds no study.
    """
    folder = Path(directory)
    finder = _Finder(folder, _check_mode(masks), canonical_channels(channel_order), rules)
    with blaming(folder, rules.allowed):
        finder.walk(folder)
        finder.refuse_twins()
    if not finder.studies and not finder.errors:
        raise InputError(folder, "no studies in the folder", rules.allowed)
    return sorted(finder.studies, key=lambda study: study.patient), finder.errors


def load_study(
    study: Study,
    *,
    channel_order: Iterable[str] = LGG_CHANNELS,
    masks: MaskMode = "optional",
    nifti_channel_order: Iterable[str] = LGG_CHANNELS,
) -> LoadedStudy:
    """Read one study in the canonical orientation.

    Args:
        study: as `find_studies` gives it.
        channel_order: channels to return, by any name of a sequence.
        masks: ``required`` refuses a study without mask, ``ignore`` reads none.
        nifti_channel_order: what the channels of a 4-D NIfTI hold, in order; also those of nnU-Net cases without
            ``dataset.json``.

    Raises:
        PatientError: for any file that is not what its place asks for.
    """
    mode = _check_mode(masks)
    wanted = canonical_channels(channel_order)
    try:
        with blaming(study.place, "a study that can be read"):
            if mode == "required" and not study.masks:
                raise InputError(study.images[0], "no mask", "a mask beside the images")
            if study.layout in {"kaggle", "slices"}:
                return slices.load_study(study, wanted, mode)
            held = canonical_channels(nifti_channel_order, "channel order of NIfTI stacks")
            return nifti.load_study(study, wanted, mode, held)
    except InputError as error:
        raise PatientError.of(error, study.patient) from error


def study_from_files(files: Mapping[str, str | os.PathLike[str]] | Sequence[str | os.PathLike[str]]) -> Study:
    """The study that named files make.

    Args:
        files: NIfTI files by sequence, ``{"t1ce": ..., "flair": ...}``, or a list of them with a sequence in each name.

    Raises:
        InputError: for no file, a sequence that cannot be told, or one that is there twice.
    """
    if isinstance(files, Mapping):
        named = [(canonical_sequence(name), Path(path)) for name, path in files.items()]
    else:
        names = [Path(path).name for path in files]
        named = [(sequence_of_file(path, names), Path(path)) for path in files]
    by_sequence = file_of_each(named)
    if not by_sequence:
        raise InputError("image", "no files", f"at least one of {', '.join(CANONICAL)}")
    sequences, images = tuple(by_sequence), tuple(by_sequence.values())
    patient = without_sequence(split_suffix(images[0].name)[0]) or images[0].absolute().parent.name
    return Study(patient=patient, layout="nifti", folder=images[0].parent, images=images, sequences=sequences)


def study_from_path(
    path: str | os.PathLike[str],
    *,
    channel_order: Iterable[str] = LGG_CHANNELS,
    masks: MaskMode = "ignore",
    rules: StudyRules = LGG_RULES,
) -> Study:
    """The one study that a path stands for.

    Args:
        path: a 4-D NIfTI file, a file of one sequence (its neighbours complete the study), a slice, or the folder of
            one study.
        channel_order: sequences that will be asked for.
        masks: as in `find_studies`.
        rules: as in `find_studies`.

    Raises:
        InputError: where there is no study, or more than one.
    """
    path = Path(path)
    mode, channels = _check_mode(masks), canonical_channels(channel_order)
    if path.is_dir():
        studies, errors = find_studies(path, channel_order=channels, masks=mode, rules=rules)
        if errors:
            raise errors[0]
        if len(studies) != 1:
            raise InputError(path, f"{len(studies)} studies", "one study")
        return studies[0]
    if not path.exists():
        raise InputError(path, "no such file or folder", "a NIfTI file, a slice, or the folder of one study")
    suffix = split_suffix(path.name)[1]
    if suffix in NIFTI_SUFFIXES:
        return nifti.study_of_file(path, list_folder(path.parent).niftis, mode, channels, rules)
    if suffix in PICTURE_SUFFIXES:
        study = slices.find_study(path.parent, list_folder(path.parent).pictures, mode)
        if study is not None:
            return study
    raise InputError(path, f"a file of type {path.suffix or 'unknown'}", "a NIfTI file, a slice, or a folder")
