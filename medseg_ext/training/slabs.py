"""Thin slabs of volumes as two-dimensional samples: many patients a batch at little cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from medseg_ext.training.patches import LesionPatchDataset
from medseg_ext.transforms.truth import IGNORE


class SlabDataset(Dataset[dict[str, torch.Tensor]]):
    """The patches of a data set that are a few slices thick, with their slices as channels.

    A patch of a kind that is shown smaller than the slab (see ``sizes`` of
    :class:`~medseg_ext.training.LesionPatchDataset`) shares the slab with others of its kind, side by side, each of
    another patient; what is left over is air of which nothing is known. So all samples have one size, and a batch of
    kinds mixed as at inference gives batch normalisation statistics that hold there.

    Args:
        patches: its augmentation's size is that of the slab, (rows, columns, slices), and its ``group`` the most
            patches that a slab is put together of.

    Samples: ``image`` (C * slices, rows, columns) float32, channel ``c * slices + s`` being slice s of sequence c;
    ``label`` (3 * slices, rows, columns) float32 of 0, 1 and -1 (not known), likewise.

    Raises:
        ValueError: patches of a kind have another thickness than the slab, or more of them fit into it than a group.
    """

    def __init__(self, patches: LesionPatchDataset) -> None:
        self.patches = patches
        self.size = patches.augmentation.size
        for kind, size in patches.sizes.items():
            if size[2] != self.size[2]:
                raise ValueError(f"sizes: found {kind} with {size[2]} slices, allowed {self.size[2]}, as the slab has")
            if (count := len(places(self.size, size))) > patches.group:
                raise ValueError(f"group: found {patches.group}, allowed {count} or more, as many {kind}s fit a slab")

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        first = index * self.patches.group
        sample = self.patches[first]
        image, label = sample["image"], sample["label"]
        size = tuple(image.shape[1:])
        if size != self.size:
            shown = [sample] + [self.patches[first + i] for i in range(1, len(places(self.size, size)))]
            image = torch.zeros(len(image), *self.size)
            label = torch.full((len(label), *self.size), IGNORE)
            for (row, column), part in zip(places(self.size, size), shown, strict=True):
                here = (slice(None), slice(row, row + size[0]), slice(column, column + size[1]))
                image[here], label[here] = part["image"], part["label"]
        return {"image": as_channels(image), "label": as_channels(label)}


def places(slab: Sequence[int], patch: Sequence[int]) -> list[tuple[int, int]]:
    """First rows and columns of the patches that fit side by side into a slab, at least one."""
    rows, columns = (range(0, max(1, whole - part + 1), part) for whole, part in zip(slab[:2], patch[:2], strict=True))
    return [(row, column) for row in rows for column in columns]


def as_channels(volume: torch.Tensor) -> torch.Tensor:
    """(C, H, W, D) to (C * D, H, W)."""
    return volume.movedim(-1, 1).flatten(0, 1).contiguous()
