"""A folder of numbered PNG or TIFF slices a patient.

Either one RGB file a slice, ``p_3.png`` (channels pre-contrast T1, FLAIR, post-contrast T1), or one grey file a slice
and sequence, ``p_3_flair.png``; masks are ``p_3_mask.png``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.layouts import kaggle
from medseg_ext.layouts.channels import check_required, select_channels
from medseg_ext.layouts.pictures import count_channels, read_mask_picture, read_picture
from medseg_ext.layouts.sequences import CANONICAL, names_mask, sequences_in, split_suffix, without_sequence
from medseg_ext.layouts.study import LGG_CHANNELS, LoadedStudy, MaskMode, PatientError, Study
from medseg_ext.layouts.volumes import MAX_VOXELS

_MASK = re.compile(r"[_-]mask$", re.IGNORECASE)


def is_mask_name(name: str) -> bool:
    """Whether a picture's name is that of a mask, ``<slice>_mask.<ext>``."""
    return _MASK.search(split_suffix(name)[0]) is not None


@dataclass(frozen=True)
class _SliceFile:
    path: Path
    slice_name: str  # the file's stem without sequence and mask: "p_3"
    prefix: str
    number: int | None
    sequences: frozenset[str]


def _parse(path: Path, patient: str) -> _SliceFile:
    stem = _MASK.sub("", split_suffix(path.name)[0])
    # A patient's name may well hold "T1"; only what comes after it says something about the file.
    lead = patient if stem.startswith(patient) and stem != patient else ""
    rest = stem[len(lead) :]
    sequences = frozenset(sequences_in(rest))
    if sequences:
        rest = without_sequence(rest)
    # re.ASCII keeps int() and the listing in step: "²" is a digit to str, not to a slice's number.
    match = re.search(r"(\d+)$", rest, re.ASCII)
    number = int(match.group()) if match else None
    prefix = lead + (rest[: match.start()] if match else rest)
    return _SliceFile(path, lead + rest, prefix, number, sequences)


def slice_name(image: Path, patient: str) -> str:
    """What a slice's files have in common: the image's stem without the sequence."""
    return _parse(image, patient).slice_name


def _check_numbers(folder: Path, files: Sequence[_SliceFile]) -> None:
    for file in files:
        if file.number is None:
            raise InputError(file.path, "no slice number in the name", "names that end with it, such as p_12.png")
    if all(names_mask(file.prefix.removeprefix(folder.name)) for file in files):
        raise InputError(files[0].path, "slices that are masks by their names", "images, and masks named p_12_mask.png")
    prefixes = list(dict.fromkeys(file.prefix for file in files))
    if len(prefixes) > 1:
        counts = Counter(file.prefix for file in files)
        odd = min(files, key=lambda file: counts[file.prefix])
        found = f"slices named {prefixes[0]}* and {prefixes[1]}* in one folder"
        raise InputError(odd.path, found, "one patient a folder")
    seen: dict[tuple[int, frozenset[str]], Path] = {}
    for file in files:
        key = (file.number or 0, file.sequences)
        if key in seen:
            raise InputError(file.path, f"slice {file.number} twice (also {seen[key].name})", "each slice once")
        seen[key] = file.path
    numbers = {file.number for file in files if file.number is not None}
    missing = [number for number in range(min(numbers), max(numbers) + 1) if number not in numbers]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        span = f"{min(numbers)} to {max(numbers)}"
        raise InputError(folder, f"missing slice numbers {listed} of {span}", "consecutive numbers")


def _order_images(files: Sequence[_SliceFile]) -> tuple[list[str], tuple[Path, ...], tuple[str, ...]]:
    """Slice names and files by number, and the sequences where each has its own file."""
    named = {bool(file.sequences) for file in files}
    for file in files:
        if len(file.sequences) > 1:
            raise InputError(file.path, f"{' and '.join(sorted(file.sequences))} in the name", "one sequence a file")
    by_number: dict[int, dict[str, _SliceFile]] = defaultdict(dict)
    for file in files:
        by_number[file.number or 0][next(iter(file.sequences), "")] = file
    slices = [by_number[number] for number in sorted(by_number)]
    if len(named) > 1:
        odd = next(file for file in files if not file.sequences)
        raise InputError(odd.path, "no sequence in the name while other slices have one", "one way of naming a folder")
    sequences = tuple(name for name in CANONICAL if any(name in files_of for files_of in slices))
    keys = sequences or ("",)
    for files_of in slices:
        for key in keys:
            if key not in files_of:
                have = next(iter(files_of.values()))
                found = f"slice {have.number} without a {key} file"
                raise InputError(have.path, found, f"{', '.join(keys)} of each slice")
    names = [next(iter(files_of.values())).slice_name for files_of in slices]
    return names, tuple(files_of[key].path for files_of in slices for key in keys), sequences


