"""The grid on which brain-segmentation-pytorch trains and scores, and the Dice on it.

Figures published for that program are taken on cropped and resized slices, so a fair comparison is taken there too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.exposure import rescale_intensity
from skimage.transform import resize

from medseg_ext.metrics.overlap import dice

AIR_FRACTION = 0.1
"""Voxels below this fraction of the volume's maximum count as air."""

PERCENTILES = (10.0, 99.0)
"""The volume's intensities between these percentiles are stretched to 0..1."""


class ReferenceGrid:
    """The crop, pad and resize of the reference recipe for one patient, and its inverse for masks.

    The first and the last slice are dropped, voxels below a tenth of the maximum are set to 0, the box of what remains
    is cut out (in all three directions), padded with zeros to a square in the plane, and resized slice by slice.

    Args:
        image: the patient's image of shape (C, H, W, D), D the slices; any intensity scale whose air is near 0.
        size: rows and columns of the grid, in voxels.

    Raises:
        ValueError: the image is not 4-D, has fewer than three slices, or nothing in it is above 0.

    Source: Buda et al., Computers in Biology and Medicine 109 (2019), and the program published with it.
    """

    def __init__(self, image: NDArray[Any], size: int = 256) -> None:
        array = np.asarray(image)
        if array.ndim != 4 or array.shape[3] < 3:
            raise ValueError(f"image: found shape {array.shape}, allowed (C, H, W, D) with three slices or more")
        self.size = size
        self.native_shape: tuple[int, int, int] = (array.shape[1], array.shape[2], array.shape[3])
        volume = np.moveaxis(array, 3, 0)[1:-1]  # (slices, C, H, W)
        maximum = float(volume.max())
        if not maximum > 0:
            raise ValueError("image: found no voxel above 0 between the first and the last slice, allowed a head")
        volume = np.where(volume < maximum * AIR_FRACTION, 0, volume)
        occupied = (volume != 0).any(axis=1)
        self.box: tuple[slice, slice, slice] = tuple(  # type: ignore[assignment]
            _extent(occupied.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)
        )
        self.cropped_shape: tuple[int, int, int] = occupied[self.box].shape
        self.padding = _square_padding(*self.cropped_shape[1:])
        self.side = max(self.cropped_shape[1:])
        rows, columns = self.box[1:]
        self._cropped = volume[self.box[0], :, rows, columns]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (D', rows, columns) of the grid."""
        return self.cropped_shape[0], self.size, self.size

    def to_grid(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Bring a mask of the native volume onto the grid, by nearest neighbour.

        Args:
            mask: shape (H, W, D); every value other than 0 is foreground.

        Raises:
            ValueError: the mask's shape is not that of the image.
        """
        array = np.asarray(mask)
        if array.shape != self.native_shape:
            raise ValueError(f"mask: found shape {array.shape}, allowed that of the image, {self.native_shape}")
        slices = (np.moveaxis(array, 2, 0)[1:-1] != 0).astype(np.uint8)[self.box]
        return _resize_nearest(np.pad(slices, ((0, 0), *self.padding)), self.size)

    def to_native(self, grid_mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Bring a mask of the grid back into the native volume; outside the box it is 0.

        Args:
            grid_mask: shape (D', size, size); every value other than 0 is foreground.

        Raises:
            ValueError: the mask's shape is not that of the grid.
        """
        array = np.asarray(grid_mask)
        if array.shape != self.shape:
            raise ValueError(f"grid_mask: found shape {array.shape}, allowed that of the grid, {self.shape}")
        square = _resize_nearest((array != 0).astype(np.uint8), self.side)
        (top, _), (left, _) = self.padding
        height, width = self.cropped_shape[1:]
        height_native, width_native, depth = self.native_shape
        inner = np.zeros((depth - 2, height_native, width_native), np.uint8)
        inner[self.box] = square[:, top : top + height, left : left + width]
        return np.moveaxis(np.pad(inner, ((1, 1), (0, 0), (0, 0))), 0, 2)

    def image(self) -> NDArray[np.float32]:
        """The network input (D', C, size, size): resized by quadratic splines, stretched from the 10th to the 99th
        percentile of all channels together to 0..1, then each channel to mean 0 and standard deviation 1.
        """
        squared = np.pad(self._cropped, ((0, 0), (0, 0), *self.padding)).astype(np.float64)
        low, high = squared.min(), squared.max()
        resized = np.empty((*squared.shape[:2], self.size, self.size))
        for plane in np.ndindex(*squared.shape[:2]):
            # One plane at a time: the slice direction keeps its grid, so that a 4-D spline would only cost more.
            resized[plane] = resize(
                squared[plane], resized.shape[2:], order=2, mode="constant", cval=0, anti_aliasing=False, clip=False
            )
        return normalise_volume(np.clip(resized, low, high), channel_axis=1)


def normalise_volume(volume: NDArray[np.float64], channel_axis: int) -> NDArray[np.float32]:
    """Stretch a volume's intensities between its percentiles and z-score each channel, as the reference does.

    Args:
        volume: non-negative intensities, any shape.
        channel_axis: the axis along which mean and standard deviation are taken separately.
    """
    low, high = np.percentile(volume, PERCENTILES)
    stretched = rescale_intensity(volume, in_range=(low, high), out_range=(0.0, 1.0))
    axes = tuple(axis for axis in range(volume.ndim) if axis != channel_axis % volume.ndim)
    deviation = stretched.std(axis=axes, keepdims=True)
    centred = stretched - stretched.mean(axis=axes, keepdims=True)
    return (centred / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def keep_largest_component(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest component of a mask, voxels joined by their faces; of equals the first, and nothing of nothing."""
    labels, count = ndimage.label(np.asarray(mask) != 0)
    if count < 2:
        return np.asarray(labels > 0)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def dice_reference_protocol(pred: NDArray[Any], truth: NDArray[Any], image: NDArray[Any]) -> float:
    """Volume Dice the way brain-segmentation-pytorch takes it.

    Both masks go onto the :class:`ReferenceGrid` of the image (which drops the first and the last slice), and only the
    largest component of the prediction counts.

    Args:
        pred: predicted mask (H, W, D).
        truth: annotated mask (H, W, D).
        image: the image (C, H, W, D), from which the crop is taken.

    Returns:
        Dice in 0..1; 1 where both masks are empty on the grid, 0 where one is.
    """
    grid = ReferenceGrid(image)
    return dice(keep_largest_component(grid.to_grid(pred)), grid.to_grid(truth))


def _extent(occupied: NDArray[np.bool_]) -> slice:
    indices = np.flatnonzero(occupied)
    return slice(int(indices[0]), int(indices[-1]) + 1)


def _square_padding(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = max(0, width - height), max(0, height - width)
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def _resize_nearest(slices: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    shape = (slices.shape[0], size, size)
    resized = resize(slices, shape, order=0, mode="constant", cval=0, anti_aliasing=False, preserve_range=True)
    return resized.astype(np.uint8)
