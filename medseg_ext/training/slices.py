"""Training samples of a 2.5-D network, drawn from whole patients that stay decoded in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from medseg_ext.training.patients import read_patients
from medseg_ext.transforms.augment import SliceAugmentation, augment_slice
from medseg_ext.transforms.neighbours import neighbour_indices
from medseg_ext.transforms.normalize import head_box


class CountingSampler(Sampler[int]):
    """Yield the running numbers of the samples of one epoch, counted from the first sample of the training.

    A sample's number alone decides what it is (see :class:`LesionSliceDataset`), so a training that is resumed at an
    epoch sees what the uninterrupted one would have seen, and so do any number of worker processes.

    Args:
        samples: samples an epoch, of all processes together.
        rank: this process. world_size: processes. Each takes every ``world_size``-th sample.
    """

    def __init__(self, samples: int, rank: int = 0, world_size: int = 1) -> None:
        self.samples = samples
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.samples // self.world_size

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.samples
        return iter(range(first + self.rank, first + len(self) * self.world_size, self.world_size))


class LesionSliceDataset(Dataset[dict[str, torch.Tensor]]):
    """Augmented slices with their neighbours, drawn by patient and by lesion.

    Sample ``i`` is a pure function of ``seed`` and ``i``: first a patient (uniformly, so that a thin-sliced patient
    does not outweigh the others), then a slice: with probability ``lesion_share`` one that holds lesion, by the square
    root of its lesion's area, otherwise any slice, by how much of the head it shows.

    Args:
        data: what names each patient; given to ``transform``.
        transform: maps an element of ``data`` to a dictionary with ``image`` (C, H, W, D), normalised, and ``label``
            (1, H, W, D) of 0 and 1. Called once a patient; the results stay in memory as float16 and bool.
        augmentation: ranges of the random changes, and the size of the crop.
        neighbours: slices on either side.
        lesion_share: share of samples drawn among the slices that hold lesion.
        seed: seed of all samples.
        flair: index of FLAIR among the channels.
        workers: threads that read patients at the start. progress: show a bar meanwhile.

    Samples: ``image`` ((2 * neighbours + 1) * C, *size) float32 and ``label`` (1, *size) float32.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Any,
        augmentation: SliceAugmentation | None = None,
        neighbours: int = 1,
        lesion_share: float = 0.7,
        seed: int = 0,
        flair: int = 1,
        workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.data = data
        self.augmentation = augmentation or SliceAugmentation()
        self.neighbours = neighbours
        self.lesion_share = lesion_share
        self.seed = seed
        self.flair = flair
        self.patients = read_patients(
            data, lambda item: self._decode(transform(item)), workers, progress, "reading training patients"
        )

    @staticmethod
    def _decode(item: dict[str, Any]) -> dict[str, Any]:
        image, label = (torch.as_tensor(item[key]) for key in ("image", "label"))
        rows, columns = head_box(image, axes=(0, 1))
        areas = label[0].flatten(0, 1).sum(0).double().numpy()
        air = image.flatten(1).amin(1)
        head = (image > air.view(-1, 1, 1, 1)).any(0).flatten(0, 1).double().mean(0).numpy()
        head = head if head.any() else np.ones_like(head)
        return {
            "image": image.permute(3, 0, 1, 2).half().contiguous(),  # (D, C, H, W): a slice is one piece of memory
            "label": label.permute(3, 0, 1, 2).bool().contiguous(),
            "air": air.half().float(),
            "centre": ((rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2),
            "weights": np.sqrt(areas),
            "head": head / head.sum(),
        }

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        patient = self.patients[int(rng.integers(len(self.patients)))]
        depth = patient["image"].shape[0]
        weights = patient["weights"]
        if weights.any() and rng.random() < self.lesion_share:
            middle = int(rng.choice(depth, p=weights / weights.sum()))
        else:
            middle = int(rng.choice(depth, p=patient["head"]))
        stack = patient["image"][neighbour_indices(middle, depth, self.neighbours)].float()
        image, label = augment_slice(
            stack,
            patient["label"][middle].float(),
            patient["centre"],
            patient["air"],
            rng,
            self.augmentation,
            self.flair,
        )
        return {"image": image, "label": label}
