"""Run a 2-D network, with or without neighbouring slices, over the slices of a volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from monai.inferers import Inferer
from torch.nn import functional

from medseg_ext.inferers.autocast import AutocastInferer
from medseg_ext.inferers.window import OUTSIDE_LOGIT
from medseg_ext.inferers.window.tiling import round_up
from medseg_ext.transforms.neighbours import neighbour_indices
from medseg_ext.transforms.normalize import head_box


class Crop(NamedTuple):
    """A part of one slice."""

    position: int
    rows: slice
    columns: slice

    @property
    def size(self) -> tuple[int, int]:
        """Pixels along the rows' and the columns' axis."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class SliceStack:
    """A volume's slices with the logits found so far.

    Args:
        slices: (D, C, H, W), normalised.
        forward: maps (n, (2 * neighbours + 1) * C, h, w) to (n, K, h, w) float32.
        neighbours, batch_size, divisor: see :class:`SliceStackInferer`.
    """

    def __init__(
        self,
        slices: torch.Tensor,
        forward: Callable[[torch.Tensor], torch.Tensor],
        neighbours: int,
        batch_size: int,
        divisor: int,
    ) -> None:
        self.slices = slices
        self.air = slices.amin(dim=(0, 2, 3))  # (C,)
        self.forward = forward
        self.neighbours = neighbours
        self.batch_size = batch_size
        self.divisor = divisor
        self.logits: torch.Tensor | None = None  # (D, K, H, W) from the first forward pass on

    def segment(self, crops: Sequence[Crop]) -> None:
        """Fill in the logits of some parts, those of equal padded size together."""
        sizes = defaultdict(list)
        for crop in crops:
            sizes[self._padded(crop)].append(crop)
        for size, alike in sizes.items():
            for start in range(0, len(alike), self.batch_size):
                self._segment(alike[start : start + self.batch_size], size)

    def _padded(self, crop: Crop) -> tuple[int, int]:
        height, width = (round_up(n, self.divisor) for n in crop.size)
        return height, width

    def _segment(self, crops: list[Crop], size: tuple[int, int]) -> None:
        depth, channels = self.slices.shape[:2]
        steps = 2 * self.neighbours + 1
        air = self.air.repeat(steps).view(1, -1, 1, 1)
        batch = air.expand(len(crops), steps * channels, *size).contiguous()
        for canvas, crop in zip(batch.unflatten(1, (steps, channels)), crops, strict=True):
            height, width = crop.size
            for step, index in enumerate(neighbour_indices(crop.position, depth, self.neighbours)):
                canvas[step, :, :height, :width] = self.slices[index, :, crop.rows, crop.columns]
        logits = self.forward(batch)
        if self.logits is None:
            shape = (depth, logits.shape[1], *self.slices.shape[2:])
            self.logits = logits.new_full(shape, OUTSIDE_LOGIT)
        for result, crop in zip(logits, crops, strict=True):
            height, width = crop.size
            self.logits[crop.position, :, crop.rows, crop.columns] = result[:, :height, :width]


