"""Samples of one size made of patches that are smaller."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from medseg_ext.training.patches import LesionPatchDataset
from medseg_ext.transforms.truth import IGNORE


class MosaicDataset(Dataset[dict[str, torch.Tensor]]):
    """The patches of a data set, several of a kind that is shown smaller side by side in one sample.

    A sample of small pieces, such as cubes about a lesion, then holds as many of them as it has room for, each of
    another draw, and costs what a sample of a large piece does. All samples have one size, so that a batch mixes kinds:
    its gradient is that of all of them, and batch normalisation gets statistics that hold at inference.

    Args:
        patches: ``sizes`` says which kinds are shown smaller; its ``group`` is the most patches of a sample.

    Samples: ``image`` (C, *size) float32 and ``label`` (3, *size) float32 of 0, 1 and -1 (not known), of the size of
    the augmentation of ``patches``. What is left over is air of which nothing is known.

    Raises:
        ValueError: patches of a kind are larger than a sample, or more of them fit into it than a group has.
    """

    def __init__(self, patches: LesionPatchDataset) -> None:
        self.patches = patches
        self.size = patches.augmentation.size
        for kind, size in patches.sizes.items():
            if any(part > whole for part, whole in zip(size, self.size, strict=True)):
                raise ValueError(f"sizes: found {kind} of {size}, allowed no more than a sample of {self.size}")
            if (count := len(places(self.size, size))) > patches.group:
                raise ValueError(f"group: found {patches.group}, allowed {count} or more, so many of {kind} fit")

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        first = index * self.patches.group
        sample = self.patches[first]
        size = tuple(sample["image"].shape[1:])
        if size == self.size:
            return {"image": sample["image"], "label": sample["label"]}
        corners = places(self.size, size)
        shown = [sample] + [self.patches[first + i] for i in range(1, len(corners))]
        image = torch.zeros(len(sample["image"]), *self.size)
        label = torch.full((len(sample["label"]), *self.size), IGNORE)
        for corner, part in zip(corners, shown, strict=True):
            here = (slice(None), *(slice(start, start + n) for start, n in zip(corner, size, strict=True)))
            image[here], label[here] = part["image"], part["label"]
        return {"image": image, "label": label}


def places(sample: Sequence[int], patch: Sequence[int]) -> list[tuple[int, ...]]:
    """First voxels of the patches that fit side by side into a sample."""
    starts = [range(0, whole - part + 1, part) for whole, part in zip(sample, patch, strict=True)]
    return list(itertools.product(*starts))