def _match_masks(
    names: Sequence[str], images: Sequence[Path], masks: Sequence[_SliceFile], mode: MaskMode
) -> tuple[Path, ...]:
    if mode == "ignore" or (mode == "optional" and not masks):
        return ()
    by_slice: dict[str, Path] = {}
    for mask in masks:
        if mask.slice_name in by_slice:
            raise InputError(mask.path, f"a second mask of the slice (also {by_slice[mask.slice_name].name})", "one")
        by_slice[mask.slice_name] = mask.path
    for name, path in by_slice.items():
        if name not in names:
            raise InputError(path, "a mask without its slice", f"{name}{images[0].suffix} beside it")
    lacking = [i for i, name in enumerate(names) if name not in by_slice]
    if lacking:
        image = images[lacking[0] * (len(images) // len(names))]
        more = f" (nor for {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise InputError(image, f"no mask for the slice{more}", f"{names[lacking[0]]}_mask{image.suffix} beside it")
    return tuple(by_slice[name] for name in names)


def find_study(folder: Path, pictures: Sequence[Path], mode: MaskMode) -> Study | None:
    """The study that a folder's pictures make.

    Args:
        folder: one patient's folder; its name is the patient's.
        pictures: the PNG and TIFF files in it, masks among them.
        mode: ``required`` and ``optional`` match masks to slices, ``ignore`` leaves them alone.

    Returns:
        The study, or None where there are only masks and those are to be ignored.

    Raises:
        PatientError: for slices or masks that do not make one complete stack.
    """
    patient = folder.name
    try:
        files = [_parse(path, patient) for path in pictures if not is_mask_name(path.name)]
        masks = [_parse(path, patient) for path in pictures if is_mask_name(path.name)]
        if not files:
            if mode == "ignore":
                return None
            raise InputError(masks[0].path, "a mask without its slice", "slices beside the masks")
        _check_numbers(folder, files)
        names, images, sequences = _order_images(files)
        if sequences:
            check_required(sequences, images[0])
        layout = "kaggle" if not sequences and kaggle.is_kaggle_folder(folder, images) else "slices"
        matched = _match_masks(names, images, masks, mode)
    except InputError as error:
        raise PatientError.of(error, patient) from error
    return Study(patient=patient, layout=layout, folder=folder, images=images, masks=matched, sequences=sequences)


def _check_sizes(paths: Sequence[Path], pictures: Sequence[np.ndarray], what: str) -> None:
    sizes = [picture.shape[:2] for picture in pictures]
    (usual, _), *others = Counter(sizes).most_common()
    if others:
        i = next(i for i, size in enumerate(sizes) if size != usual)
        found = f"a {what} of {sizes[i][0]}x{sizes[i][1]}"
        raise InputError(paths[i], found, f"{usual[0]}x{usual[1]} as in the patient's other slices")


def _read_all(paths: Sequence[Path]) -> list[np.ndarray]:
    pictures, total = [], 0
    for path in paths:
        pictures.append(read_picture(path))
        total += pictures[-1].size
        if total > MAX_VOXELS:
            raise InputError(path.parent, f"more than {total} values in the slices", f"at most {MAX_VOXELS}")
    return pictures


def load_study(study: Study, channel_order: Sequence[str], mode: MaskMode) -> LoadedStudy:
    """Read the slices of one patient.

    Args:
        study: of the layout ``kaggle`` or ``slices``.
        channel_order: canonical names of the channels to return.
        mode: ``ignore`` reads no masks.

    Raises:
        InputError: for any file that is not what its place asks for.
    """
    pictures = _read_all(study.images)
    wanted = 1 if study.sequences else len(LGG_CHANNELS)
    for path, picture in zip(study.images, pictures, strict=True):
        if count_channels(picture) != wanted:
            found = f"{count_channels(picture)} channel{'s' if count_channels(picture) > 1 else ''}"
            rgb = f"{wanted} ({', '.join(LGG_CHANNELS)})"
            raise InputError(path, found, "1 (grey), as the name says which" if study.sequences else rgb)
    _check_sizes(study.images, pictures, "slice")
    depth = len(pictures) // max(len(study.sequences), 1)
    height, width = pictures[0].shape[:2]
    sources = study.sequences or LGG_CHANNELS
    # Filled slice by slice, so that the disk's order is kept in memory; the view below only renames the axes.
    volume = np.empty((len(sources), depth, height, width), np.float32)
    for i, picture in enumerate(pictures):
        if study.sequences:
            volume[i % len(sources), i // len(sources)] = picture
        else:
            volume[:, i] = np.moveaxis(picture, -1, 0)
    floats = [path for path, picture in zip(study.images, pictures, strict=True) if picture.dtype.kind == "f"]
    if floats and not np.isfinite(volume).all():
        raise InputError(floats[0], "NaN or infinite values", "finite intensities")
    image = select_channels(np.moveaxis(volume, 1, -1), sources, channel_order, study.folder)
    mask = None
    if study.masks and mode != "ignore":
        masks = [read_mask_picture(path) for path in study.masks]
        for path, part in zip(study.masks, masks, strict=True):
            if part.shape != (height, width):
                found = f"a mask of {part.shape[0]}x{part.shape[1]}"
                raise InputError(path, found, f"{height}x{width} as the slice")
        mask = np.moveaxis(np.stack(masks), 0, -1)
    return LoadedStudy(study, image, mask)
