"""Write a brain tumour segmentation in the space of its study: label map, segments for 3D Slicer, probabilities,
volumes.

Every file is there whole or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.files import write_atomically, write_beside
from medseg_ext.layouts.labels import REGIONS, get_convention, regions_from_labels
from medseg_ext.layouts.sequences import NIFTI_SUFFIXES, split_suffix
from medseg_ext.layouts.study import Study
from medseg_ext.layouts.volumes import image_like, open_volume

ALLOWED_OUTPUT = "a writable folder with room for the results"
#: Colours of the tissues, red, green and blue from 0 to 1.
COLOURS = {
    "necrosis": (0.80, 0.20, 0.20),
    "non-enhancing tumour": (0.35, 0.45, 0.95),
    "necrotic and non-enhancing core": (0.80, 0.20, 0.20),
    "edema": (0.35, 0.75, 0.35),
    "enhancing tumour": (1.00, 0.80, 0.20),
    "resection cavity": (0.45, 0.75, 0.95),
}
_HYPHENATED = re.compile(r".*-(t1c|t1n|t2f|t2w)")
_WHOLE = 255


def output_stem(study: Study) -> str:
    """The name of a study's label map without its suffix, as its data set names them.

    ``CASE_seg`` where files are ``CASE_t1ce``, ``CASE-seg`` where they are ``CASE-t1c`` (BraTS 2023 on), and ``CASE``
    in sets of nnU-Net and the Decathlon, whose label maps lie in a folder of their own.
    """
    if study.layout == "nnunet":
        return study.patient
    names = [split_suffix(path.name)[0] for path in study.images]
    hyphenated = study.layout == "nifti" and all(_HYPHENATED.fullmatch(name) for name in names)
    return f"{study.patient}{'-' if hyphenated else '_'}seg"


def label_map_files(study: Study, output_dir: str | Path) -> list[Path]:
    """Where a study's label map lies, which is written after all that goes with it."""
    return [Path(output_dir) / f"{output_stem(study)}.nii.gz"]


def volumes_ml(labels: np.ndarray, affine: np.ndarray, convention: str) -> dict[str, Any]:
    """Volumes of the regions and of the parts of a label map in ml.

    Args:
        labels: the map.
        affine: 4x4 of its voxels in mm.
        convention: of its values.
    """
    voxel = round(abs(float(np.linalg.det(affine[:3, :3]))) / 1000, 9)
    regions = regions_from_labels(labels, convention)
    tissues = get_convention(convention).tissues
    return {
        "regions_ml": {
            name: round(int(region.sum()) * voxel, 4) for name, region in zip(REGIONS, regions, strict=True)
        },
        "labels_ml": {
            str(value): round(int(np.count_nonzero(labels == value)) * voxel, 4) for value in sorted(tissues)
        },
        "voxel_ml": voxel,
        "convention": convention,
        "labels": {str(value): tissue for value, tissue in sorted(tissues.items())},
    }


def write_label_map(path: Path, labels: np.ndarray, affine: np.ndarray, like: Path) -> Path:
    """Write a label map as NIfTI.

    Args:
        path: where to; ``.nii.gz`` or ``.nii``.
        labels: uint8, shape (X, Y, Z), in the axes of `like`.
        affine: 4x4 in mm.
        like: the reference image. Of a NIfTI file both forms of the affine, their codes and the units are kept as they
            are; a DICOM series has none, so that `affine` is written.

    Raises:
        InputError: where it cannot be written.
    """
    return _save(path, _nifti(labels.astype(np.uint8, copy=False), affine, like))


def write_probabilities(path: Path, probabilities: np.ndarray, affine: np.ndarray, like: Path) -> Path:
    """Write the probabilities of the regions as one 4-D NIfTI file, (X, Y, Z, 3) in the order of `REGIONS`.

    They are stored in steps of 1/255, which readers scale back to 0 to 1: NIfTI knows no 16-bit floats, and 32-bit ones
    hardly compress.

    Args:
        path: where to.
        probabilities: 0 to 1, shape (3, X, Y, Z).
        affine, like: as in `write_label_map`.

    Raises:
        InputError: where it cannot be written.
    """
    steps = np.rint(np.clip(np.moveaxis(probabilities, 0, -1), 0, 1) * np.float32(_WHOLE)).astype(np.uint8)
    image = _nifti(steps, affine, like)
    # The 32-bit number nearest to 1/255 lies above it: 255 of it would be more than 1.
    image.header.set_slope_inter(float(np.nextafter(np.float32(1 / _WHOLE), np.float32(0))), 0)
    return _save(path, image)


def _nifti(array: np.ndarray, affine: np.ndarray, like: Path) -> nibabel.Nifti1Image:
    if split_suffix(like.name)[1] not in NIFTI_SUFFIXES:
        image = nibabel.Nifti1Image(np.ascontiguousarray(array), affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        return image
    return image_like(open_volume(like), array)


def _save(path: Path, image: nibabel.Nifti1Image) -> Path:
    with _reported(path), write_beside(path) as part:
        nibabel.save(image, part)
    return path


def write_slicer_segmentation(path: Path, labels: np.ndarray, affine: np.ndarray, convention: str) -> Path:
    """Write a label map as a segmentation of 3D Slicer, whose segments have names and colours.

    Fields as in https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html, with both names of
    the one that tells the representation, for Slicer 5.0 and before knew another.

    Args:
        path: where to; ends in ``.seg.nrrd``.
        labels: uint8, shape (X, Y, Z).
        affine: 4x4 in mm.
        convention: of the values.

    Raises:
        InputError: where it cannot be written.
    """
    import itk  # loading it takes seconds

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    # ITK indexes the last axis first.
    image = itk.image_from_array(np.ascontiguousarray(labels.T, dtype=np.uint8))
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    dictionary = image.GetMetaDataDictionary()
    for key, value in _slicer_fields(labels.shape, convention).items():
        dictionary[key] = value
    with _reported(path), write_beside(path) as part:
        try:
            itk.imwrite(image, str(part), compression=True)
        except RuntimeError as error:
            cause = str(error).strip().splitlines()[-1]
            raise InputError(path, f"an error of ITK ({cause})", ALLOWED_OUTPUT) from error
    return path


def _slicer_fields(shape: tuple[int, ...], convention: str) -> dict[str, str]:
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extent = " ".join(f"0 {size - 1}" for size in shape)
    for i, (value, tissue) in enumerate(sorted(get_convention(convention).tissues.items())):
        fields |= {
            f"Segment{i}_ID": f"{convention}_{value}",
            f"Segment{i}_Name": tissue,
            f"Segment{i}_NameAutoGenerated": "0",
            f"Segment{i}_Color": " ".join(f"{part:g}" for part in COLOURS[tissue]),
            f"Segment{i}_ColorAutoGenerated": "0",
            f"Segment{i}_LabelValue": str(value),
            f"Segment{i}_Layer": "0",
            f"Segment{i}_Extent": extent,
        }
    return fields


def write_volumes(path: Path, content: dict[str, Any]) -> Path:
    """Write the volumes of a study as JSON.

    Raises:
        InputError: where it cannot be written.
    """
    return write_atomically(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(path, error.strerror or str(error), ALLOWED_OUTPUT) from error
