"""What a reader finds (`Study`) and what it loads (`LoadedStudy`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.layouts.listing import ALLOWED_FOLDER

MaskMode = Literal["required", "optional", "ignore"]
MASK_MODES: tuple[MaskMode, ...] = ("required", "optional", "ignore")

#: Channels of the 3-D brain tumour bundle.
BRATS_CHANNELS = ("t1", "t1ce", "t2", "flair")

#: Channels asked for unless told otherwise, and the order in which an RGB slice of the LGG set holds them.
LGG_CHANNELS = ("t1", "flair", "t1ce")


class PatientError(InputError):
    """Bad input that concerns one patient of a batch.

    Args:
        path: the file or folder at fault.
        found: what is there.
        allowed: what would have been right.
        patient: the patient's name, so that an error can be told from those of patients nobody asked for.
    """

    def __init__(self, path: str | os.PathLike[str], found: str, allowed: str, patient: str = "") -> None:
        super().__init__(path, found, allowed)
        self.patient = patient

    def __reduce__(self) -> tuple[type[InputError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.path, self.found, self.allowed, self.patient)

    @classmethod
    def of(cls, error: InputError, patient: str) -> PatientError:
        """The same error with the patient's name."""
        if isinstance(error, cls) and error.patient:
            return error
        return cls(error.path, error.found, error.allowed, patient)


@dataclass(frozen=True)
class StudyRules:
    """What makes files a study that can be used.

    Args:
        required: canonical names of sequences without which it cannot; with none, any one sequence will do.
        mask_stems: whole file stems that are masks of the study they lie beside, whatever its own name.
        other_stems: ends of file stems that are no sequence, so that they do not pass for a misspelt one.
        dicom: whether DICOM series are read.
        allowed: what a folder may hold, for errors.
    """

    required: tuple[str, ...] = ("flair",)
    mask_stems: tuple[str, ...] = ()
    other_stems: tuple[str, ...] = ()
    dicom: bool = False
    allowed: str = ALLOWED_FOLDER


LGG_RULES = StudyRules()
#: The label map of BraTS20_Training_355 kept the name it had before the set was made; those of 2013 are OTMultiClass.
BRATS_RULES = StudyRules(
    required=(),
    mask_stems=("OTMultiClass", "W39_1998.09.19_Segm"),
    other_stems=("brainmask", "brain_mask", "brain-mask"),
    dicom=True,
    allowed="NIfTI files (one a sequence, or a 4-D stack), a set of nnU-Net or the Decathlon, or DICOM series",
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The files of one patient.

    Args:
        patient: name that outputs and tables go by.
        layout: ``kaggle``, ``slices``, ``nifti`` (one file a sequence), ``nifti-stack`` (one 4-D file), ``nnunet`` or
            ``dicom``.
        folder: where the files lie.
        images: files in order: slices by number (with one grey file a sequence: slice by slice, the sequences of each
            in the order of `sequences`); else one file a sequence (of a DICOM series its first), or the single stack.
        masks: files in the same order, one a slice or one a study; empty without a mask.
        sequences: canonical names of what the files hold; empty where the format leaves that to a named order (RGB
            slices: `LGG_CHANNELS`; stacks and nnU-Net cases without ``dataset.json``: ``nifti_channel_order``).
        conventions: label conventions that the layout leaves open, None where it says nothing (see `labels`).
        reference: the sequence whose grid results come back to, where the user chose a file of it; else the bundle's
            usual one.
    """

    patient: str
    layout: str
    folder: Path
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    sequences: tuple[str, ...] = ()
    conventions: tuple[str, ...] | None = None
    reference: str = ""

    @property
    def place(self) -> Path:
        """What an error of the whole study names: the folder that is its own, or its first file."""
        return self.folder if self.layout in {"kaggle", "slices", "dicom"} else self.images[0]


@dataclass
class LoadedStudy:
    """One patient's voxels in the canonical orientation.

    Rows run anterior to posterior, columns patient right to left, slices inferior to superior (axcodes P, L, S).
    Volumes may be views whose memory is not in C order.

    Args:
        study: the files it came from.
        image: float32, shape (C, H, W, D), intensities as stored (of NIfTI without fill, see `air`), channels as asked.
        mask: uint8 of 0 and 1, shape (H, W, D), or None.
        spacing: distance of rows, columns and slices in mm, None where the format holds none.
        affine: 4x4 from canonical voxel (row, column, slice) to the file's world in mm, None where there is none.
    """

    study: Study
    image: np.ndarray
    mask: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None
    affine: np.ndarray | None = None
