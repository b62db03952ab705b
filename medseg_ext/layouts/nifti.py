"""NIfTI: one 4-D stack a patient, or one file a sequence, with a mask file beside it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.layouts.air import without_fill
from medseg_ext.layouts.channels import check_required, print_note, select_channels
from medseg_ext.layouts.labels import conventions_of_names
from medseg_ext.layouts.orientation import largest_shift, resample, voxel_size
from medseg_ext.layouts.sequences import (
    file_of_each,
    names_mask,
    sequence_of_file,
    sequences_in,
    split_suffix,
    without_sequence,
)
from medseg_ext.layouts.study import LGG_RULES, LoadedStudy, MaskMode, PatientError, Study, StudyRules
from medseg_ext.layouts.volumes import Volume, is_stack_shape, open_volume, read_volume, shape_text

_MASK = re.compile(r"(?:^|[_.-])(?:mask|seg|segmentation|labels?|lesions?|gt)$", re.IGNORECASE)
_MASK_NAMES = "NAME_mask.nii.gz, NAME_seg.nii.gz or NAME_label.nii.gz"
_IMAGE_NAMES = "a 4-D stack, or names with a sequence: NAME_t1.nii.gz, NAME_flair.nii.gz, NAME_t1ce.nii.gz"

_A_MAP = "a mask or a map by its name"


@dataclass
class _Group:
    """Files of one folder whose names differ only in the sequence."""

    files: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)


def _split_name(path: Path, lead_name: str, mask_stems: Sequence[str] = ()) -> tuple[str, str, bool]:
    """What a file shares with its study, the part of its name that may tell the sequence, and whether it is a mask."""
    stem = split_suffix(path.name)[0]
    if stem in mask_stems:
        return "", "", True
    is_mask = _MASK.search(stem) is not None
    stem = _MASK.sub("", stem)
    # A patient's name may well hold "T1"; only what comes after it says something about the file.
    lead = lead_name if stem.startswith(lead_name) and stem != lead_name else ""
    rest = stem[len(lead) :]
    return lead + without_sequence(rest), rest, is_mask


def _stem(path: Path) -> str:
    return split_suffix(path.name)[0]


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _patient_name(key: str, folder: Path, sole: bool, top: bool) -> str:
    """The folder's name or the files' own, whichever tells patients apart."""
    if not sole:
        return key or folder.name
    if _has_digit(key) and (top or not _has_digit(folder.name)):
        return key
    if _has_digit(folder.name) or not top:
        return folder.name
    return key or folder.name


class _FolderFinder:
    """Sorts the NIfTI files of one folder into studies, masks and files that are neither."""

    def __init__(self, folder: Path, mode: MaskMode, channels: Sequence[str], top: bool, rules: StudyRules) -> None:
        self.folder, self.mode, self.channels, self.top, self.rules = folder, mode, channels, top, rules
        self.groups: dict[str, _Group] = defaultdict(_Group)
        self.unknown: list[Path] = []
        self.maps: list[Path] = []
        self.studies: list[Study] = []
        self.errors: list[InputError] = []

    def find(self, files: Sequence[Path]) -> None:
        """Fill `studies` and `errors` from the folder's NIfTI files."""
        for path in files:
            key, rest, is_mask = _split_name(path, self.folder.name, self.rules.mask_stems)
            if names_mask(rest) and not is_mask:
                self.maps.append(path)
            else:
                (self.groups[key].masks if is_mask else self.groups[key].files).append(path)
        # Images without a sequence in the name are stacks, or something else that lies about (a brain mask, a DWI).
        for group in self.groups.values():
            if len(group.files) == 1 and not self._tells_sequence(group.files[0]) and self._is_other(group.files[0]):
                self.unknown.append(group.files.pop())
        keys = [key for key, group in self.groups.items() if group.files]
        for key in keys:
            self._add(key, sole=len(keys) == 1)
        self._check_unknown_files(files, keys)
        self._check_maps(keys)
        if self.mode == "required" or (self.mode != "ignore" and keys):
            self._check_stray_masks(sole=len(keys) == 1)

    def _tells_sequence(self, path: Path) -> bool:
        return len(sequences_in(_split_name(path, self.folder.name)[1])) == 1

    def _is_other(self, path: Path) -> bool:
        """Whether a file is neither a stack nor so damaged that the reader had better say so."""
        try:
            return not is_stack_shape(open_volume(path).shape)
        except InputError:
            return False

    def _add(self, key: str, sole: bool) -> None:
        group, patient = self.groups[key], _patient_name(key, self.folder, sole, self.top)
        if sole and not group.masks:
            for name in ("", self.folder.name):
                group.masks += self.groups[name].masks if name in self.groups and name != key else []
        try:
            study = _study(patient, self.folder, group, self.mode, self.rules)
            self._check_unknown(study, key, sole)
        except InputError as error:
            self.errors.append(PatientError.of(error, patient))
        else:
            self.studies.append(study)

    def _check_unknown(self, study: Study, key: str, sole: bool) -> None:
        """A misspelt sequence must not be taken for a missing one."""
        missing = [name for name in self.channels if study.sequences and name not in study.sequences]
        others = tuple(stem.lower() for stem in self.rules.other_stems)
        unknown = [path for path in self.unknown if not (others and _stem(path).lower().endswith(others))]
        mine = [path for path in unknown if sole or (key and path.name.startswith(key))]
        if missing and mine:
            listed = ", ".join(path.name for path in mine)
            raise InputError(mine[0], f"no {' and no '.join(missing)}, but unknown sequences ({listed})", _IMAGE_NAMES)

    def _check_unknown_files(self, files: Sequence[Path], keys: Sequence[str]) -> None:
        """Files of unknown content beside a study may lie there; alone they are a study that cannot be read."""
        listed = ", ".join(path.name for path in files[:8]) + (", ..." if len(files) > 8 else "")
        by_sequence = any(study.sequences for study in self.studies)
        if len(keys) == 1 and not self.studies:
            return  # the study beside them has an error of its own
        for path in self.unknown:
            beside = (len(keys) == 1 and by_sequence) or any(key and path.name.startswith(key) for key in keys)
            if beside:
                print_note(f"{path}: no sequence in the name, left alone")
                continue
            key = _split_name(path, self.folder.name)[0]
            alone = not keys and not self.top
            patient = _patient_name(key, self.folder, alone, self.top)
            found = f"one volume and no sequence in the name (files: {listed})"
            self.errors.append(PatientError(path, found, _IMAGE_NAMES, patient))
            if alone:
                return  # one error for the patient's folder; it lists the files

    def _check_maps(self, keys: Sequence[str]) -> None:
        """What may be a mask by its name is neither read as a sequence nor taken for the mask."""
        for path in self.maps:
            if keys or self.unknown or self.mode == "ignore":
                print_note(f"{path}: {_A_MAP}, left alone")
            else:
                self._refuse(path, _A_MAP, _IMAGE_NAMES)
                if not self.top:
                    return  # one error for a patient's folder

    def _check_stray_masks(self, sole: bool) -> None:
        taken = {path for study in self.studies for path in study.masks}
        failed = {error.patient for error in self.errors if isinstance(error, PatientError)}
        for key, group in self.groups.items():
            patient = _patient_name(key, self.folder, False, self.top)
            if group.files or patient in failed:
                continue
            for path in sorted({*group.masks} - taken):
                if sole and taken:
                    print_note(f"{path}: belongs to no images by its name, left alone")
                elif not sole or self.studies:
                    self._refuse(path, "a mask without its images", "images of the same name beside it")

    def _refuse(self, path: Path, found: str, allowed: str) -> None:
        key = _split_name(path, self.folder.name)[0]
        self.errors.append(PatientError(path, found, allowed, _patient_name(key, self.folder, False, self.top)))


