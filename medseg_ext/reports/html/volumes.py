"""Volumes as a page carries them: 8 bits, cropped to the head, NIfTI, compressed, as text."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medseg_ext.layouts.grid import DIRECTIONS, Grid
from medseg_ext.reports.canvas import stretch

_LEVELS = 255


@dataclass(frozen=True)
class PageVolume:
    """A volume in a page.

    Attributes:
        data: base64 of a compressed NIfTI file.
        low: the intensity shown black. high: white.
        shape: of its voxels.
        coarsened: how many voxels of the study lie along an edge of one of its own.
    """

    data: str
    low: float
    high: float
    shape: tuple[int, int, int]
    coarsened: int = 1


def made_grid(shape: tuple[int, int, int], spacing: tuple[float, ...] | None) -> Grid:
    """A grid for a volume without a place in space: the middle of it lies at 0.

    Args:
        shape: rows to posterior, columns to the left, slices upwards.
        spacing: (row, column, slice) in mm; 1 mm each when None.
    """
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS * (np.ones(3) if spacing is None else np.asarray(spacing, float))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def grey_volume(channel: NDArray[Any], grid: Grid, coarsened: int = 1) -> PageVolume:
    """A sequence in 256 levels from the 1st to the 99.8th percentile of what is given.

    The file's slope and intercept give the intensities back, but for what lies outside of these percentiles and for
    rounding to a level.

    Args:
        channel: (H, W, D), cropped.
        grid: where it lies.
        coarsened: edge in voxels of the blocks that are averaged; 1 keeps each voxel.
    """
    values = np.asarray(channel, np.float32)
    low, high = (float(value) for value in np.percentile(values[::2, ::2], (1, 99.8)))
    if coarsened > 1:
        values, grid = _averaged(values, grid, coarsened)
    # half a level up, for stretching rounds down
    half = (high - low) / _LEVELS / 2
    levels = stretch(values + half, low, high)
    return PageVolume(_encode(levels, grid, (high - low) / _LEVELS or 1.0, low), low, high, grid.shape, coarsened)


def label_volume(labels: NDArray[Any], grid: Grid) -> PageVolume:
    """A label map.

    Args:
        labels: (H, W, D), whole numbers to 255, cropped.
        grid: where it lies.
    """
    return PageVolume(_encode(labels.astype(np.uint8), grid, 1.0, 0.0), 0, float(labels.max(initial=0)), grid.shape)


def _averaged(values: NDArray[np.float32], grid: Grid, edge: int) -> tuple[NDArray[np.float32], Grid]:
    """Means over cubes of voxels; those at the far edges are filled up with the last plane."""
    padded = np.pad(values, [(0, -size % edge) for size in values.shape], mode="edge")
    rows, columns, slices = (size // edge for size in padded.shape)
    means = padded.reshape(rows, edge, columns, edge, slices, edge).mean((1, 3, 5), dtype=np.float32)
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ np.full(3, (edge - 1) / 2)
    affine[:3, :3] *= edge
    return means, Grid((rows, columns, slices), affine)


def _encode(voxels: NDArray[np.uint8], grid: Grid, slope: float, intercept: float) -> str:
    image = nibabel.Nifti1Image(voxels, grid.affine)
    image.set_sform(grid.affine, 2)
    image.set_qform(grid.affine, 2)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, intercept)
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode("ascii")
