"""The part of a volume that is worth a network's time: the box of the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Box:
    """A block of voxels in a volume's coordinates, which may stick out of the volume on any side.

    Args:
        start: first voxel of each axis, negative where it sticks out.
        size: voxels of each axis.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]

    def within(self, spatial: Sequence[int]) -> tuple[Slices, Slices]:
        """What of the box lies in a volume of ``spatial`` voxels, as slices of the volume and as slices of the box."""
        volume, own = [], []
        for start, size, limit in zip(self.start, self.size, spatial, strict=True):
            first, last = max(0, start), min(limit, start + size)
            volume.append(slice(first, last))
            own.append(slice(first - start, last - start))
        return tuple(volume), tuple(own)

    def part(self, start: Sequence[int], size: Sequence[int]) -> Box:
        """The box of ``size`` at ``start``, counted from this box's own first voxel."""
        return Box(tuple(a + b for a, b in zip(self.start, start, strict=True)), tuple(size))


def cut(tensor: torch.Tensor, slices: Slices) -> torch.Tensor:
    """The part inside slices of the last axes, as a view."""
    index: Any = (..., *slices)
    return tensor[index]


def air_values(volume: torch.Tensor, air: float | None) -> torch.Tensor:
    """The value of the air in each channel.

    Args:
        volume: (C, *spatial).
        air: the same for all channels, or None for each channel's smallest.

    Returns:
        (C,) of the volume's type.
    """
    return volume.flatten(1).amin(1) if air is None else volume.new_full((len(volume),), air)


def head_mask(volume: torch.Tensor, air: torch.Tensor) -> torch.Tensor:
    """Voxels that hold anything but air in any channel: (C, *spatial) and (C,) to bool (*spatial)."""
    mask = volume[0] != air[0]
    for channel, value in zip(volume[1:], air[1:], strict=True):
        mask |= channel != value
    return mask


def head_bounds(mask: torch.Tensor, share: float = 0.0, margin: int = 0) -> Box | None:
    """The smallest box that holds the head.

    Args:
        mask: bool (*spatial), the head.
        share: a plane belongs to the head when more than this share of its voxels does, so that specks of noise in
            the air do not widen the box.
        margin: voxels of air kept on every side, as far as the volume reaches.

    Returns:
        None where there is no head.
    """
    start, size = [], []
    for axis, length in enumerate(mask.shape):
        others = [other for other in range(mask.ndim) if other != axis]
        filled = mask.any(others) if share <= 0 else mask.sum(others) > share * (mask.numel() // length)
        where = torch.nonzero(filled).flatten()
        if len(where) == 0:
            return None
        first = max(0, int(where[0]) - margin)
        start.append(first)
        size.append(min(length, int(where[-1]) + 1 + margin) - first)
    return Box(tuple(start), tuple(size))


def grown(box: Box, size: Sequence[int], spatial: Sequence[int]) -> Box:
    """The box grown to ``size`` on both sides alike, into the volume as far as there is one, else out of it."""
    start = []
    for first, old, new, limit in zip(box.start, box.size, size, spatial, strict=True):
        if new > limit:
            start.append(-((new - limit) // 2))
        else:
            start.append(min(max(0, first - (new - old) // 2), limit - new))
    return Box(tuple(start), tuple(size))
