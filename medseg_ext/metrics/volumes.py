"""What every measure takes: volumes as numpy arrays, checked once, and the box that holds the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

#: This far above the darkest block, as a fraction of the channel's range, is tissue.
_TISSUE_LEVEL = 0.1
#: Noise in the air is averaged out over blocks of this many rows and columns.
_BLOCK = 4
#: A plane of blocks belongs to the head when more than this fraction of it is tissue.
_TISSUE_FRACTION = 0.005


def as_array(volume: Any) -> NDArray[Any]:
    """``volume`` as a numpy array on the CPU; bfloat16, which numpy lacks, becomes float32.

    Args:
        volume: numpy array, torch tensor on any device, or MONAI ``MetaTensor``.
    """
    if isinstance(volume, torch.Tensor):
        tensor = volume.detach().as_subclass(torch.Tensor).cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return np.asarray(volume)


def as_mask(volume: Any, name: str = "mask") -> Mask:
    """``volume`` as a boolean numpy array.

    Args:
        volume: numpy array or torch tensor, boolean or holding only 0 and 1.
        name: how an error calls it.

    Raises:
        ValueError: a value is neither 0 nor 1, as in a probability map that was never thresholded.
    """
    array = as_array(volume)
    if array.dtype == np.bool_:
        return array
    mask: Mask = array == 1
    if not (mask | (array == 0)).all():
        raise ValueError(f"{name}: found values besides 0 and 1 (dtype {array.dtype}), allowed a binary mask")
    return mask


def as_mask_pair(pred: Any, truth: Any) -> tuple[Mask, Mask]:
    """Prediction and truth as boolean arrays of one shape.

    Raises:
        ValueError: their shapes differ, or a value is neither 0 nor 1.
    """
    pred, truth = as_mask(pred, "pred"), as_mask(truth, "truth")
    if pred.shape != truth.shape:
        raise ValueError(f"pred: found shape {pred.shape}, allowed that of truth, {truth.shape}")
    return pred, truth


def head_box(image: Any) -> tuple[slice, ...]:
    """The box around the head, noise in the air left out; the whole volume where nothing stands out.

    The image is averaged over blocks of 4 x 4 pixels.  Tissue is what then lies, in any channel, more than 10 % of the
    channel's range (darkest block to 99.9th percentile) above the darkest block.  A plane of blocks belongs to the box
    when more than 0.5 % of it is tissue.

    Args:
        image: (C, H, W, D) in any unit, not z-scored.

    Returns:
        Three slices, over H, W and D.
    """
    array = as_array(image)
    if array.ndim != 4:
        raise ValueError(f"image: found shape {array.shape}, allowed (channels, rows, columns, slices)")
    rows, columns = array.shape[1:3]
    blocks = _block_means(array)
    tissue = np.zeros(blocks.shape[1:], dtype=bool)
    for channel in blocks:
        low, high = float(channel.min()), float(np.percentile(channel, 99.9))
        if high > low:
            tissue |= channel > low + _TISSUE_LEVEL * (high - low)
    box = bounding_box(tissue, fraction=_TISSUE_FRACTION)
    return (
        slice(box[0].start * _BLOCK, min(box[0].stop * _BLOCK, rows)),
        slice(box[1].start * _BLOCK, min(box[1].stop * _BLOCK, columns)),
        box[2],
    )


def _block_means(image: NDArray[Any]) -> NDArray[np.float32]:
    """Means over blocks of rows and columns; blocks at the far edges are smaller where the shape asks for it."""
    starts = [np.arange(0, size, _BLOCK) for size in image.shape[1:3]]
    sums = image.astype(np.float32, copy=False)
    for axis, start in enumerate(starts, 1):
        sums = np.add.reduceat(sums, start, axis=axis)
    heights, widths = (np.diff(np.append(start, size)) for start, size in zip(starts, image.shape[1:3], strict=True))
    counts = np.outer(heights, widths).astype(np.float32)
    return np.divide(sums, counts[:, :, None], dtype=np.float32)


def bounding_box(mask: Any, margin: int = 0, fraction: float = 0.0) -> tuple[slice, ...]:
    """The smallest box around a mask; the whole array where the mask is empty.

    Args:
        mask: boolean, any number of axes.
        margin: voxels to add on every side, as far as the array reaches.
        fraction: a plane counts only when more than this fraction of it is set.
    """
    array = as_mask(mask)
    box = []
    for axis, size in enumerate(array.shape):
        others = tuple(other for other in range(array.ndim) if other != axis)
        # any() stops at the first hit and keeps to booleans
        planes = np.flatnonzero(array.mean(axis=others) > fraction if fraction else array.any(axis=others))
        if planes.size == 0:
            return tuple(slice(0, full) for full in array.shape)
        box.append(slice(max(int(planes[0]) - margin, 0), min(int(planes[-1]) + 1 + margin, size)))
    return tuple(box)
