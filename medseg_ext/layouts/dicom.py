"""DICOM: one series a sequence, each in a folder of its own or all in one, read through ITK.

What a series holds is told from the name of its folder, else from its description. Slices are placed by their own
positions; a series whose slices are not evenly spaced has lost some and is refused.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.layouts.channels import check_required, print_note
from medseg_ext.layouts.listing import Listing, list_folder
from medseg_ext.layouts.sequences import CANONICAL, sequences_in
from medseg_ext.layouts.study import PatientError, Study, StudyRules
from medseg_ext.layouts.volumes import MAX_SIDE, MAX_VOXELS, Volume, is_invertible, shape_text

_SERIES_NAMES = "a folder or series description that names t1, t1ce (T1 post, T1 Gd), t2 or flair"
# Weightings that carry T1 or T2 in their names and are another sequence, and series that are none.
_OTHER = re.compile(
    r"locali[sz]er|scout|survey|\bdwi|\badc\b|diff|trace|\bdti|\bswi|swan|t2\s?\*|t2.?star|t2.*\bgre\b|\bgre\b.*t2|perf|\bdsc|\bdce"
    r"|\bcb[vf]|\bmtt|\bmra|\btof|\basl|spectro|\bfmri|bold|phase|field.?map|subtract",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"\bpost|\bgd\b|\bgad|contrast|\bce\b|\+\s?c\b|\bc\s?\+|\bkm\b|dotarem|magnevist|multihance",
    re.IGNORECASE,
)
_NO_CONTRAST = re.compile(r"\bpre\b|w/?o\b|without|non.?contrast|nati[vf]", re.IGNORECASE)
_SUFFIXES = {"", ".dcm", ".dicom", ".ima"}
#: By how much a step between slices may differ from the usual one.
_STEP_TOLERANCE = 0.2


@dataclass(frozen=True)
class Series:
    """One series of images.

    Args:
        folder: where its files lie.
        uid: Series Instance UID.
        description: Series Description, "" without one.
        patient: Patient ID.
        files: in the order of the slices as GDCM gives it.
    """

    folder: Path
    uid: str
    description: str
    patient: str
    files: tuple[Path, ...]

    def text(self) -> str:
        """How messages name it."""
        return f"{self.folder.name}: {self.description}" if self.description else self.folder.name


def _itk() -> ModuleType:
    import itk  # loading it takes seconds that only DICOM is worth

    itk.ProcessObject.SetGlobalWarningDisplay(False)  # lines of its own, of files that get an error here
    return itk


def dicom_files(listing: Listing) -> list[Path]:
    """The DICOM files of a folder, told by what they begin with."""
    return [path for path in listing.others if _may_be_dicom(path) and _has_magic(path)]


def _may_be_dicom(path: Path) -> bool:
    return path.name.upper() != "DICOMDIR" and (path.suffix.lower() in _SUFFIXES or path.suffix[1:].isdigit())


def _has_magic(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _header(path: Path) -> Any:
    """ITK's reader of one file after it has read everything but the pixels."""
    image_io = _itk().GDCMImageIO.New()
    image_io.SetFileName(str(path))
    try:
        image_io.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(path, "a damaged DICOM file", "a readable DICOM slice") from error
    return image_io


def _tag(image_io: Any, tag: str) -> str:
    dictionary = image_io.GetMetaDataDictionary()
    return str(dictionary[tag]).strip("\0 ") if dictionary.HasKey(tag) else ""


def list_series(folder: Path, files: Sequence[Path]) -> list[Series]:
    """The series that a folder holds.

    Args:
        folder: looked at without what lies below it.
        files: its DICOM files; one that is in no series is damaged.

    Raises:
        InputError: for a file that cannot be read.
    """
    names = _itk().GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(False)
    names.SetRecursive(False)
    names.SetDirectory(str(folder))
    found = []
    read: set[str] = set()
    for uid in names.GetSeriesUIDs():
        paths = tuple(folder / Path(name).name for name in names.GetFileNames(uid))
        header = _header(paths[0])
        description = _tag(header, "0008|103e")
        found.append(Series(folder, _tag(header, "0020|000e"), description, _tag(header, "0010|0020"), paths))
        read.update(path.name for path in paths)
    lost = [path for path in files if path.name not in read]
    if lost:
        raise InputError(lost[0], "a damaged DICOM file", "a readable DICOM slice")
    return found


def sequence_of_series(folder_name: str, description: str) -> str | None:
    """The canonical sequence of a series.

    Args:
        folder_name: of the folder that holds it alone, "" where it shares one.
        description: its Series Description.

    Returns:
        None where neither tells exactly one, or they contradict each other.
    """
    told = {name for text in (folder_name, description) if (name := _sequence_of_text(text)) is not None}
    return told.pop() if len(told) == 1 else None