class SliceStackInferer(Inferer):
    """Segment a volume slice by slice on the box of the head alone, found anew for every few slices.

    MONAI's ``SliceInferer`` sees one slice at a time and all of it; this one stacks neighbouring slices as channels,
    leaves the air around the head out, and resamples slices whose matrix is far from the one trained on.

    Args:
        neighbours: slices on either side given to the network as further channels.
        batch_size: slices a forward pass; it changes nothing but time and memory.
        box_slices: successive slices that share a box.
        divisor: spatial sizes are padded with air up to a multiple of this, which the network asks for.
        matrix: longer side of the slices that the network was trained on, pixels. Slices whose longer side differs by
            more than ``tolerance`` are resampled in-plane to it, and their logits back.
        tolerance: relative difference up to which the slices stay as they are.
        margin: pixels of air kept around the head.
        smallest_box: (rows, columns) that a box has at least, as far as the slices reach: give it the size of the crops
            in training. Near the vertex the head is so small that a tight box shows the network the unknown.
        share: a row or column belongs to the head when at least this share of its pixels in those slices does.
        mirror: average the logits with those of the mirrored slice (along columns).
        amp: see :class:`AutocastInferer`.

    Shapes: inputs (B, C, H, W, D), normalised with air at each channel's smallest value; the network maps
    (n, (2 * neighbours + 1) * C, h, w) to (n, K, h, w); the result is (B, K, H, W, D) float32 logits, and
    ``OUTSIDE_LOGIT`` outside the head.
    """

    def __init__(
        self,
        neighbours: int = 1,
        batch_size: int = 8,
        box_slices: int = 4,
        divisor: int = 32,
        matrix: int = 256,
        tolerance: float = 0.25,
        margin: int = 2,
        smallest_box: Sequence[int] = (0, 0),
        share: float = 0.01,
        mirror: bool = False,
        amp: bool = True,
    ) -> None:
        self.neighbours = neighbours
        self.batch_size = batch_size
        self.box_slices = box_slices
        self.divisor = divisor
        self.matrix = matrix
        self.tolerance = tolerance
        self.margin = margin
        self.smallest_box = tuple(smallest_box)
        self.share = share
        self.mirror = mirror
        self.forward = AutocastInferer(amp)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment each volume of the batch by itself; the statistics of one never touch another's."""
        with torch.no_grad():
            volumes = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
            return torch.stack([self._volume(v, network, *args, **kwargs) for v in volumes])

    def _volume(
        self, volume: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        height, width, depth = volume.shape[1:]
        slices = volume.permute(3, 0, 1, 2).contiguous()  # (D, C, H, W); every slice is read several times
        ratio = self.matrix / max(height, width)
        resample = abs(max(height, width) / self.matrix - 1.0) > self.tolerance
        if resample:
            size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
            # as zero, air stays exactly what it is; rounding, another with more threads, would make it head
            air = slices.amin(dim=(0, 2, 3), keepdim=True)
            slices = functional.interpolate(slices - air, size=size, mode="bilinear", antialias=ratio < 1) + air

        def forward(batch: torch.Tensor) -> torch.Tensor:
            logits = self.forward(batch, network, *args, **kwargs)
            if self.mirror:
                logits = (logits + self.forward(batch.flip(-1), network, *args, **kwargs).flip(-1)) / 2
            return logits

        stack = SliceStack(slices, forward, self.neighbours, self.batch_size, self.divisor)
        boxes = [
            self._box(stack, range(start, min(start + self.box_slices, depth)))
            for start in range(0, depth, self.box_slices)
        ]
        self._fill(stack, [Crop(index, *boxes[index // self.box_slices]) for index in range(depth)])
        full = stack.logits
        assert full is not None  # a volume has at least one slice
        if resample:
            full = functional.interpolate(full, size=(height, width), mode="bilinear")
        return full.permute(1, 2, 3, 0)

    def _fill(self, stack: SliceStack, crops: list[Crop]) -> None:
        """Segment the head in every slice."""
        stack.segment(crops)

    def _box(self, stack: SliceStack, indices: range) -> tuple[slice, slice]:
        """Rows and columns of the head in some slices: near the vertex far fewer than in the widest."""
        slices = stack.slices[indices.start : indices.stop].transpose(0, 1)  # (C, n, H, W)
        bounds = head_box(slices, axes=(1, 2), share=self.share, air=stack.air)
        rows, columns = (
            widen(bound, self.margin, least, length)
            for bound, least, length in zip(bounds, self.smallest_box, slices.shape[2:], strict=True)
        )
        return rows, columns


def widen(bounds: slice, margin: int, least: int, length: int) -> slice:
    """The margin to both sides, and more where that is less than ``least``, within 0 .. ``length``."""
    start, stop = max(0, bounds.start - margin), min(length, bounds.stop + margin)
    least = min(least, length)
    if stop - start < least:
        start = min(max(0, (start + stop - least) // 2), length - least)
        stop = start + least
    return slice(start, stop)
