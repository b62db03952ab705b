"""The grid a 3-D network works on: axes along the body's, voxels of one size; to it and back."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg_ext.errors import InputError
from medseg_ext.layouts.air import LEAST_SHARE
from medseg_ext.layouts.orientation import largest_shift, resample, voxel_size

#: A grid this near to the wanted one is taken as it is, so that its voxels are never interpolated.
SIZE_TOLERANCE, ANGLE_TOLERANCE = 0.01, 0.5
#: Grids whose corners are nearer than this share of a voxel are one.
SAME_GRID = 0.1
#: Field of view in mm that a head fits into and a mistaken unit does not.
LEAST_EXTENT, MOST_EXTENT = 10.0, 1000.0
#: Voxels of a grid that are worked on: 512 along each axis. Four sequences of it take 2 GiB.
MOST_VOXELS = 2**27
#: World directions of rows, columns and slices in the canonical orientation P, L, S.
DIRECTIONS = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).T


@dataclass(frozen=True)
class Grid:
    """Where voxels lie.

    Args:
        shape: rows, columns, slices.
        affine: 4x4 from (row, column, slice) to right-anterior-superior mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def same_as(self, other: Grid) -> bool:
        """Whether two grids are one but for rounding."""
        return self.shape == other.shape and largest_shift(self.affine, other.affine, self.shape) < SAME_GRID

    def crop(self, box: tuple[slice, ...]) -> Grid:
        """The part of the grid that a box of voxels makes."""
        starts, stops = [part.start for part in box], [part.stop for part in box]
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ starts
        rows, columns, slices = (stop - start for start, stop in zip(starts, stops, strict=True))
        return Grid((rows, columns, slices), affine)


def is_working(affine: np.ndarray, spacing: float) -> bool:
    """Whether a canonical affine has axes along the body's and cubes of the size wanted, within the tolerances."""
    size = np.array(voxel_size(affine))
    directions = affine[:3, :3] / size
    angles = np.degrees(np.arccos(np.clip((directions * DIRECTIONS).sum(0), -1, 1)))
    return bool((np.abs(size / spacing - 1) <= SIZE_TOLERANCE).all() and (angles <= ANGLE_TOLERANCE).all())


def lengths_text(lengths: Iterable[float]) -> str:
    """Lengths along the axes the way people write them."""
    return " x ".join(f"{length:.3g}" for length in lengths)


def check_field_of_view(grid: Grid, path: str | os.PathLike[str]) -> None:
    """Refuse a grid that is smaller or larger than any of a head, as mistaken units make it.

    Raises:
        InputError: naming the field of view.
    """
    extent = np.array(voxel_size(grid.affine)) * grid.shape
    if extent.min() < LEAST_EXTENT or extent.max() > MOST_EXTENT:
        found = f"a field of view of {lengths_text(extent)} mm"
        raise InputError(path, found, f"{LEAST_EXTENT:g} to {MOST_EXTENT:g} mm along each axis")


def check_working_grid(grid: Grid, native: Grid, path: str | os.PathLike[str]) -> None:
    """Refuse a grid to work on that is too large, as a mistaken size of voxels makes it.

    Raises:
        InputError: naming its shape and the size of the file's voxels.
    """
    if math.prod(grid.shape) > MOST_VOXELS:
        worked_on = f"{' x '.join(map(str, grid.shape))} of {voxel_size(grid.affine)[0]:g} mm"
        found = f"voxels of {lengths_text(voxel_size(native.affine))} mm, to be worked on as {worked_on}"
        raise InputError(path, found, f"at most {MOST_VOXELS} of these")


def working_grid(native: Grid, spacing: float = 1.0) -> Grid:
    """The grid to work on for a volume in the canonical orientation.

    Args:
        native: the volume's own grid.
        spacing: edge of the working voxels in mm.

    Returns:
        The native grid itself where it will do; otherwise the smallest one along the body's axes that holds the volume.
    """
    if is_working(native.affine, spacing):
        return native
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in native.shape], indexing="ij")).reshape(3, -1)
    points = native.affine[:3, :3] @ corners + native.affine[:3, 3:]
    along = DIRECTIONS.T @ points
    low, high = along.min(1), along.max(1)
    counts = np.maximum(np.ceil((high - low) / spacing - 0.01), 1)  # rounding in an affine is no further voxel
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS * spacing
    affine[:3, 3] = DIRECTIONS @ ((low + high) / 2 - (counts - 1) / 2 * spacing)
    rows, columns, slices = (int(count) for count in counts)
    return Grid((rows, columns, slices), affine)


def coverage(grid: Grid, target: Grid) -> float:
    """Share of the target's field of view that lies in the grid's, by points spread evenly over the target."""
    axes = [np.linspace(-0.5, n - 0.5, 33)[:-1] + n / 64 for n in target.shape]
    points = np.array(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    to_grid = np.linalg.inv(grid.affine) @ target.affine
    places = to_grid[:3, :3] @ points + to_grid[:3, 3:]
    limits = np.array(grid.shape)[:, None] - 0.5
    return float(((places >= -0.5) & (places <= limits)).all(0).mean())


def to_grid(data: np.ndarray, grid: Grid, target: Grid, fill: float = 0.0, smooth: bool = True) -> np.ndarray:
    """Bring a volume to another grid by linear interpolation.

    Args:
        data: shape `grid.shape`.
        grid: where it lies.
        target: where it is wanted.
        fill: what stands where the volume does not reach.
        smooth: blur beforehand along axes on which the target's voxels are larger, so that what lies between its
            samples counts too.

    Returns:
        float32 of shape `target.shape`; the volume itself where the grids are one.
    """
    if grid.same_as(target):
        return data
    data = np.asarray(data, np.float32)
    if smooth:
        # Size of a target voxel in voxels of the volume, along the volume's axes.
        steps = np.abs(np.linalg.inv(grid.affine)[:3, :3] @ target.affine[:3, :3]).max(1)
        sigmas = np.where(steps > 1.2, (steps - 1) / 2, 0.0)
        if sigmas.any():
            data = gaussian_filter(data, sigmas, mode="nearest", truncate=3.0)
    return resample(data, grid.affine, target.shape, target.affine, fill)


def head_to_grid(data: np.ndarray, grid: Grid, target: Grid, air: float) -> np.ndarray:
    """Bring an image to another grid without mixing the rim of a head with the constant that stands around it.

    Interpolated as any other volume, a skull-stripped brain would get a rim of values between its own and those of the
    air, which counts as brain when intensities are normalised: on a phantom it raised the standard deviation by a
    quarter. So voxels are weighted by how much of them is head, and half a voxel of head makes one.

    Args:
        data: shape `grid.shape`.
        grid: where it lies.
        target: where it is wanted.
        air: value of the air, and of what the volume does not reach. Where hardly a voxel has it there is no such
            constant, and the result is that of :func:`to_grid`.

    Returns:
        float32 of shape `target.shape`; the volume itself where the grids are one.
    """
    if grid.same_as(target):
        return data
    head = data != air
    if head.mean() > 1 - LEAST_SHARE:
        return to_grid(data, grid, target, air)
    share = to_grid(head, grid, target)
    values = to_grid(np.where(head, np.asarray(data, np.float32) - np.float32(air), 0), grid, target)
    inside = share >= 0.5
    return np.where(inside, values / np.where(inside, share, 1) + np.float32(air), np.float32(air))