def _sequence_of_text(text: str) -> str | None:
    if _OTHER.search(text):
        return None
    words = re.sub(r"[_\-]", " ", text)  # a word's end for \b
    names = sequences_in(text)
    if names == {"t1"} and _CONTRAST.search(words):
        plain = _NO_CONTRAST.search(words) is not None
        if plain and re.search(r"\bpost", words, re.IGNORECASE):
            return None
        return "t1" if plain else "t1ce"
    return names.pop() if len(names) == 1 else None


def find_studies(
    folder: Path, own: Sequence[Path], below: Sequence[tuple[Path, Sequence[Path]]], rules: StudyRules
) -> tuple[list[Study], list[InputError]]:
    """The studies that a folder's series make.

    Series that share a folder are one study; so are folders of one series each beside each other, unless they are of
    different patients: then each is a study, but for folders named after sequences, which are refused.

    Args:
        folder: given a study's name where the series lie in folders below it.
        own: DICOM files in the folder itself.
        below: folders in it with their DICOM files.
        rules: what makes series a study.

    Returns:
        Studies, and the errors of those that cannot be used.
    """
    studies: list[Study] = []
    errors: list[InputError] = []
    damaged: list[tuple[Path, InputError]] = []
    alone: list[Series] = []
    groups: list[tuple[Path, list[Series]]] = []
    for place, files in ([(folder, own)] if own else []) + list(below):
        try:
            series = list_series(place, files)
        except InputError as error:
            damaged.append((place, error))
            continue
        if place != folder and len(series) > 1 and _sequence_of_text(place.name):
            listed = "; ".join(one.description or one.uid for one in series)
            found = f"{len(series)} series in the folder of one sequence ({listed})"
            damaged.append((place, InputError(place, found, "one series in it")))
        elif len(series) == 1 and place != folder:
            alone += series
        else:
            groups.append((place, series))
    by_patient: dict[str, list[Series]] = defaultdict(list)
    for one in alone:
        by_patient[one.patient].append(one)
    named = bool(alone) and all(_sequence_of_text(one.folder.name) for one in alone)
    if named or (len(by_patient) == 1 and len(alone) > 1):
        # Parts of one study. A damaged series beside them is this patient's, and another patient's is not: going on
        # without it, or with each alone, would pass the others off as never taken.
        errors += [PatientError.of(error, folder.name) for _, error in damaged]
        if len(by_patient) > 1:
            found = f"series of {len(by_patient)} patients ({', '.join(one.folder.name for one in alone)})"
            errors.append(PatientError(folder, found, "one patient's, by the Patient ID", folder.name))
        elif not damaged:
            groups.append((folder, alone))
    else:
        errors += [PatientError.of(error, place.name) for place, error in damaged]
        groups += [(one.folder, [one]) for one in alone]
    for place, series in groups:
        try:
            studies.append(_study(place, series, rules))
        except InputError as error:
            errors.append(PatientError.of(error, place.name))
    return studies, errors


def _study(place: Path, series: Sequence[Series], rules: StudyRules) -> Study:
    shared = len({one.folder for one in series}) < len(series)
    by_sequence: dict[str, Series] = {}
    unknown: list[Series] = []
    for one in series:
        sequence = sequence_of_series("" if shared else one.folder.name, one.description)
        if sequence is None:
            unknown.append(one)
        elif sequence in by_sequence:
            found = f"a second {sequence} series ({one.text()}; also {by_sequence[sequence].text()})"
            raise InputError(one.files[0] if shared else one.folder, found, "one a sequence")
        else:
            by_sequence[sequence] = one
    listed = "; ".join(one.text() for one in unknown if not _OTHER.search(one.text()))
    missing = [name for name in CANONICAL if name not in by_sequence]
    if not by_sequence:
        everything = "; ".join(one.text() for one in series)
        raise InputError(place, f"no series with a known sequence ({everything})", _SERIES_NAMES)
    if missing and listed:
        found = f"no {' and no '.join(missing)}, but series of unknown sequences ({listed})"
        raise InputError(place, found, _SERIES_NAMES)
    for one in unknown:
        print_note(f"{one.folder}: series {one.description or one.uid!r} is none of the sequences, left alone")
    sequences = tuple(name for name in CANONICAL if name in by_sequence)
    check_required(sequences, place, rules.required)
    images = tuple(by_sequence[name].files[0] for name in sequences)
    patient = place.name or place.absolute().name
    return Study(patient=patient, layout="dicom", folder=place, images=images, sequences=sequences)


