"""Write what was found of a brain tumour, in the space of its study."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection

from medseg_ext.layouts import Study
from medseg_ext.layouts.labels import get_convention
from medseg_ext.layouts.masks import refuse_input
from medseg_ext.layouts.segmentations import (
    label_map_files,
    output_stem,
    volumes_ml,
    write_label_map,
    write_probabilities,
    write_slicer_segmentation,
    write_volumes,
)
from medseg_ext.transforms.restore import native_space
from medseg_ext.transforms.save import Batch, SaveStudyd


class SaveSegmentationd(SaveStudyd):
    """Write label maps (1, X, Y, Z) that lie as their files do, see :class:`RestoreRegionsd`.

    ``OUT/CASE_seg.nii.gz`` is the label map (``CASE-seg`` where the files are named as in BraTS 2023, ``CASE`` for sets
    of nnU-Net and the Decathlon) with the affine of the reference image, ``OUT/CASE_volumes.json`` the volumes of
    regions and labels in ml; on request ``OUT/CASE_seg.seg.nrrd`` for 3D Slicer and ``OUT/CASE_probabilities.nii.gz``
    (X, Y, Z, region), 0 to 1 in steps of 1/255.

    Args:
        keys: label maps.
        patients, output_dir: see :class:`~medseg_ext.transforms.save.SaveStudyd`.
        convention: of the label maps.
        ref_image: key of the image of :class:`LoadSequencesd`.
        probabilities_key: key of probabilities (3, X, Y, Z) to write; None writes none.
        slicer: whether to write segments for 3D Slicer.
        volumes: whether to write volumes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patients: Batch,
        output_dir: str | Path,
        convention: str = "brats2023",
        ref_image: str = "image",
        probabilities_key: str | None = None,
        slicer: bool = False,
        volumes: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, patients, output_dir, allow_missing_keys)
        get_convention(convention)
        self.convention = convention
        self.ref_image = ref_image
        self.probabilities_key = probabilities_key
        self.slicer = slicer
        self.volumes = volumes

    def write(self, study: Study, volume: torch.Tensor, data: Mapping[Hashable, Any]) -> None:
        """Write one label map and what goes with it."""
        labels = _array(volume)[0]
        refuse_input(self.output_dir, study)
        native = native_space(data[self.ref_image])
        if labels.shape != native.shape:
            raise ValueError(f"label map of shape {labels.shape} for {native.path} of shape {native.shape}")
        stem = output_stem(study)
        if self.probabilities_key is not None:
            path = self.output_dir / f"{study.patient}_probabilities.nii.gz"
            write_probabilities(path, _array(data[self.probabilities_key]), native.affine, native.path)
        if self.slicer:
            path = self.output_dir / f"{stem}.seg.nrrd"
            write_slicer_segmentation(path, labels, native.affine, self.convention)
        if self.volumes:
            content = {"patient": study.patient, **volumes_ml(labels, native.affine, self.convention)}
            write_volumes(self.output_dir / f"{study.patient}_volumes.json", content)
        # Last: where the label map lies, everything that belongs to it does.
        (path,) = label_map_files(study, self.output_dir)
        write_label_map(path, labels, native.affine, native.path)


def _array(volume: torch.Tensor) -> np.ndarray:
    return volume.detach().cpu().numpy()