def find_studies(
    folder: Path,
    files: Sequence[Path],
    mode: MaskMode,
    channels: Sequence[str],
    top: bool = False,
    rules: StudyRules = LGG_RULES,
) -> tuple[list[Study], list[InputError]]:
    """The studies that the NIfTI files of a folder make.

    Args:
        folder: where the files lie.
        files: its NIfTI files, masks among them.
        mode: ``ignore`` leaves masks alone.
        channels: sequences that will be asked for.
        top: whether this is the folder the user named, not one below it.
        rules: what makes files a study.

    Returns:
        Studies, and the errors of those that cannot be used.
    """
    finder = _FolderFinder(folder, mode, channels, top, rules)
    finder.find(files)
    return finder.studies, finder.errors


def _study(patient: str, folder: Path, group: _Group, mode: MaskMode, rules: StudyRules) -> Study:
    masks: tuple[Path, ...] = ()
    if mode != "ignore":
        if len(group.masks) > 1:
            raise InputError(group.masks[1], f"a second mask (also {group.masks[0].name})", "one mask a patient")
        masks = tuple(group.masks)
        if mode == "required" and not masks:
            raise InputError(group.files[0], "no mask for the images", _MASK_NAMES)
    if len(group.files) == 1 and is_stack_shape(open_volume(group.files[0]).shape):
        return Study(patient=patient, layout="nifti-stack", folder=folder, images=tuple(group.files), masks=masks)
    names = [path.name for path in group.files]

    def sequence_of(path: Path) -> str:
        found = sequences_in(_split_name(path, folder.name)[1])
        return found.pop() if len(found) == 1 else sequence_of_file(path, names)

    by_sequence = file_of_each((sequence_of(path), path) for path in group.files)
    sequences, images = tuple(by_sequence), tuple(by_sequence.values())
    check_required(sequences, group.files[0], rules.required)
    known = conventions_of_names([_stem(path) for path in images], _stem(masks[0])) if masks else None
    return Study(
        patient=patient,
        layout="nifti",
        folder=folder,
        images=images,
        masks=masks,
        sequences=sequences,
        conventions=known,
    )


