"""The sequences of one study on one grid: the axes of the body, voxels of one size, channels by name.

Every sequence is interpolated at most once, from its own grid to the working one, and not at all where it already lies
there. With the channels goes what it takes to get back to the grid of the study's reference image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from medseg_ext.errors import InputError, blaming
from medseg_ext.layouts import dicom
from medseg_ext.layouts.air import air_value, content_box, is_skull_stripped, without_fill
from medseg_ext.layouts.channels import print_note_once
from medseg_ext.layouts.grid import (
    Grid,
    check_field_of_view,
    check_working_grid,
    coverage,
    head_to_grid,
    is_working,
    lengths_text,
    to_grid,
    working_grid,
)
from medseg_ext.layouts.labels import AUTO, read_regions
from medseg_ext.layouts.nifti import is_stack
from medseg_ext.layouts.orientation import (
    canonical_affine,
    carries_orientation,
    inverse,
    reorient,
    to_canonical_transform,
    voxel_size,
)
from medseg_ext.layouts.sequences import canonical_channels
from medseg_ext.layouts.study import BRATS_CHANNELS, PatientError, Study
from medseg_ext.layouts.volumes import Volume, read_volume, shape_text

#: The sequence whose grid the results come back to is the first of these that a study has, unless its ``reference``
#: names another. BraTS registers to T1ce.
REFERENCE_ORDER = ("t1ce", "flair", "t1", "t2")
#: A volume that covers less of the reference than this lies elsewhere.
_LEAST_COVERAGE = 0.1
#: A label map that covers less than this leaves voxels without a truth, which would be scored as background.
_LEAST_LABELLED = 0.99
_ALLOWED_STUDY = "NIfTI files or DICOM series, which hold their place in space"


@dataclass(frozen=True)
class NativeSpace:
    """The grid of a study's reference image as it is stored.

    Args:
        path: the image.
        shape: of the stored axes.
        affine: 4x4 from stored voxels to right-anterior-superior mm.
        to_canonical: flips and swaps, as nibabel writes them, from the stored axes to the canonical ones.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    to_canonical: np.ndarray

    @classmethod
    def of(cls, path: Path, shape: Sequence[int], affine: np.ndarray) -> NativeSpace:
        """The space of an array of the given shape and affine."""
        x, y, z = shape[:3]
        return cls(path, (x, y, z), affine, to_canonical_transform(affine))

    @property
    def grid(self) -> Grid:
        """The same voxels in the canonical orientation."""
        rows, columns, slices = (self.shape[int(axis)] for axis in np.argsort(self.to_canonical[:, 0]))
        return Grid((rows, columns, slices), canonical_affine(self.affine, self.to_canonical, self.shape))

    def canonical(self, stored: np.ndarray) -> np.ndarray:
        """A volume in the axes of the file in the canonical orientation."""
        return reorient(stored, self.to_canonical)

    def stored(self, canonical: np.ndarray) -> np.ndarray:
        """A canonical volume on `grid` with the axes of the file."""
        return reorient(canonical, inverse(self.to_canonical))


@dataclass
class AlignedStudy:
    """A study's sequences on the working grid.

    Args:
        study: the files.
        image: float32 (C, H, W, D), intensities as stored, 0 throughout the channel of a missing sequence.
        present: bool (C,), whether the study has the channel's sequence.
        grid: where the voxels lie.
        native: the space of the reference image.
        regions: uint8 (3, H, W, D), tumour core, whole tumour, enhancing tumour; None without labels.
        convention: by which the labels were read.
        air: value of the air in each channel, 0 for missing ones.
        skull_stripped: whether only the brain is left.
    """

    study: Study
    image: np.ndarray
    present: np.ndarray
    grid: Grid
    native: NativeSpace
    regions: np.ndarray | None
    convention: str | None
    air: tuple[float, ...]
    skull_stripped: bool


