"""From the sequences of a brain tumour study to the tensors of a 3-D pipeline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from medseg_ext.layouts import AlignedStudy, Study, load_aligned, study_from_files, study_from_path
from medseg_ext.layouts.channels import collected_notes
from medseg_ext.layouts.labels import AUTO, conventions_of_store, get_convention
from medseg_ext.layouts.study import BRATS_CHANNELS, BRATS_RULES, MaskMode


class LoadSequencesd(Transform):
    """Load any of a study's four sequences as (C, H, W, D) on a grid along the body's axes, and its tumour regions.

    Rows run anterior to posterior, columns right to left, slices upwards, voxels are cubes; files that lie so already
    are not interpolated. A sequence that the study lacks is a channel of zeros.

    Args:
        image_key: key of a :class:`~medseg_ext.layouts.Study`, the path of a study's folder, of one sequence (its
            neighbours complete the study) or of a 4-D NIfTI file, a list of files with a sequence each in their names,
            or a dictionary of files by sequence.
        label_key: key that the regions go to, uint8 (3, H, W, D): tumour core, whole tumour, enhancing tumour; None
            leaves label maps alone. Under it stands what is under ``image_key`` (the study has its own label map), or
            the path of a label map.
        present_key: key that a bool tensor (C,) goes to: which channels are there.
        channel_order: canonical names of the channels of the result.
        stack_order: names of the channels as they lie in a 4-D NIfTI; ``channel_order`` when None.
        convention: of the label maps, ``auto`` to tell it from names and values (see `medseg_ext.layouts.labels`).
        spacing: edge of a voxel in mm.
        unplaced: axis codes of files whose affine does not say how the head lies.

    The image is a ``MetaTensor`` whose ``affine`` belongs to the working grid. Its ``meta`` holds what it takes to get
    back (``original_affine`` and ``spatial_shape`` of the reference image as stored, ``to_canonical``), the reference
    image's path as ``filename_or_obj``, the value of ``air`` in each channel, ``skull_stripped``, and as ``notes`` the
    lines that were, or have been, printed of the study.

    Raises:
        InputError: the study cannot be used; the file is named.
    """

    def __init__(
        self,
        image_key: str = "image",
        label_key: str | None = None,
        present_key: str = "present",
        channel_order: Sequence[str] = BRATS_CHANNELS,
        stack_order: Sequence[str] | None = None,
        convention: str = AUTO,
        spacing: float = 1.0,
        unplaced: str = "RAS",
    ) -> None:
        if convention != AUTO:
            get_convention(convention)
        self.image_key = image_key
        self.label_key = label_key
        self.present_key = present_key
        self.channel_order = tuple(channel_order)
        self.stack_order = tuple(stack_order or channel_order)
        self.convention = convention
        self.spacing = spacing
        self.unplaced = unplaced

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths by tensors; add ``patient``, ``spacing`` in mm and which channels are present."""
        result = dict(data)
        source = data[self.image_key]
        label = None if self.label_key is None else data.get(self.label_key, source)
        own = label is not None and (isinstance(label, Study) or label is source or label == source)
        study = self._study(source, own)
        if label is not None and not own:
            study = replace(study, masks=(Path(label),), conventions=conventions_of_store(Path(label)))
        with collected_notes() as notes:
            loaded = load_aligned(
                study,
                channel_order=self.channel_order,
                stack_order=self.stack_order,
                labels=label is not None,
                convention=self.convention,
                spacing=self.spacing,
                unplaced=self.unplaced,
            )
        affine = torch.as_tensor(loaded.grid.affine)
        meta = _meta(loaded) | {"notes": "\n".join(notes)}
        result[self.image_key] = MetaTensor(torch.from_numpy(loaded.image), affine=affine, meta=meta)
        result[self.present_key] = torch.from_numpy(loaded.present)
        result["patient"] = study.patient
        result["spacing"] = tuple(float(edge) for edge in np.linalg.norm(loaded.grid.affine[:3, :3], axis=0))
        if loaded.regions is not None and self.label_key is not None:
            regions = torch.from_numpy(np.ascontiguousarray(loaded.regions))
            result[self.label_key] = MetaTensor(regions, affine=affine, meta={"convention": loaded.convention})
        return result

    def _study(self, source: Any, labels: bool) -> Study:
        if isinstance(source, Study):
            return source
        if isinstance(source, (Mapping, list, tuple)):
            return study_from_files(source)
        masks: MaskMode = "required" if labels else "ignore"
        return study_from_path(source, channel_order=self.channel_order, masks=masks, rules=BRATS_RULES)


def _meta(loaded: AlignedStudy) -> dict[str, Any]:
    native = loaded.native
    return {
        "filename_or_obj": str(native.path),
        "original_affine": native.affine.copy(),
        "spatial_shape": np.array(native.shape),
        "to_canonical": native.to_canonical.astype(float),
        "air": np.array(loaded.air),
        "skull_stripped": loaded.skull_stripped,
    }
