"""What a head MRI says of what is not brain: the value of its air, and whether skull and scalp are still on."""

from __future__ import annotations

import math

import numpy as np

#: Largest axial section in cm2 of what is not air: that of a brain stays below it, that of a head lies above.
_LARGEST_BRAIN_SECTION = 225.0
#: A value that fewer voxels than this share have is not the constant that a mask left behind.
_LEAST_SHARE = 0.05


def _sample(volume: np.ndarray, most: int = 200_000) -> np.ndarray:
    step = max(1, round((volume.size / most) ** (1 / 3)))
    # A step along each axis reaches all of a volume whatever its order in memory.
    return volume[tuple(slice(None, None, step) for _ in volume.shape)].ravel()


def air_value(volume: np.ndarray) -> float:
    """The value of air: the commonest one where many voxels share it, as after masking, else the first percentile.

    Args:
        volume: any shape, intensities of any unit; z-scored ones, whose air is the lowest value, too.
    """
    values = _sample(volume)
    distinct, counts = np.unique(values, return_counts=True)
    commonest = int(counts.argmax())
    if counts[commonest] >= _LEAST_SHARE * values.size and distinct[commonest] <= values.mean():
        return float(distinct[commonest])
    return float(np.percentile(values, 1))


def content_box(volume: np.ndarray, air: float, margin: int = 0) -> tuple[slice, ...]:
    """The box of what differs from air, all of the volume where nothing does.

    Args:
        volume: any shape.
        air: see `air_value`.
        margin: voxels added to every side, as far as there are any.
    """
    inside = np.abs(volume - air) > _least_difference(volume, air)
    axes = range(volume.ndim)
    box = []
    for axis in axes:
        filled = np.flatnonzero(inside.any(axis=tuple(other for other in axes if other != axis)))
        if not filled.size:
            return tuple(slice(0, size) for size in volume.shape)
        box.append(slice(max(int(filled[0]) - margin, 0), min(int(filled[-1]) + 1 + margin, volume.shape[axis])))
    return tuple(box)


def _least_difference(volume: np.ndarray, air: float) -> float:
    return 0.02 * (float(np.percentile(_sample(volume), 99)) - air)


def is_skull_stripped(volume: np.ndarray, spacing: tuple[float, float, float], air: float) -> bool:
    """Whether only the brain is left of a head.

    It is where what differs from air nowhere fills an axial section larger than a brain's; noise in the air counts as
    differing, for stripping leaves none.

    Args:
        volume: (H, W, D), axial slices along the last axis.
        spacing: of rows, columns and slices in mm.
        air: see `air_value`.
    """
    least = _least_difference(volume, air)
    if not math.isfinite(least) or least <= 0:
        return False
    step = max(1, math.floor(2.0 / min(spacing)))
    thin = volume[::step, ::step, ::step]
    section = np.count_nonzero(np.abs(thin - air) > least, axis=(0, 1)).max(initial=0)
    return bool(section * step**2 * spacing[0] * spacing[1] / 100 <= _LARGEST_BRAIN_SECTION)