def files_below(folders: Iterable[Path]) -> list[tuple[Path, list[Path]]]:
    """The folders that hold DICOM files themselves, with those files."""
    found = []
    for folder in folders:
        try:
            files = dicom_files(list_folder(folder))
        except InputError:
            continue  # the walk over folders meets it again and says so
        if files:
            found.append((folder, files))
    return found


def read_series(first: Path, scanned: dict[Path, list[Series]] | None = None) -> Volume:
    """Read the series that a file belongs to.

    Args:
        first: any of its files.
        scanned: the series of folders that were looked at; what is looked at now is added. Series that share a folder
            of thousands of files are read with one look at it.

    Returns:
        float32 voxels as ITK orders them, columns, rows, slices, with the affine to right-anterior-superior mm.

    Raises:
        InputError: for a file that is missing or damaged, slices that are doubled or not evenly spaced, or of different
            sizes.
    """
    if not first.is_file():
        raise InputError(first, "no such file", "a readable DICOM slice")
    scanned = {} if scanned is None else scanned
    if first.parent not in scanned:
        scanned[first.parent] = list_series(first.parent, dicom_files(list_folder(first.parent)))
    files = next((one.files for one in scanned[first.parent] if first in one.files), (first,))
    headers = [_header(path) for path in files]
    if headers[0].GetNumberOfComponents() != 1:
        raise InputError(first, "a colour image", "a grey one")
    shape = (*(int(headers[0].GetDimensions(axis)) for axis in (0, 1)), len(files))
    if math.prod(shape) > MAX_VOXELS or max(shape) > MAX_SIDE:
        allowed = f"at most {MAX_VOXELS} voxels, {MAX_SIDE} along an axis"
        raise InputError(first.parent, f"a series of {shape_text(shape)}", allowed)
    affine, order = _placement(first.parent, files, headers)
    if not is_invertible(affine):
        raise InputError(first.parent, "slices without a place in space", "positions, directions and spacing")
    return Volume(first.parent, _pixels([files[i] for i in order]), affine, oriented=True, coded=True)


def _placement(folder: Path, files: Sequence[Path], headers: Sequence[Any]) -> tuple[np.ndarray, list[int]]:
    """Affine of a series, and its slices by position."""
    first = headers[0]
    sizes = {tuple(int(header.GetDimensions(axis)) for axis in (0, 1)) for header in headers}
    if len(sizes) > 1:
        listed = " and ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise InputError(folder, f"slices of {listed}", "one size in a series")
    along = np.array([list(first.GetDirection(axis)) for axis in (0, 1, 2)])
    spacing = np.array([first.GetSpacing(axis) for axis in (0, 1, 2)])
    places = np.array([[header.GetOrigin(axis) for axis in (0, 1, 2)] for header in headers])
    normal = np.cross(along[0], along[1])
    heights = places @ normal
    order = [int(i) for i in np.argsort(heights, kind="stable")]
    step = along[2] * spacing[2]
    if len(files) > 1:
        _check_steps(folder, [files[i] for i in order], heights[order])
        step = (places[order[-1]] - places[order[0]]) / (len(files) - 1)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = along[0] * spacing[0], along[1] * spacing[1], step
    lps[:3, 3] = places[order[0]]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, order


def _check_steps(folder: Path, files: Sequence[Path], heights: np.ndarray) -> None:
    steps = np.diff(heights)
    usual = float(np.median(steps))
    for i, step in enumerate(steps):
        pair = f"{files[i].name} and {files[i + 1].name}"
        if step < 0.01:
            raise InputError(folder, f"two slices at one place ({pair})", "each slice of a series once")
        if abs(step - usual) > _STEP_TOLERANCE * usual:
            found = f"a gap of {step:g} mm between {pair} where slices are {usual:g} mm apart"
            raise InputError(folder, found, "all slices of a series, evenly spaced")


def _pixels(files: Sequence[Path]) -> np.ndarray:
    itk = _itk()
    parts = []
    for path in files:
        try:
            part = itk.array_from_image(itk.imread(str(path)))
        except RuntimeError as error:
            raise InputError(path, "a damaged DICOM file", "a readable DICOM slice") from error
        if part.ndim > 3:
            raise InputError(path, "a colour image", "a grey one")
        parts.append(part.reshape(-1, *part.shape[-2:]))
    data = np.concatenate(parts).astype(np.float32, copy=False)
    bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    if bad:
        raise InputError(files[0].parent, f"NaN or infinite values in {bad} voxels", "finite intensities")
    return data.transpose(2, 1, 0)
