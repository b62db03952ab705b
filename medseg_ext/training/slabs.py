"""Thin slabs of volumes as two-dimensional samples: many patients a batch at little cost."""

from __future__ import annotations

import torch

from medseg_ext.training.mosaic import MosaicDataset


class SlabDataset(MosaicDataset):
    """Mosaics of patches that are a few slices thick, with their slices as channels.

    Args, errors: see :class:`~medseg_ext.training.MosaicDataset`.

    Samples: ``image`` (C * slices, rows, columns) float32, channel ``c * slices + s`` being slice s of sequence c;
    ``label`` (3 * slices, rows, columns) float32 of 0, 1 and -1 (not known), likewise.
    """

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: as_channels(volume) for name, volume in super().__getitem__(index).items()}


def as_channels(volume: torch.Tensor) -> torch.Tensor:
    """(C, H, W, D) to (C * D, H, W)."""
    return volume.movedim(-1, 1).flatten(0, 1).contiguous()
