"""Take from a tumour's regions what is too small to be told from chance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from scipy import ndimage

from medseg_ext.layouts.labels import REGIONS
from medseg_ext.metrics.volumes import bounding_box

_TC, _WT, _ET = (REGIONS.index(name) for name in ("tc", "wt", "et"))
_TOUCHING = np.ones((3, 3, 3), bool)


class DropSmallLesions(Transform):
    """Set the probabilities of lesions that are too small to 0, and leave everything else as it is.

    A lesion is a connected part of the whole tumour, the regions inside included; too small, it loses all regions.
    Where the enhancing tumour of a whole head is too small it is taken for core that does not enhance, as entries to
    BraTS have done since 2018 (nnU-Net: F. Isensee et al., arXiv 2011.00848).

    MONAI's ``RemoveSmallObjects`` treats each channel by itself, and would leave a core without its tumour.

    Args:
        threshold: probability from which a voxel belongs to a region, one for all or one each.
        smallest_lesion: ml; smaller lesions are dropped. smallest_enhancing: ml in all.

    Shapes: probabilities (3, H, W, D) of tumour core, whole tumour, enhancing tumour to the same. Parts touch by faces,
    edges or corners.
    """

    def __init__(
        self,
        threshold: float | Sequence[float] = 0.5,
        smallest_lesion: float = 0.0,
        smallest_enhancing: float = 0.0,
    ) -> None:
        self.threshold = [float(t) for t in np.broadcast_to(np.asarray(threshold, float), (len(REGIONS),))]
        self.smallest_lesion = smallest_lesion
        self.smallest_enhancing = smallest_enhancing

    def __call__(self, probability: torch.Tensor, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> torch.Tensor:
        """Map the probabilities of one head, with voxels of ``spacing`` mm."""
        voxel = float(np.prod(spacing)) / 1000
        result = probability.clone()
        if self.smallest_lesion > 0:
            self._drop_lesions(result, voxel)
        if self.smallest_enhancing > 0:
            self._drop_enhancing(result, voxel)
        return result

    def _drop_lesions(self, probability: torch.Tensor, voxel: float) -> None:
        # a region inside counts as tumour also where the whole tumour misses it
        inside = [channel >= least for channel, least in zip(probability, self.threshold, strict=True)]
        tumour = torch.stack(inside).any(0).cpu().numpy()
        if not tumour.any():
            return
        box = bounding_box(tumour)
        parts, count = ndimage.label(tumour[box], _TOUCHING)
        sizes = np.bincount(parts.ravel(), minlength=count + 1) * voxel
        small = sizes < self.smallest_lesion
        small[0] = False
        if small.any():
            dropped = torch.from_numpy(small[parts]).to(probability.device)
            rows, columns, slices = box
            probability[:, rows, columns, slices].masked_fill_(dropped, 0)

    def _drop_enhancing(self, probability: torch.Tensor, voxel: float) -> None:
        enhancing = probability[_ET] >= self.threshold[_ET]
        if 0 < int(enhancing.sum()) * voxel < self.smallest_enhancing:
            core = torch.maximum(probability[_TC], probability[_ET]).clamp_min(self.threshold[_TC])
            probability[_TC] = torch.where(enhancing, core, probability[_TC])
            probability[_ET] = 0


class DropSmallLesionsd(MapTransform):
    """Dictionary version of :class:`DropSmallLesions`.

    Args:
        keys: probabilities.
        threshold, smallest_lesion, smallest_enhancing: see there.
        spacing_key: voxel size in mm, 1 mm where there is no such key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float | Sequence[float] = 0.5,
        smallest_lesion: float = 0.0,
        smallest_enhancing: float = 0.0,
        spacing_key: str = "spacing",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.drop = DropSmallLesions(threshold, smallest_lesion, smallest_enhancing)
        self.spacing_key = spacing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the probabilities under every key."""
        result = dict(data)
        spacing = tuple(float(edge) for edge in result.get(self.spacing_key, (1.0, 1.0, 1.0)))
        for key in self.key_iterator(result):
            result[key] = self.drop(result[key], spacing)
        return result
