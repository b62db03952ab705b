"""Other sequences in, other regions out: the first and the last convolution of a network from those of another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

INPUT_MODES = ("name", "mean", "repeat")

#: Of a channel: its slice's distance from the middle one, its name's index, its place in the block.
Place = tuple[int, int, tuple[int, ...]]


@dataclass(frozen=True)
class ChannelLayout:
    """What the channels of a network's first or last convolution are.

    Channel ``((step * C + c) * factor + row) * factor + column``, and so on, is sequence or region c of C of the slice
    ``step - steps // 2`` from the middle one, at a place of the blocks that a stem of space to depth makes channels of.

    Args:
        names: of sequences or regions.
        dims: spatial dimensions, 2 or 3.
        factor: of the stem, see :class:`~medseg_ext.networks.SpaceToDepth`; 1 without one.
        steps: slices that are given side by side as channels; 1 for one.
    """

    names: tuple[str, ...]
    dims: int
    factor: int = 1
    steps: int = 1

    @classmethod
    def of(cls, names: Sequence[str], channels: int, dims: int, factor: int) -> ChannelLayout:
        """The layout of so many channels.

        Raises:
            ValueError: so many cannot be: slices side by side are as many on either side of the middle one.
        """
        block = len(names) * factor**dims
        if not names or channels % block or channels // block % 2 == 0:
            raise ValueError(f"{channels} channels, no odd multiple of {len(names)} names x {factor}^{dims}")
        return cls(tuple(names), dims, factor, channels // block)

    @property
    def places(self) -> list[Place]:
        """What each channel is."""
        blocks = list(itertools.product(range(self.factor), repeat=self.dims))
        steps = (step - self.steps // 2 for step in range(self.steps))
        return [(step, c, block) for step in steps for c in range(len(self.names)) for block in blocks]


def input_names_matrix(target: Sequence[str], source: Sequence[str], mode: str) -> torch.Tensor:
    """How much of each sequence of the source a sequence of the target takes the weights of.

    ``name`` gives a sequence the weights it had, one that the source did not have the mean of all; ``mean`` gives all
    the mean; ``repeat`` the source's in turn. Then all is scaled, so that what follows gets values of the size it is
    used to: where all sequences show the same image, the result is the source's, unless some of its sequences are left
    out: then it is so on average.

    Args:
        target: names of the sequences that the network will be given.
        source: names of those that the weights were trained on.
        mode: one of :data:`INPUT_MODES`.

    Returns:
        (target, source) float64.
    """
    matrix = torch.zeros(len(target), len(source), dtype=torch.float64)
    for row, name in enumerate(target):
        if mode == "repeat":
            matrix[row, row % len(source)] = 1
        elif mode == "name" and name in source:
            matrix[row, source.index(name)] = 1
        else:
            matrix[row] = 1 / len(source)
    if mode == "repeat":
        matrix /= matrix.sum(0).clamp_min(1)  # the copies of one share its weight
    return matrix * (len(source) / matrix.sum())


def input_mixing(target: ChannelLayout, source: ChannelLayout, mode: str = "name") -> torch.Tensor:
    """What the input channels of the first convolution are made of: (target, source) channels, float64.

    Slices beyond those that the target is given count for its outermost. A block of the source that is flat belongs in
    equal parts to all slices of a deep one, and the slices of a deep one add up to a flat one: where all slices are
    alike, both say the same.

    Raises:
        ValueError: the blocks are of different sizes.
    """
    names = input_names_matrix(target.names, source.names, mode)
    reach = target.steps // 2

    def share(ours: Place, theirs: Place) -> float:
        nearest = max(-reach, min(target.steps - 1 - reach, theirs[0]))
        if ours[0] != nearest:
            return 0.0
        deeper = target.dims > source.dims
        return float(names[ours[1], theirs[1]]) * _same_place(ours[2], theirs[2]) / (target.factor if deeper else 1)

    return _mixing(target, source, share)


def output_mixing(target: ChannelLayout, source: ChannelLayout) -> torch.Tensor:
    """What the output channels of the last convolution are made of: (target, source) channels, float64.

    By the names of the regions. What a flat block says of a place a deep one says of all its slices, and a flat one
    says the mean of what a deep one says of them. A row of zeros is a region that the source does not have.

    Raises:
        ValueError: the blocks are of different sizes, or there are several slices.
    """
    if target.steps > 1 or source.steps > 1:
        raise ValueError("several slices side by side")

    def share(ours: Place, theirs: Place) -> float:
        if target.names[ours[1]] != source.names[theirs[1]]:
            return 0.0
        return _same_place(ours[2], theirs[2]) / (target.factor if target.dims < source.dims else 1)

    return _mixing(target, source, share)


def _same_place(ours: tuple[int, ...], theirs: tuple[int, ...]) -> float:
    """Rows and columns, and the slice where both have one."""
    return float(all(a == b for a, b in zip(ours, theirs, strict=False)))


def _mixing(target: ChannelLayout, source: ChannelLayout, share: Callable[[Place, Place], float]) -> torch.Tensor:
    if target.factor != source.factor:
        raise ValueError(f"blocks of {source.factor} where the network has {target.factor}")
    rows = [[share(ours, theirs) for theirs in source.places] for ours in target.places]
    return torch.tensor(rows, dtype=torch.float64)


def mix(weight: torch.Tensor, mixing: torch.Tensor, axis: int) -> torch.Tensor:
    """Make the channels of an axis from other ones.

    Args:
        weight: of any shape, its ``axis`` of as many channels as ``mixing`` has columns.
        mixing: (target, source).
        axis: which one.
    """
    moved = torch.tensordot(mixing.to(weight), weight, dims=([1], [axis]))
    return moved.movedim(0, axis)
