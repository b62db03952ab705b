"""Run a 2-D network, with or without neighbouring slices, over the slices of a volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch.nn import functional

from medseg_ext.inferers.autocast import AutocastInferer
from medseg_ext.inferers.window import OUTSIDE_LOGIT
from medseg_ext.transforms.neighbours import stack_neighbours
from medseg_ext.transforms.normalize import head_box


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
        slices = volume.permute(3, 0, 1, 2)  # (D, C, H, W)
        ratio = self.matrix / max(height, width)
        resample = abs(max(height, width) / self.matrix - 1.0) > self.tolerance
        if resample:
            size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
            slices = functional.interpolate(slices, size=size, mode="bilinear", antialias=ratio < 1)
        air = slices.amin(dim=(0, 2, 3))
        full: torch.Tensor | None = None
        for start in range(0, depth, self.box_slices):
            group = range(start, min(start + self.box_slices, depth))
            rows, columns = self._box(slices, group, air)
            for first in range(group.start, group.stop, self.batch_size):
                batch = range(first, min(first + self.batch_size, group.stop))
                logits = self._box_logits(slices[:, :, rows, columns], batch, air, network, *args, **kwargs)
                if full is None:
                    full = logits.new_full((depth, logits.shape[1], *slices.shape[2:]), OUTSIDE_LOGIT)
                full[batch.start : batch.stop, :, rows, columns] = logits
        assert full is not None  # a volume has at least one slice
        if resample:
            full = functional.interpolate(full, size=(height, width), mode="bilinear")
        return full.permute(1, 2, 3, 0)

    def _box(self, slices: torch.Tensor, indices: range, air: torch.Tensor) -> tuple[slice, slice]:
        """Rows and columns of the head in some slices: near the vertex far fewer than in the widest."""
        rows, columns = head_box(
            slices[indices.start : indices.stop].transpose(0, 1), axes=(1, 2), share=self.share, air=air
        )
        extents = zip((rows, columns), self.smallest_box, slices.shape[2:], strict=True)
        rows, columns = (self._widen(bounds, least, length) for bounds, least, length in extents)
        return rows, columns

    def _widen(self, bounds: slice, least: int, length: int) -> slice:
        """The margin to both sides, and more where that is less than ``least``, within 0 .. ``length``."""
        start, stop = max(0, bounds.start - self.margin), min(length, bounds.stop + self.margin)
        least = min(least, length)
        if stop - start < least:
            start = min(max(0, (start + stop - least) // 2), length - least)
            stop = start + least
        return slice(start, stop)

    def _box_logits(
        self,
        slices: torch.Tensor,
        indices: range,
        air: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        depth, channels, height, width = slices.shape
        first, last = max(0, indices.start - self.neighbours), min(depth, indices.stop + self.neighbours)
        padded = [math.ceil(n / self.divisor) * self.divisor for n in (height, width)]
        canvas = air.view(1, channels, 1, 1).expand(last - first, channels, *padded).contiguous()
        canvas[:, :, :height, :width] = slices[first:last]
        batch = stack_neighbours(canvas, [index - first for index in indices], self.neighbours)
        logits = self.forward(batch, network, *args, **kwargs)
        if self.mirror:
            logits = (logits + self.forward(batch.flip(-1), network, *args, **kwargs).flip(-1)) / 2
        return logits[:, :, :height, :width]