def study_of_file(
    path: Path, siblings: Sequence[Path], mode: MaskMode, channels: Sequence[str], rules: StudyRules = LGG_RULES
) -> Study:
    """The study that a NIfTI file is part of.

    Args:
        path: a stack, or one sequence of a study whose other files lie beside it.
        siblings: NIfTI files of the same folder.
        mode: ``ignore`` leaves masks alone.
        channels: sequences that will be asked for.
        rules: what makes files a study.

    Raises:
        InputError: where the file is of no usable study.
    """
    if is_stack_shape(open_volume(path).shape):
        stem = split_suffix(path.name)[0]
        masks = [other for other in siblings if _MASK.sub("", split_suffix(other.name)[0]) == stem and other != path]
        group = _Group([path], [] if mode == "ignore" else masks)
        return replace(_study(stem, path.parent, group, mode, rules), patient=stem)
    key = _split_name(path, path.parent.name)[0]
    mine = [other for other in siblings if _split_name(other, path.parent.name)[0] == key]
    studies, errors = find_studies(path.parent, mine, mode, channels, top=True, rules=rules)
    if errors:
        raise errors[0]
    if not studies:
        raise InputError(path, _A_MAP, _IMAGE_NAMES)
    study = studies[0]
    return replace(study, reference=study.sequences[study.images.index(path)]) if path in study.images else study


def is_stack(study: Study) -> bool:
    """Whether one file holds all channels of the study."""
    return study.layout == "nifti-stack" or (len(study.images) == 1 and len(study.sequences) > 1)


def reference_image(study: Study) -> Path:
    """The file whose grid and geometry the study's mask has: FLAIR's, unless another was chosen."""
    name = study.reference or "flair"
    if not is_stack(study) and name in study.sequences:
        return study.images[study.sequences.index(name)]
    return study.images[0]