def load_aligned(
    study: Study,
    *,
    channel_order: Iterable[str] = BRATS_CHANNELS,
    stack_order: Iterable[str] = BRATS_CHANNELS,
    labels: bool = False,
    convention: str = AUTO,
    spacing: float = 1.0,
    unplaced: str = "RAS",
) -> AlignedStudy:
    """Read a study's sequences onto one grid.

    Args:
        study: with any of the sequences.
        channel_order: channels to return.
        stack_order: what a 4-D file holds, in order, where nothing beside it says so.
        labels: whether to read the label map.
        convention: of the label map, or ``auto`` (see `labels`).
        spacing: edge of the working voxels in mm.
        unplaced: orientation, as nibabel's axis codes, of files without an affine or with one that only scales. ``RAS``
            is what the NIfTI standard says of the latter; arrays of BraTS saved without their affine lie ``LPS``.

    Raises:
        PatientError: for any file that is not what its place asks for.
    """
    wanted = canonical_channels(channel_order)
    try:
        with blaming(study.place, "a study that can be read"):
            return _load(study, wanted, canonical_channels(stack_order), labels, convention, spacing, unplaced)
    except InputError as error:
        raise PatientError.of(error, study.patient) from error


def _load(
    study: Study,
    wanted: tuple[str, ...],
    stack_order: tuple[str, ...],
    labels: bool,
    convention: str,
    spacing: float,
    unplaced: str,
) -> AlignedStudy:
    if study.layout in {"kaggle", "slices"}:
        raise InputError(study.folder, "pictures without a voxel size", _ALLOWED_STUDY)
    sequences = study.sequences or stack_order
    files = _read(study, sequences, wanted, labels)
    mask = files.pop("label map", None)
    for volume in files.values():
        volume.data = without_fill(volume.data)
    reference = next(files[name] for name in (study.reference, *REFERENCE_ORDER) if name in files)
    for volume in (*files.values(), *([mask] if mask else [])):
        _place(volume, reference, unplaced)
    native = NativeSpace.of(reference.path, reference.data.shape, reference.affine)
    grid = _working_grid(reference, native, spacing)
    check_working_grid(grid, native.grid, reference.path)
    if not grid.same_as(native.grid):
        size = lengths_text(voxel_size(native.grid.affine))
        print_note_once(f"{reference.path}: voxels of {size} mm or oblique axes, worked on at {spacing:g} mm")

    image = np.zeros((len(wanted), *grid.shape), np.float32)
    present = np.array([name in files for name in wanted])
    air = [0.0] * len(wanted)
    moved = []
    for i, name in enumerate(wanted):
        if name not in files:
            continue
        volume = files.pop(name)
        _check_content(volume.data, name, volume.path, is_stack(study))
        own = NativeSpace.of(volume.path, volume.data.shape, volume.affine)
        air[i] = air_value(own.canonical(volume.data))
        image[i], elsewhere = _on_grid(volume, own, grid, native, air[i])
        moved += [name] if elsewhere else []
    if moved:
        print_note_once(f"{study.folder}: {', '.join(moved)} on another grid than {reference.path.name}, resampled")
    if not present.all():
        missing = [name for name in wanted if name not in sequences]
        print_note_once(f"{study.folder}: no {' and no '.join(missing)}; the result may be worse")
    first = int(np.flatnonzero(present)[0])
    stripped = is_skull_stripped(image[first], voxel_size(grid.affine), air[first])
    if not stripped:
        print_note_once(f"{study.folder}: not skull-stripped, as the brains of the BraTS sets are")
    regions, read_as = _regions(study, mask, grid, native, convention)
    return AlignedStudy(study, image, present, grid, native, regions, read_as, tuple(air), stripped)


def _read(study: Study, sequences: tuple[str, ...], wanted: tuple[str, ...], labels: bool) -> dict[str, Volume]:
    """The volumes of the wanted sequences by name, and the label map under its own."""
    names = [name for name in sequences if name in wanted]
    if not names:
        raise InputError(study.folder, f"none of {', '.join(wanted)} (only {', '.join(sequences)})", "at least one")
    if labels and not study.masks:
        raise InputError(study.images[0], "no label map", "one beside the images")
    tasks = {"label map": study.masks[0]} if labels else {}
    if is_stack(study):
        stack = read_volume(study.images[0], sequences)
        volumes = {
            name: Volume(stack.path, stack.data[..., i], stack.affine, stack.oriented, stack.coded)
            for i, name in enumerate(sequences)
            if name in wanted
        }
    else:
        if len(study.images) != len(sequences):
            listed = f"{len(sequences)} ({', '.join(sequences)})"
            raise InputError(study.images[0], f"{len(study.images)} files of channels", listed)
        volumes = {}
        tasks |= {name: study.images[sequences.index(name)] for name in names}
    read = partial(dicom.read_series, scanned={}) if study.layout == "dicom" else read_volume
    # Unpacking leaves the interpreter free, so two files take little longer than one; ITK is not meant for threads.
    with ThreadPoolExecutor(max_workers=1 if study.layout == "dicom" else 2) as pool:
        futures = {
            name: pool.submit(read_volume if name == "label map" else read, path) for name, path in tasks.items()
        }
        return volumes | {name: future.result() for name, future in futures.items()}


