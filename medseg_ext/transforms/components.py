"""Drop connected components that are too small, or too unlikely, to be a lesion."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from scipy import ndimage

from medseg_ext.metrics.volumes import bounding_box


class KeepLesions(Transform):
    """Threshold a probability and drop components that are small beside the largest or nowhere likely.

    MONAI's ``RemoveSmallObjects`` and ``KeepLargestConnectedComponent`` know one absolute size, or the largest alone.

    Args:
        threshold: probability above which a voxel belongs to a component.
        share: components smaller than this share of the largest one are dropped; 0 keeps all, 1 the largest alone.
        peak: components whose highest probability stays under this are dropped.

    Shapes: probability (1, H, W, D) to uint8 0 and 1 of the same shape. Components touch by faces, edges or corners.
    """

    def __init__(self, threshold: float = 0.5, share: float = 0.0, peak: float = 0.0) -> None:
        self.threshold = threshold
        self.share = share
        self.peak = peak

    def __call__(self, probability: torch.Tensor) -> torch.Tensor:
        """Map the probability of one study to its mask."""
        mask = (probability > self.threshold).to(torch.uint8)
        if self.share <= 0 and self.peak <= self.threshold:
            return mask
        # labelling all the air around the lesions would take longer than everything else here
        volume = mask[0].cpu().numpy()
        box = bounding_box(volume)
        volume = volume[box]
        labels, count = ndimage.label(volume, structure=np.ones((3,) * volume.ndim))
        if count == 0:
            return mask
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        keep = sizes >= self.share * sizes.max()
        if self.peak > self.threshold:
            values = probability[0][box].cpu().numpy()
            keep &= ndimage.maximum(values, labels, np.arange(1, count + 1)) >= self.peak
        kept = np.concatenate([[False], keep])[labels]
        mask[0][box] = torch.as_tensor(kept, dtype=torch.uint8, device=mask.device)
        return mask


class KeepLesionsd(MapTransform):
    """Dictionary version of :class:`KeepLesions`."""

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float = 0.5,
        share: float = 0.0,
        peak: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep = KeepLesions(threshold, share, peak)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the probability under every key by the mask."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.keep(result[key])
        return result
