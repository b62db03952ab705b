"""Put windows together in the result itself, with no second array of its size."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from medseg_ext.errors import is_out_of_memory
from medseg_ext.inferers.window.box import Box, cut
from medseg_ext.inferers.window.tiling import Tiling
from medseg_ext.inferers.window.weights import axis_weights

logger = logging.getLogger(__name__)


class Result:
    """The logits of a batch, made when the first window tells the number of classes.

    Args:
        batch: volumes.
        spatial: voxels of a volume, an axis each.
        outside: value of what is never written.
        device: where it lies, as long as there is room.
    """

    def __init__(self, batch: int, spatial: Sequence[int], outside: float, device: torch.device) -> None:
        self.batch = batch
        self.spatial = tuple(spatial)
        self.outside = outside
        self.device = device
        self.tensor: torch.Tensor | None = None

    def volume(self, number: int, classes: int) -> torch.Tensor:
        """The (K, *spatial) float32 logits of one volume."""
        if self.tensor is None:
            self.tensor = self._allocate((self.batch, classes, *self.spatial))
        return self.tensor[number]

    def to_host(self, why: str) -> None:
        """Go to host memory, and say so."""
        logger.warning("%s: the result of %s is kept in host memory", why, " x ".join(map(str, self.spatial)))
        self.device = torch.device("cpu")
        if self.tensor is not None:
            self.tensor = self.tensor.cpu()

    def _allocate(self, shape: tuple[int, ...]) -> torch.Tensor:
        try:
            return torch.full(shape, self.outside, dtype=torch.float32, device=self.device)
        except (RuntimeError, MemoryError) as error:
            if self.device.type == "cpu" or not is_out_of_memory(error):
                raise
        self.to_host(f"out of memory on {self.device}")
        return torch.full(shape, self.outside, dtype=torch.float32)


class Blend:
    """Sum the windows of a box, weighted, into one volume of the result.

    As the weights sum to one, a sum in place is all it takes: no map of counts, no division, no second array of the
    result's size. Whoever uses it adds or skips every window once.

    Args:
        volume: (K, *spatial) float32, written in place inside the box only.
        box: where the windows lie; what of it sticks out of the volume is dropped.
        tiling: the windows.
        outside: value of windows that are skipped.
        mode: weights, "gaussian" or "constant".
        sigma: see :func:`~medseg_ext.inferers.window.weights.profile`.
    """

    def __init__(
        self,
        volume: torch.Tensor,
        box: Box,
        tiling: Tiling,
        outside: float,
        mode: str = "gaussian",
        sigma: float = 0.125,
    ) -> None:
        self.volume = volume
        self.box = box
        self.tiling = tiling
        self.outside = outside
        self._weights = [
            axis_weights(starts, window, mode, sigma)
            for starts, window in zip(tiling.starts, tiling.window, strict=True)
        ]
        if len(tiling) > 1:
            inside, _ = box.within(volume.shape[1:])
            cut(volume, inside).zero_()

    def add(self, index: Sequence[int], logits: torch.Tensor) -> None:
        """Add the logits (K, *window) of one window, which stay as they are."""
        part = self.box.part(self.tiling.start(index), self.tiling.window)
        inside, own = part.within(self.volume.shape[1:])
        target = cut(self.volume, inside)
        logits = cut(logits, own)
        if len(self.tiling) == 1:
            target.copy_(logits)
            return
        weighted: torch.Tensor | None = None
        for axis, (weights, i, kept) in enumerate(zip(self._weights, index, own, strict=True)):
            if len(weights) == 1:
                continue  # all ones
            shape = [1] * logits.ndim
            shape[axis + 1] = -1
            factor = weights[i, kept].view(shape).to(logits.device)
            # the first product is a new float32 tensor: what a network returned may be its own
            weighted = logits * factor if weighted is None else weighted.mul_(factor)
        assert weighted is not None  # several windows are several along some axis
        target += weighted.to(target.device)

    def skip(self, index: Sequence[int]) -> None:
        """Count one window as empty."""
        empty = self.volume.new_full((1,), self.outside)
        self.add(index, empty.view(1, *([1] * len(self.tiling.window))).expand(1, *self.tiling.window))
