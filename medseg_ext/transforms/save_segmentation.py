"""Write what was found of a brain tumour, in the space of its study."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, SaveImaged

from medseg_ext.errors import InputError
from medseg_ext.layouts import Study
from medseg_ext.layouts.labels import get_convention
from medseg_ext.layouts.masks import refuse_input
from medseg_ext.layouts.segmentations import (
    output_stem,
    volumes_ml,
    write_label_map,
    write_probabilities,
    write_slicer_segmentation,
    write_volumes,
)
from medseg_ext.transforms.restore import native_space
from medseg_ext.workflow.failures import Failures


class SaveSegmentationd(SaveImaged):
    """Write label maps (1, X, Y, Z) that lie as their files do, see :class:`RestoreRegionsd`.

    ``OUT/CASE_seg.nii.gz`` is the label map (``CASE-seg`` where the files are named as in BraTS 2023, ``CASE`` for sets
    of nnU-Net and the Decathlon) with the affine of the reference image, ``OUT/CASE_volumes.json`` the volumes of
    regions and labels in ml; on request ``OUT/CASE_seg.seg.nrrd`` for 3D Slicer and ``OUT/CASE_probabilities.nii.gz``
    (X, Y, Z, region), 0 to 1 in steps of 1/255.

    It is a ``SaveImaged`` so that programs that do their own saving and therefore leave that transform out, as MONAI
    Label does, leave this one out too. What cannot be written is recorded and the batch goes on.

    Args:
        keys: label maps.
        studies: the studies, looked up by the item's ``patient``.
        output_dir: where the files go.
        convention: of the label maps.
        ref_image: key of the image of :class:`LoadSequencesd`.
        probabilities_key: key of probabilities (3, X, Y, Z) to write; None writes none.
        slicer: whether to write segments for 3D Slicer.
        volumes: whether to write volumes.
        failures: where a failure is recorded.
    """

    def __init__(
        self,
        keys: KeysCollection,
        studies: Sequence[Study],
        output_dir: str | Path,
        convention: str = "brats2023",
        ref_image: str = "image",
        probabilities_key: str | None = None,
        slicer: bool = False,
        volumes: bool = True,
        failures: Failures | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        get_convention(convention)
        self.studies = {study.patient: study for study in studies}
        self.output_dir = Path(output_dir)
        self.convention = convention
        self.ref_image = ref_image
        self.probabilities_key = probabilities_key
        self.slicer = slicer
        self.volumes = volumes
        self.failures = failures

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; the data goes through unchanged."""
        for key in self.key_iterator(data):
            study = self.studies[data["patient"]]
            try:
                self._write(study, _array(data[key])[0], data)
            except InputError as error:
                if self.failures is None:
                    raise
                self.failures.add(error, study.patient)
        return dict(data)

    def _write(self, study: Study, labels: np.ndarray, data: Mapping[Hashable, Any]) -> None:
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
        write_label_map(self.output_dir / f"{stem}.nii.gz", labels, native.affine, native.path)


def _array(volume: torch.Tensor) -> np.ndarray:
    return volume.detach().cpu().numpy()
