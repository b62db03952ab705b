"""What a head MRI says of what is not brain: the value of its air, and whether skull and scalp are still on."""

from __future__ import annotations

import math

import numpy as np

#: Largest axial section in cm2 of what is not air: that of a brain stays below it, that of a head lies above.
_LARGEST_BRAIN_SECTION = 225.0
#: A value that fewer voxels than this share have is not the constant that a mask left behind.
LEAST_SHARE = 0.05
#: Values nearer to 0 than this share of what is bright are air.
_NEAR_AIR = 0.1
#: A value that fewer voxels than this share have is not a fill; noise has a lowest value too.
_LEAST_FILL = 0.002
#: Share of values between fill and air that interpolation may leave.
_MOST_BETWEEN = 0.02


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
    if counts[commonest] >= LEAST_SHARE * values.size and distinct[commonest] <= values.mean():
        return float(distinct[commonest])
    return float(np.percentile(values, 1))


def without_fill(volume: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Raise to the air what a program wrote where nothing was measured: -1024 or -32768 around air of 0.

    Magnitudes of MRI are not negative. So a constant below 0 is such a fill where nearly all of the rest is not
    negative and has its air about 0; what interpolation left between fill and air goes with it. Shifted or standardised
    intensities, whose air is itself below 0, stay as they are.

    Args:
        volume: any shape.
        axis: of the channels, each of which is looked at alone; None for a single volume.

    Returns:
        The volume itself where there is no fill.
    """
    if axis is not None:
        stored = list(np.moveaxis(volume, axis, 0))
        raised = [without_fill(channel) for channel in stored]
        same = all(a is b for a, b in zip(stored, raised, strict=True))
        return volume if same else np.stack(raised, axis)
    lowest = volume.min(initial=0)
    if lowest >= 0:
        return volume
    values = _sample(volume).astype(np.float64)
    rest = values[values > 0.99 * float(lowest)]
    if not rest.size or rest.size > (1 - _LEAST_FILL) * values.size:
        return volume
    bright = rest[rest > rest.mean()]
    near = _NEAR_AIR * float(bright.mean()) if bright.size else 0.0
    below = rest < -near
    if lowest >= -near or below.mean() > _MOST_BETWEEN or (np.abs(rest) <= near).mean() < LEAST_SHARE:
        return volume
    return np.maximum(volume, volume.dtype.type(min(rest[~below].min(), 0.0)))


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
