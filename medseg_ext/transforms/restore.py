"""From the working grid of a brain tumour study back to the voxels of its files, and from regions to a label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg_ext.layouts.aligned import NativeSpace
from medseg_ext.layouts.grid import Grid, to_grid
from medseg_ext.layouts.labels import get_convention, labels_from_regions


class RestoreRegionsd(MapTransform):
    """Bring (C, H, W, D) from the working grid to the voxels of the study's reference image, in the axes of its file.

    Probabilities are interpolated linearly, so that what is thresholded afterwards has smooth outlines on a finer grid
    and lies in the slices on a coarser one. Masks (bool or integers) are interpolated and cut at 0.5. Where the file
    was not interpolated on its way in, nothing is on its way out.

    Args:
        keys: probabilities or masks; logits are not meant, for 0 stands where the working grid does not reach.
        ref_image: key of the image of :class:`LoadSequencesd`. What transforms cropped of it since counts, by its
            affine.

    The result is a ``MetaTensor`` with the file's affine.
    """

    def __init__(self, keys: KeysCollection, ref_image: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_image = ref_image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore every key."""
        result = dict(data)
        reference = data[self.ref_image]
        native = native_space(reference)
        for key in self.key_iterator(result):
            tensor = torch.as_tensor(result[key]).detach().cpu()
            volume = (tensor.float() if tensor.dtype.is_floating_point else tensor).numpy()
            rows, columns, slices = volume.shape[1:]
            restored = _restore(volume, Grid((rows, columns, slices), np.asarray(reference.affine, float)), native)
            meta = {"filename_or_obj": str(native.path), "spatial_shape": np.array(native.shape)}
            result[key] = MetaTensor(torch.from_numpy(restored), affine=torch.as_tensor(native.affine), meta=meta)
        return result


def native_space(image: MetaTensor) -> NativeSpace:
    """The space of the reference image that an image of :class:`LoadSequencesd` remembers."""
    x, y, z = (int(size) for size in np.asarray(image.meta["spatial_shape"]))
    affine, turn = (np.asarray(image.meta[key], float) for key in ("original_affine", "to_canonical"))
    return NativeSpace(Path(image.meta["filename_or_obj"]), (x, y, z), affine, turn)


def _restore(volume: np.ndarray, grid: Grid, native: NativeSpace) -> np.ndarray:
    is_mask = volume.dtype.kind in "bui"
    restored = np.empty((volume.shape[0], *native.shape), np.uint8 if is_mask else volume.dtype)
    for channel, out in zip(volume, restored, strict=True):
        moved = to_grid(channel, grid, native.grid, smooth=False)
        if is_mask and moved is not channel:
            moved = moved >= 0.5
        out[...] = native.stored(moved)
    return restored


class RegionsToLabelsd(MapTransform):
    """From (3, ...) probabilities or masks of the regions to the label map (1, ...) uint8 of a convention.

    Regions that contradict each other are made consistent by the inner one (see
    :func:`medseg_ext.layouts.labels.labels_from_regions`).

    Args:
        keys: tumour core, whole tumour, enhancing tumour.
        convention: name of a label convention.
        threshold: probability from which a voxel belongs to a region, one for all or one each.
    """

    def __init__(
        self,
        keys: KeysCollection,
        convention: str = "brats2023",
        threshold: float | Sequence[float] = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        get_convention(convention)
        self.convention = convention
        self.threshold = np.broadcast_to(np.asarray(threshold, np.float32), (3,))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn every key into a label map."""
        result = dict(data)
        for key in self.key_iterator(result):
            regions = result[key]
            inside = _inside(regions, self.threshold)
            labels = torch.from_numpy(labels_from_regions(inside, self.convention))[None]
            if isinstance(regions, MetaTensor):
                labels = MetaTensor(labels, meta=dict(regions.meta))
            result[key] = labels
        return result


class ThresholdRegionsd(MapTransform):
    """From (3, ...) probabilities of the regions to uint8 masks (3, ...) that do not contradict each other.

    They are the regions of the label map that :class:`RegionsToLabelsd` makes: what is enhancing counts as core, and
    what is core as tumour.

    Args:
        keys: tumour core, whole tumour, enhancing tumour.
        threshold: probability from which a voxel belongs to a region, one for all or one each.
    """

    def __init__(
        self, keys: KeysCollection, threshold: float | Sequence[float] = 0.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = np.broadcast_to(np.asarray(threshold, np.float32), (3,))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn every key into masks."""
        result = dict(data)
        for key in self.key_iterator(result):
            core, whole, enhancing = _inside(result[key], self.threshold)
            core = core | enhancing
            result[key] = torch.from_numpy(np.stack([core, whole | core, enhancing]).astype(np.uint8))
        return result


def _inside(regions: Any, threshold: np.ndarray) -> np.ndarray:
    volume = torch.as_tensor(regions).detach().cpu().numpy()
    return np.stack([channel >= least for channel, least in zip(volume, threshold, strict=True)])