def _place(volume: Volume, reference: Volume, unplaced: str) -> None:
    """Give a volume the affine that it is to be read by."""
    if volume.coded != reference.coded:
        if volume.data.shape != reference.data.shape:
            found = f"{shape_text(volume.data.shape)} voxels and no affine in one of the files"
            raise InputError(volume.path, found, f"the grid of {reference.path.name}, or an affine in both")
        print_note_once(f"{volume.path}: only one of it and {reference.path.name} has an affine, paired as stored")
        volume.affine, volume.coded = reference.affine, reference.coded
    if volume.coded and carries_orientation(volume.affine):
        return
    print_note_once(f"{volume.path}: the affine does not say how the head lies, taken as {unplaced}")
    volume.affine = _made_affine(voxel_size(volume.affine), volume.data.shape, unplaced)


def _made_affine(spacing: Sequence[float], shape: tuple[int, ...], axcodes: str) -> np.ndarray:
    """The affine of an array of the given orientation whose leftmost, hindmost, lowest voxel lies at 0."""
    transform = ornt_transform(axcodes2ornt(tuple(axcodes)), io_orientation(np.eye(4)))
    affine = np.linalg.inv(inv_ornt_aff(transform, shape[:3]))
    sizes = np.ones(3)
    sizes[transform[:, 0].astype(int)] = spacing
    return np.diag([*sizes, 1.0]) @ affine


def _working_grid(reference: Volume, native: NativeSpace, spacing: float) -> Grid:
    """The reference's own grid, or one around what it shows: the box of an oblique field of view is mostly air."""
    if is_working(native.grid.affine, spacing):
        return native.grid
    check_field_of_view(native.grid, reference.path)
    volume = native.canonical(reference.data)
    air = air_value(volume)
    coarse = working_grid(native.grid.crop(content_box(volume, air, margin=2)), 4 * spacing)
    box = content_box(to_grid(volume, native.grid, coarse, air), air, margin=2)
    return working_grid(coarse.crop(box), spacing)


def _check_content(data: np.ndarray, name: str, path: Path, in_stack: bool) -> None:
    """Refuse a volume that shows nothing.

    Raises:
        InputError: for a volume that is the same everywhere.
    """
    low, high = float(data.min()), float(data.max())
    if low == high:
        kind = "an all-zero volume" if low == 0 else f"a constant volume ({low:g} everywhere)"
        found = f"{kind} as its {name}" if in_stack else kind
        raise InputError(path, found, "a sequence that shows a head, or none")


def _on_grid(volume: Volume, own: NativeSpace, grid: Grid, native: NativeSpace, fill: float) -> tuple[np.ndarray, bool]:
    """A volume on the working grid, and whether its own is neither that nor the reference's."""
    elsewhere = not own.grid.same_as(grid) and not own.grid.same_as(native.grid)
    if elsewhere:
        share = coverage(own.grid, native.grid)
        if share < _LEAST_COVERAGE:
            found = f"a volume elsewhere in space (it covers {share:.0%} of {native.path.name})"
            raise InputError(volume.path, found, f"one that overlaps {native.path.name}")
    return head_to_grid(own.canonical(volume.data), own.grid, grid, fill), elsewhere


def _regions(
    study: Study, mask: Volume | None, grid: Grid, native: NativeSpace, convention: str
) -> tuple[np.ndarray | None, str | None]:
    if mask is None:
        return None, None
    labels, read_as = read_regions(mask.data, mask.path, convention, study.conventions)
    own = NativeSpace.of(mask.path, mask.data.shape, mask.affine)
    canonical = [own.canonical(region) for region in labels]
    if own.grid.same_as(grid):
        return np.stack(canonical), read_as
    if not own.grid.same_as(native.grid):
        share = coverage(own.grid, native.grid)
        if share < _LEAST_LABELLED:
            found = f"a label map on another grid, of {share:.0%} of {native.path.name}"
            raise InputError(mask.path, found, f"the grid of {native.path.name}, or one that covers it")
        print_note_once(f"{mask.path}: on another grid than {native.path.name}, resampled")
    moved = [to_grid(region, own.grid, grid) >= 0.5 for region in canonical]
    return np.stack(moved).astype(np.uint8), read_as