def load_study(study: Study, channel_order: Sequence[str], mode: MaskMode, held: tuple[str, ...]) -> LoadedStudy:
    """Read one patient's NIfTI files.

    Args:
        study: of the layout ``nifti``, ``nifti-stack`` or ``nnunet``.
        channel_order: canonical names of the channels to return.
        mode: ``ignore`` reads no mask.
        held: what the files hold, in order, where the study does not know it.

    Raises:
        InputError: for any file that is not what its place asks for.
    """
    study = replace(study, sequences=study.sequences or held)
    check_required(study.sequences, study.images[0])
    if is_stack(study):
        reference = _read_image(study.images[0], study.sequences)
        data, affine = reference.canonical()
        image, sources = np.moveaxis(data, -1, 0), study.sequences
    else:
        if len(study.images) != len(study.sequences):
            wanted = f"{len(study.sequences)} ({', '.join(study.sequences)})"
            raise InputError(study.images[0], f"{len(study.images)} files of channels", wanted)
        sources = tuple(name for name in study.sequences if name in channel_order or name == "flair")
        reference = _read_image(reference_image(study))
        data, affine = reference.canonical()
        files = [study.images[study.sequences.index(name)] for name in sources]
        parts = [data if file == reference.path else _on_grid_of(reference, _read_image(file)) for file in files]
        image = np.stack(parts)
    where = study.images[0] if is_stack(study) else study.folder
    image = select_channels(image, sources, channel_order, where)
    mask = _read_mask(study.masks[0], reference) if study.masks and mode != "ignore" else None
    return LoadedStudy(study, image, mask, voxel_size(affine), affine)


def _read_image(path: Path, channels: tuple[str, ...] | None = None) -> Volume:
    volume = read_volume(path, channels)
    volume.data = without_fill(volume.data, None if channels is None else -1)
    return volume


def _as_stored_like(reference: Volume, other: Volume) -> np.ndarray | None:
    """Where only one of two files says how the head lies and both are alike in size, voxels are paired as stored."""
    if reference.oriented == other.oriented:
        return None
    if reference.data.shape[:3] != other.data.shape[:3]:
        found = f"{shape_text(other.data.shape[:3])} voxels and no orientation in one of the files"
        raise InputError(other.path, found, f"the grid of {reference.path.name}, or an orientation in both")
    print_note(f"{other.path}: only one of it and {reference.path.name} has an orientation, paired as stored")
    return reference.transform()


def _on_grid_of(reference: Volume, other: Volume) -> np.ndarray:
    """A sequence on the reference's grid, interpolated linearly where its own is another."""
    transform = _as_stored_like(reference, other)
    data, affine = other.canonical(transform)
    target, target_affine = reference.canonical()
    if transform is not None:
        return data
    same_size = data.shape == target.shape
    if same_size and (not reference.oriented or largest_shift(affine, target_affine, data.shape) < 0.1):
        return data
    if not reference.oriented:
        found = f"{shape_text(data.shape)} voxels and no orientation"
        raise InputError(other.path, found, f"{shape_text(target.shape)} as {reference.path.name}")
    print_note(f"{other.path}: another grid than {reference.path.name}, resampled to that one")
    resampled = resample(data, affine, target.shape, target_affine)
    if not resampled.any() and data.any():
        raise InputError(other.path, "a volume elsewhere in space", f"one that overlaps {reference.path.name}")
    return resampled


def _read_mask(path: Path, reference: Volume) -> np.ndarray:
    volume = read_volume(path)
    size, wanted = volume.data.shape, reference.data.shape[:3]
    data, affine = volume.canonical(_as_stored_like(reference, volume) if size == wanted else None)
    target_shape, target_affine = _canonical_grid(reference)
    if data.shape != target_shape:
        raise InputError(path, f"a mask of {shape_text(size)}", f"{shape_text(wanted)} as the image")
    both = volume.oriented and reference.oriented
    if both and largest_shift(affine, target_affine, data.shape) > 0.5:
        raise InputError(path, "a mask elsewhere in space", f"the grid of {reference.path.name}")
    if (data != np.round(data)).any() or data.min() < 0:
        odd = data[(data != np.round(data)) | (data < 0)]
        raise InputError(path, f"values such as {odd[0]:g} in the mask", "integers, 0 outside the lesion")
    return (data > 0).astype(np.uint8)


def _canonical_grid(volume: Volume) -> tuple[tuple[int, ...], np.ndarray]:
    data, affine = volume.canonical()
    return data.shape[:3], affine
