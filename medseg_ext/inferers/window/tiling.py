"""Where windows lie: spread evenly over a box, as few and as large as a number of voxels allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_ROUNDING = 1e-9  # what floating point may add to a quotient that is a whole number


@dataclass(frozen=True)
class Tiling:
    """Windows of one size on a regular grid over a box.

    Args:
        window: voxels of a window, an axis each.
        starts: for each axis, where windows begin, counted from the box.
    """

    window: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return math.prod(len(starts) for starts in self.starts)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Indices of the windows: which start of each axis."""
        return itertools.product(*(range(len(starts)) for starts in self.starts))

    def start(self, index: Sequence[int]) -> tuple[int, ...]:
        """Where the window of that index begins."""
        return tuple(starts[i] for starts, i in zip(self.starts, index, strict=True))


def round_up(size: int, divisor: int) -> int:
    """The next multiple of ``divisor``."""
    return -(-size // divisor) * divisor


def even_starts(size: int, window: int, overlap: float) -> tuple[int, ...]:
    """Starts of as few windows as cover an axis, at equal distances.

    MONAI steps by a fixed interval and pushes the last window back into the volume, on top of the one before it; equal
    distances spread the same number of windows with more overlap everywhere.

    Args:
        size: voxels to cover.
        window: voxels of a window.
        overlap: least share of a window that it has in common with the next, up to rounding to whole voxels.
    """
    if window >= size:
        return (0,)
    step = max(1.0, window * (1 - overlap))
    gaps = math.ceil((size - window) / step - _ROUNDING)
    return tuple((2 * i * (size - window) + gaps) // (2 * gaps) for i in range(gaps + 1))


def tile(size: Sequence[int], window: Sequence[int], overlap: Sequence[float]) -> Tiling:
    """Spread windows evenly over a box of ``size`` voxels."""
    starts = tuple(even_starts(n, w, o) for n, w, o in zip(size, window, overlap, strict=True))
    return Tiling(tuple(window), starts)


def halved(window: Sequence[int], least: Sequence[int], divisor: Sequence[int], most_voxels: float) -> tuple[int, ...]:
    """Halve the longest axis of a window again and again until it has at most so many voxels.

    Args:
        window: voxels of an axis each.
        least: no axis gets shorter than this; where that leaves the window too large, it stays too large.
        divisor: halves are rounded up to multiples of this.
        most_voxels: of a window.
    """
    result = list(window)
    while math.prod(result) > most_voxels:
        halves = [max(low, round_up(-(-w // 2), d)) for w, low, d in zip(result, least, divisor, strict=True)]
        shrinkable = [axis for axis, half in enumerate(halves) if half < result[axis]]
        if not shrinkable:
            break
        axis = max(shrinkable, key=lambda axis: result[axis])
        result[axis] = halves[axis]
    return tuple(result)


def largest_window(
    size: Sequence[int],
    overlap: Sequence[float],
    divisor: Sequence[int],
    least: Sequence[int],
    most_voxels: float,
) -> tuple[int, ...]:
    """The window that covers a box with the fewest voxels computed in all, without exceeding a number of voxels.

    One window if the whole box is small enough; otherwise the box is cut along the axes where overlaps cost least, but
    not into slabs so thin that a voxel's neighbourhood is missing: no cut axis is shorter than half the edge of a cube
    of the allowed voxels, if that can be had.

    Args:
        size: the box, voxels.
        overlap: least share of a window that it has in common with the next, an axis each.
        divisor: windows are multiples of this.
        least: no axis of a window gets shorter than this, unless the box is. Where even this has too many voxels it is
            taken all the same.
        most_voxels: of a window.
    """
    best: tuple[float, ...] = ()
    chosen: tuple[int, ...] = ()
    axes = [_choices(*axis) for axis in zip(size, overlap, divisor, least, strict=True)]
    edge = max(0.0, most_voxels) ** (1 / len(size))
    for choice in itertools.product(*axes):
        window = tuple(w for w, _ in choice)
        count = math.prod(n for _, n in choice)
        voxels = math.prod(window)
        thin = any(n > 1 and w < edge / 2 for w, n in choice)
        # the less to compute and the fewer windows the better; of what is too large, the smaller the better
        rank = (int(thin), voxels * count, count) if voxels <= most_voxels else (2, voxels, count)
        if not best or rank < best:
            best, chosen = rank, window
    return chosen


def _choices(size: int, overlap: float, divisor: int, least: int) -> list[tuple[int, int]]:
    """For one axis, the smallest window for each number of windows: (window, how many it takes)."""
    choices: list[tuple[int, int]] = []
    low = min(round_up(size, divisor), round_up(least, divisor))
    for count in itertools.count(1):
        window = max(low, round_up(math.ceil(size / (1 + (count - 1) * (1 - overlap)) - _ROUNDING), divisor))
        if not choices or window < choices[-1][0]:
            choices.append((window, len(even_starts(size, window, overlap))))
        if window == low:
            return choices
    raise AssertionError("unreachable")
