"""From stored voxel order to the canonical one and back.

Canonical are rows from anterior to posterior, columns from the patient's right to left, slices from inferior to
superior: axcodes P, L, S, the way a radiologist's axial slice is displayed and the Kaggle TIFFs lie.
"""

from __future__ import annotations

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from scipy.ndimage import affine_transform

AXCODES = ("P", "L", "S")
_CANONICAL = axcodes2ornt(AXCODES)
_AS_STORED = np.array([[0, 1], [1, 1], [2, 1]])


def carries_orientation(affine: np.ndarray) -> bool:
    """Whether an affine says how the head lies.

    A diagonal with positive entries and no translation is what hand-made stacks have (``np.eye(4)``, or only a
    spacing): it says nothing, and such an array is taken as rows, columns, slices. Scanners and converters place the
    origin, so that their affines have a translation.
    """
    linear, shift = affine[:3, :3], affine[:3, 3]
    off_diagonal = linear - np.diag(np.diag(linear))
    return bool(np.any(off_diagonal != 0) or np.any(np.diag(linear) <= 0) or np.any(shift != 0))


def to_canonical_transform(affine: np.ndarray | None) -> np.ndarray:
    """The flips and swaps, as nibabel writes them, that bring stored axes to the canonical ones.

    Args:
        affine: 4x4 to right-anterior-superior millimetres; None for an array to be taken as stored. Oblique axes go
            to the nearest canonical ones.
    """
    return _AS_STORED if affine is None else ornt_transform(io_orientation(affine), _CANONICAL)


def reorient(array: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply flips and swaps to the first three axes; values are never interpolated."""
    return apply_orientation(array, transform)


def inverse(transform: np.ndarray) -> np.ndarray:
    """The flips and swaps that undo `transform`."""
    return ornt_transform(_AS_STORED, transform)


def canonical_affine(affine: np.ndarray, transform: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of the reoriented array.

    Args:
        affine: 4x4 of the stored array.
        transform: from `to_canonical_transform`.
        shape: of the stored array's first three axes.
    """
    return affine @ inv_ornt_aff(transform, shape[:3])


def voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance of neighbouring voxels along each axis, in the affine's unit."""
    rows, columns, slices = np.linalg.norm(affine[:3, :3], axis=0)
    return float(rows), float(columns), float(slices)


def largest_shift(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two affines put the corners of a grid at most, in voxels of the smaller spacing."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1)
    points = np.vstack([corners, np.ones(corners.shape[1])])
    distance = np.linalg.norm(((a - b) @ points)[:3], axis=0).max()
    return float(distance / min(*voxel_size(a), *voxel_size(b)))


def resample(
    data: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target_affine: np.ndarray, fill: float = 0.0
) -> np.ndarray:
    """Bring a volume to another grid by linear interpolation.

    A voxel is taken to reach half its size to every side, so that rounding in an affine does not cost the outermost
    slices.

    Args:
        data: shape (X, Y, Z).
        affine: 4x4 of `data`.
        shape: of the grid to fill.
        target_affine: 4x4 of that grid.
        fill: what stands where the volume does not reach.
    """
    to_source = np.linalg.inv(affine) @ target_affine
    matrix = to_source[:3, :3]
    straight = np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-7
    # SciPy goes axis by axis, several times faster, where it is given the diagonal alone.
    along = np.diag(matrix) if straight else matrix
    moved = affine_transform(data, along, to_source[:3, 3], tuple(shape), order=1, mode="nearest")
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    for axis, size in enumerate(data.shape):
        terms = [axis] if straight else range(3)
        place = to_source[axis, 3] + sum(to_source[axis, i] * grid[i] for i in terms)
        moved[np.broadcast_to((place < -0.5) | (place > size - 0.5), moved.shape)] = fill
    return moved
