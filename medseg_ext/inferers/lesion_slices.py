"""Find the slices that hold a lesion by looking at a few first, and segment only those."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from medseg_ext.inferers.slice_stack import Crop, SliceStack, SliceStackInferer, widen
from medseg_ext.inferers.window.tiling import round_up


class LesionSliceInferer(SliceStackInferer):
    """Look at every few slices first; then follow what was found from slice to slice until it ends.

    In most slices of a head there is no lesion. A first look at one slice in ``stride`` finds which ones may hold one;
    from these the inferer goes on to the slices beside them, on a box around what was found, as long as it finds
    something; what lies between two finds is segmented at once. What lies wholly between two slices looked at is
    missed, so stacks of few (thick) slices are looked at more closely: ``least_looks``. A slice is segmented once: a
    find that reaches over the edge of its box is cut there.

    Args:
        stride: distance of the slices looked at first; 1 looks at all of them.
        least_looks: slices looked at first, at least; a stack of fewer is looked at whole.
        probability: what some pixel of a slice has to reach for the search to go on beside it; not more than the
            threshold of the mask, or lesion is left out.
        lesion_box: (rows, columns) that the box around a lesion has at least.
        lesion_margin: pixels around what the neighbouring slice holds.
        options: see :class:`SliceStackInferer`.

    Shapes: as of :class:`SliceStackInferer`; ``OUTSIDE_LOGIT`` in slices that were not looked at.
    """

    def __init__(
        self,
        stride: int = 4,
        least_looks: int = 7,
        probability: float = 0.1,
        lesion_box: Sequence[int] = (192, 160),
        lesion_margin: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.stride = stride
        self.least_looks = least_looks
        self.least_logit = math.log(probability / (1 - probability))
        self.lesion_box = tuple(lesion_box)
        self.lesion_margin = lesion_margin

    def _fill(self, stack: SliceStack, crops: list[Crop]) -> None:
        depth = len(crops)
        stride = max(1, min(self.stride, depth // self.least_looks))
        looks = range(min(stride // 2, depth - 1), depth, stride)
        stack.segment([crops[index] for index in looks])
        hits = {index: self._hits(stack, index) for index in looks}
        # what lies between two finds is taken for one lesion, in one batch
        between = {
            index: hits[start] | hits[start + stride]
            for start in looks[:-1]
            if hits[start].any() and hits[start + stride].any()
            for index in range(start + 1, start + stride)
        }
        beside = between or self._beside(hits, depth)
        while beside:
            stack.segment([self._around(crops[index], hit) for index, hit in beside.items()])
            hits |= {index: self._hits(stack, index) for index in beside}
            beside = self._beside(hits, depth)

    def _beside(self, hits: dict[int, torch.Tensor], depth: int) -> dict[int, torch.Tensor]:
        """The slices not yet seen next to a find, with what the slices next to them hold."""
        found: dict[int, torch.Tensor] = {}
        for index, hit in hits.items():
            if hit.any():
                for step in (index - 1, index + 1):
                    if 0 <= step < depth and step not in hits:
                        found[step] = found[step] | hit if step in found else hit
        return found

    def _hits(self, stack: SliceStack, index: int) -> torch.Tensor:
        """(H, W), where any class of a slice reaches the probability."""
        assert stack.logits is not None  # slices are asked for after they were segmented
        return (stack.logits[index] > self.least_logit).any(0)

    def _around(self, head: Crop, hit: torch.Tensor) -> Crop:
        """The part of a slice around what the slices next to it hold, within the head's box."""
        bounds = []
        for axis, (box, least) in enumerate(zip((head.rows, head.columns), self.lesion_box, strict=True)):
            where = hit[head.rows, head.columns].any(1 - axis).nonzero()
            length = box.stop - box.start
            ends = slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, length)
            part = self._whole_blocks(widen(ends, self.lesion_margin, least, length), length)
            bounds.append(slice(box.start + part.start, box.start + part.stop))
        return Crop(head.position, *bounds)

    def _whole_blocks(self, part: slice, length: int) -> slice:
        """Grow into the head rather than into padding: the network computes a multiple of the divisor anyway."""
        return widen(part, 0, round_up(part.stop - part.start, self.divisor), length)
