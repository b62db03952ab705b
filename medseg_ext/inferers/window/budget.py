"""How large a window may be for a pass to stay within a memory budget."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from medseg_ext.inferers.window.blend import Result
from medseg_ext.inferers.window.forward import Forward
from medseg_ext.inferers.window.memory import GIB, LEAST_SHARE, Footprint, default_budget, measure_footprint

logger = logging.getLogger(__name__)

_AMPLE = 2048
"""Bytes a voxel that hardly a network takes: where there is so much there is no need to measure, which costs half a
second at first, most of it for what torch has to import."""


class MemoryBudget:
    """Memory for windows and result.

    Args:
        gib: GiB, or None for a share of what is free (see :func:`~medseg_ext.inferers.window.memory.default_budget`).
        bytes_per_voxel: what a pass takes a voxel of its window, or None to measure it once for each network where
            that matters.
    """

    def __init__(self, gib: float | None = None, bytes_per_voxel: float | None = None) -> None:
        self.gib = gib
        self.bytes_per_voxel = bytes_per_voxel
        self._measured: tuple[weakref.ref[Any], Footprint] | None = None

    def most_voxels(
        self, box_voxels: int, channels: int, probe: Sequence[int], result: Result, forward: Forward
    ) -> float:
        """Voxels of the largest window within the budget; a result that is too large for a GPU goes to the host.

        Args:
            box_voxels: what a single window would have.
            channels: of the image.
            probe: a small window that the network allows, to measure it with.
            result: what the windows are put into.
            forward: how they are computed.
        """
        budget = default_budget(forward.device) if self.gib is None else self.gib * GIB
        assumed = self.bytes_per_voxel or (_AMPLE if self.gib is None else None)
        if assumed is not None and assumed * box_voxels <= budget:
            return box_voxels
        footprint = self.footprint(channels, probe, forward)
        voxels = result.batch * math.prod(result.spatial)
        taken = footprint.result(voxels)
        if result.device.type != "cpu" and taken > budget / 2:
            result.to_host("it would take more than half of the memory budget")
        if result.device.type != forward.device.type:
            voxels = taken = 0  # the result is not in the windows' way
        most = footprint.most_voxels(budget, box_voxels, voxels)
        if most != box_voxels and taken > (1 - LEAST_SHARE) * budget:
            logger.warning(
                "the result takes %.2f GiB of a memory budget of %.2f GiB; with %.2f GiB for windows it is exceeded",
                taken / GIB,
                budget / GIB,
                LEAST_SHARE * budget / GIB,
            )
        if most < math.prod(probe) and most < box_voxels:
            logger.warning("a memory budget of %.2f GiB leaves room for tiny windows only", budget / GIB)
        return most

    def footprint(self, channels: int, probe: Sequence[int], forward: Forward) -> Footprint:
        """What the network takes, measured once."""
        if self._measured is not None and self._measured[0]() is forward.network:
            return self._measured[1]
        plain = replace(forward, mirror_axes=())

        def run(size: tuple[int, ...]) -> torch.Tensor:
            return plain(plain.empty(channels, size, torch.float32).zero_())[None]

        footprint = measure_footprint(run, probe)
        if self.bytes_per_voxel is not None:
            footprint = replace(footprint, bytes_per_voxel=self.bytes_per_voxel)
        logger.debug("measured %s", footprint)
        self._measured = (weakref.ref(forward.network), footprint)
        return footprint
