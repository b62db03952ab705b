"""One NIfTI file: opened, checked, and brought to the canonical orientation."""

from __future__ import annotations

import gzip
import io
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel import imageglobals
from nibabel.arrayproxy import ArrayProxy

from medseg_ext.errors import InputError, as_input_error
from medseg_ext.files import check_regular
from medseg_ext.layouts.orientation import (
    canonical_affine,
    carries_orientation,
    reorient,
    to_canonical_transform,
)

# nibabel prints what it mends in a header, without the file's name; what it cannot mend it raises as well.
imageglobals.logger.setLevel(logging.CRITICAL)

ALLOWED_VOLUME = "a readable NIfTI file"
#: A header that promises more voxels, or more along one axis, is broken or hostile: four sequences of 512^3 fit in.
MAX_VOXELS, MAX_SIDE = 2**29, 4096
#: Bytes that may follow the voxels in a packed file.
_MOST_BEHIND = 2**20
#: Millimetres by NIfTI's code of the unit of space, here metres and micrometres. Any other code, be it that of
#: millimetres, of none or an undefined one, is read as millimetres, which scanners and converters use anyway.
_MILLIMETRES = {1: 1000.0, 3: 0.001}
_UNIT_OF_SPACE = 0b111


@dataclass
class Volume:
    """A NIfTI file's voxels as stored.

    Args:
        path: the file.
        data: float32, shape (X, Y, Z), or (X, Y, Z, C) for a stack.
        affine: 4x4 to the file's world, in mm.
        oriented: whether the affine says how the head lies; one that only scales is not taken to (see `orientation`).
        coded: whether the file has an affine of its own at all.
    """

    path: Path
    data: np.ndarray
    affine: np.ndarray
    oriented: bool
    coded: bool = True

    def transform(self) -> np.ndarray:
        """Flips and swaps to the canonical orientation."""
        return to_canonical_transform(self.affine if self.oriented else None)

    def canonical(self, transform: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Voxels and affine in the canonical orientation, by the file's own transform unless another is given."""
        transform = self.transform() if transform is None else transform
        return reorient(self.data, transform), canonical_affine(self.affine, transform, self.data.shape)


def image_like(reference: nibabel.Nifti1Image, array: np.ndarray) -> nibabel.Nifti1Image:
    """An array as an image with the geometry, codes and units of another, and nothing else of its header.

    Args:
        reference: the other image.
        array: shape (X, Y, Z) or (X, Y, Z, C) in its axes, in the type to be stored.
    """
    header = reference.header.copy()
    header.extensions.clear()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(1, 0)
    header.set_intent("none")
    header["cal_min"], header["cal_max"] = 0, 0
    # With no affine given nibabel leaves the header's own forms and codes as they are.
    image = type(reference)(np.ascontiguousarray(array), None, header)
    image.header["pixdim"][4:] = 0 if array.ndim == 3 else 1
    return image


def open_volume(path: Path) -> nibabel.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Raises:
        InputError: for a file that is missing, damaged or no NIfTI, or whose header cannot be right.
    """
    check_regular(path, ALLOWED_VOLUME)
    try:
        image = nibabel.load(path)
    except FileNotFoundError as error:
        raise InputError(path, "no such file", ALLOWED_VOLUME) from error
    except PermissionError as error:
        raise InputError(path, "an unreadable file (Permission denied)", ALLOWED_VOLUME) from error
    except Exception as error:  # damaged headers make nibabel raise nearly anything
        raise InputError(path, "not a NIfTI file, or a truncated one", ALLOWED_VOLUME) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(path, f"a file of type {type(image).__name__}", ALLOWED_VOLUME)
    shape = image.shape
    if not shape or min(shape) < 1 or max(shape) > MAX_SIDE or math.prod(shape) > MAX_VOXELS:
        allowed = f"1 to {MAX_VOXELS} voxels, at most {MAX_SIDE} along an axis"
        raise InputError(path, f"a volume of {shape_text(shape)}", allowed)
    return image


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape the way people write it."""
    return "x".join(map(str, shape)) or "no size"


def world_affine(image: nibabel.Nifti1Image, path: Path) -> tuple[np.ndarray, bool]:
    """A file's affine in mm, and whether it says how the head lies.

    Raises:
        InputError: for an affine that is not finite or flattens space.
    """
    affine = np.array(image.affine, float)
    if not is_invertible(affine):
        raise InputError(path, "an affine that is not invertible", "an orientation and spacing, or none")
    affine[:3] *= _MILLIMETRES.get(int(image.header["xyzt_units"]) & _UNIT_OF_SPACE, 1.0)
    return affine, is_coded(image) and carries_orientation(affine)


def is_invertible(affine: np.ndarray) -> bool:
    """Whether an affine gives every voxel a place of its own."""
    return bool(np.isfinite(affine).all()) and int(np.linalg.matrix_rank(affine[:3, :3])) == 3


def is_coded(image: nibabel.Nifti1Image) -> bool:
    """Whether a file has an affine: without a code for either form nibabel makes one up that flips and centres."""
    return bool(image.header["sform_code"] or image.header["qform_code"])


def stack_axis(shape: tuple[int, ...], channels: int) -> int | None:
    """Which axis of a file's shape holds the channels, None where none fits.

    Last, (X, Y, Z, C), is the rule; (X, Y, Z, 1, C) is how vector images are stored, and (C, X, Y, Z) is taken where
    the last axis does not fit.
    """
    if len(shape) == 5 and shape[3] == 1 and shape[4] == channels:
        return 4
    if len(shape) != 4:
        return None
    if shape[3] == channels:
        return 3
    return 0 if shape[0] == channels else None


def is_stack_shape(shape: tuple[int, ...]) -> bool:
    """Whether a file holds more than one volume."""
    return math.prod(shape[3:]) > 1


def read_volume(path: Path, channels: tuple[str, ...] | None = None) -> Volume:
    """Read a NIfTI file.

    Args:
        path: the file.
        channels: what a stack holds, in order; None for a single volume.

    Raises:
        InputError: for a damaged file, numbers that are not real and finite, or another number of channels.
    """
    image = open_volume(path)
    affine, oriented = world_affine(image, path)
    shape = image.shape
    if image.get_data_dtype().kind not in "biuf":
        kind = "colour" if image.get_data_dtype().fields else str(image.get_data_dtype())
        raise InputError(path, f"voxels of type {kind}", "integers or real numbers")
    if channels is None:
        if len(shape) < 3 or is_stack_shape(shape):
            raise InputError(path, f"a volume of {shape_text(shape)}", "3-D, as the name says it holds one thing")
        axis = None
    else:
        axis = stack_axis(shape, len(channels))
        if axis is None:
            count = f"{math.prod(shape[3:])} channel{'s' if is_stack_shape(shape) else ''} ({shape_text(shape)})"
            raise InputError(path, count, f"{len(channels)} ({', '.join(channels)}) on the last axis of four")
    try:
        data = np.asarray(_voxels(image, path), dtype=np.float32)
    except PermissionError as error:
        raise InputError(path, "an unreadable file (Permission denied)", ALLOWED_VOLUME) from error
    except MemoryError as error:
        raise as_input_error(error, path, ALLOWED_VOLUME) from error
    except Exception as error:
        raise InputError(path, "a truncated or damaged NIfTI file", ALLOWED_VOLUME) from error
    bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    if bad:
        raise InputError(path, f"NaN or infinite values in {bad} voxels", "finite intensities")
    data = data.reshape(shape[:3]) if axis is None else np.moveaxis(data, axis, -1).reshape(*_space(shape, axis), -1)
    return Volume(path, data, affine, oriented, is_coded(image))


def _voxels(image: nibabel.Nifti1Image, path: Path) -> Any:
    """A file's voxels, to be scaled as they are read; a packed file is read to its end, where its checksum is.

    nibabel stops behind the last voxel: what a bad copy made of them would pass for intensities.

    Raises:
        OSError, EOFError, zlib.error: the file is damaged.
    """
    proxy: Any = image.dataobj
    if path.suffix.lower() != ".gz":
        return proxy
    end = proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize
    with gzip.open(path) as file:
        stored = file.read(end)
        if len(file.read(_MOST_BEHIND)) == _MOST_BEHIND:
            raise OSError(f"more than {_MOST_BEHIND} bytes behind the voxels")
    return ArrayProxy(io.BytesIO(stored), (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter))


def _space(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return shape[1:4] if axis == 0 else shape[:3]
