"""From the files of a study to the tensors of a MONAI pipeline, and back to the orientation of the files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from medseg_ext.layouts import Study, load_study, study_from_path
from medseg_ext.layouts.channels import collected_notes
from medseg_ext.layouts.nifti import reference_image
from medseg_ext.layouts.orientation import inverse, reorient, to_canonical_transform
from medseg_ext.layouts.study import MaskMode
from medseg_ext.layouts.volumes import open_volume, world_affine


class LoadStudyd(Transform):
    """Load a study in any layout as (C, H, W, D), rows anterior to posterior, columns right to left, slices upwards.

    Args:
        image_key: key of a :class:`~medseg_ext.layouts.Study`, of the path of its folder, or of one NIfTI file.
        label_key: key that the mask (1, H, W, D) of 0 and 1 goes to; None leaves masks alone. Under it stands what is
            under ``image_key`` (the study has its own mask) or the path of a NIfTI file with the mask.
        channel_order: canonical names of the channels of the result.
        nifti_channel_order: names of the channels as they lie in a 4-D NIfTI; ``channel_order`` when None.

    The image is a ``MetaTensor``; for NIfTI its ``affine`` belongs to the loaded orientation, and ``meta`` holds the
    ``original_affine`` and ``spatial_shape`` of the file and the ``to_canonical`` flips and swaps between the two. As
    ``notes`` it holds the lines that were printed of the study.

    Raises:
        InputError: the study cannot be used; the file is named.
    """

    def __init__(
        self,
        image_key: str = "image",
        label_key: str | None = None,
        channel_order: Sequence[str] = ("t1", "flair", "t1ce"),
        nifti_channel_order: Sequence[str] | None = None,
    ) -> None:
        self.image_key = image_key
        self.label_key = label_key
        self.channel_order = tuple(channel_order)
        self.nifti_channel_order = tuple(nifti_channel_order or channel_order)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths by tensors; add ``patient`` and, where known, ``spacing`` in mm."""
        result = dict(data)
        source = data[self.image_key]
        label = None if self.label_key is None else data.get(self.label_key, source)
        own_mask = isinstance(label, Study) or label == source
        if isinstance(source, Study):
            study = source
        else:
            masks: MaskMode = "required" if own_mask else "ignore"
            study = study_from_path(source, channel_order=self.channel_order, masks=masks)
        if label is not None and not own_mask:
            study = replace(study, masks=(Path(label),))
        with collected_notes() as notes:
            loaded = load_study(
                study,
                channel_order=self.channel_order,
                masks="ignore" if self.label_key is None else "required",
                nifti_channel_order=self.nifti_channel_order,
            )
        image = MetaTensor(
            torch.from_numpy(np.ascontiguousarray(loaded.image)),
            affine=None if loaded.affine is None else torch.as_tensor(loaded.affine),
        )
        image.meta["filename_or_obj"] = str(study.images[0])
        image.meta["notes"] = "\n".join(notes)
        if loaded.affine is not None:
            image.meta.update(_stored_geometry(reference_image(study), loaded.image.shape[1:]))
        result[self.image_key] = image
        result["patient"] = study.patient
        if loaded.spacing is not None:
            result["spacing"] = loaded.spacing
        if loaded.mask is not None and self.label_key is not None:
            mask = torch.from_numpy(np.ascontiguousarray(loaded.mask))[None].float()
            result[self.label_key] = MetaTensor(mask, affine=image.affine)
        return result


def _stored_geometry(path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    affine, oriented = world_affine(open_volume(path), path)
    transform = to_canonical_transform(affine if oriented else None)
    stored = np.empty(3, int)
    stored[:] = [shape[int(transform[axis, 0])] for axis in range(3)]
    return {"original_affine": affine, "spatial_shape": stored, "to_canonical": transform}


class ToStoredOrientationd(MapTransform):
    """Bring (C, H, W, D) back to the axes of the file that the reference image came from.

    Args:
        keys: volumes in the orientation of :class:`LoadStudyd`.
        ref_image: key of the image that was loaded; where its format holds no orientation nothing changes.
    """

    def __init__(self, keys: KeysCollection, ref_image: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_image = ref_image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Reorient every key."""
        result = dict(data)
        transform = data[self.ref_image].meta.get("to_canonical")
        if transform is None:
            return result
        back = inverse(np.asarray(transform, float))
        for key in self.key_iterator(result):
            volume = result[key]
            channels = [reorient(channel.cpu().numpy(), back) for channel in torch.as_tensor(volume)]
            turned = torch.from_numpy(np.ascontiguousarray(np.stack(channels)))
            result[key] = MetaTensor(
                turned, affine=torch.as_tensor(np.asarray(data[self.ref_image].meta["original_affine"]))
            )
        return result
