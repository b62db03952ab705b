"""Find and read data sets: Kaggle LGG, folders of slices, NIfTI, nnU-Net; write masks the way the images came."""

from medseg_ext.layouts.detect import find_studies, load_study, study_from_path
from medseg_ext.layouts.masks import check_output_dir, write_mask
from medseg_ext.layouts.sequences import canonical_channels, canonical_sequence
from medseg_ext.layouts.splits import (
    check_leakage,
    choose_patients,
    kfold,
    patient_group,
    read_split,
    seeded_split,
    select,
    write_split,
)
from medseg_ext.layouts.study import LGG_CHANNELS, LoadedStudy, PatientError, Study

__all__ = [
    "LGG_CHANNELS",
    "LoadedStudy",
    "PatientError",
    "Study",
    "canonical_channels",
    "canonical_sequence",
    "check_leakage",
    "check_output_dir",
    "choose_patients",
    "find_studies",
    "kfold",
    "load_study",
    "patient_group",
    "read_split",
    "seeded_split",
    "select",
    "study_from_path",
    "write_mask",
    "write_split",
]
