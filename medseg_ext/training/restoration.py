"""Batches of images that were damaged on purpose, with the whole images as what is to be predicted."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose


class RestorationBatch:
    """Make a trainer learn to restore images: its ``prepare_batch``.

    No masks are needed, and those there are play no part (Z. Zhou et al. 2021, Models Genesis, arXiv 2004.07882, damage
    images in such ways; K. He et al. 2022, arXiv 2111.06377, hide parts of them).

    How an image is damaged depends on the seed and its voxels alone, so that a training that is resumed sees what the
    uninterrupted one would have seen.

    Args:
        corruption: random transforms of MONAI's on dictionaries with ``image``.
        seed: of all damage.
    """

    def __init__(self, corruption: Compose, seed: int = 0) -> None:
        self.corruption = corruption
        self.seed = seed

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Damaged and whole images, both (B, C, *spatial), of a batch with ``image``."""
        images = batch["image"]
        whole = images.as_tensor() if isinstance(images, MetaTensor) else images
        damaged = torch.stack([self._damage(image) for image in whole])
        return damaged.to(device, non_blocking=non_blocking), whole.to(device, non_blocking=non_blocking)

    def _damage(self, image: torch.Tensor) -> torch.Tensor:
        own = zlib.crc32(image.flatten()[::7].contiguous().numpy().tobytes())
        self.corruption.set_random_state(seed=(self.seed + own) % 2**32)
        made: Any = self.corruption({"image": image.clone()})["image"]  # MONAI writes into what it is given
        return made.as_tensor() if isinstance(made, MetaTensor) else made
