"""Find and read data sets: Kaggle LGG, folders of slices, BraTS, NIfTI, nnU-Net, DICOM; write masks as images came."""

from medseg_ext.layouts.aligned import AlignedStudy, load_aligned
from medseg_ext.layouts.detect import find_studies, load_study, study_from_files, study_from_path
from medseg_ext.layouts.labels import CONVENTIONS, REGIONS, labels_from_regions, regions_from_labels
from medseg_ext.layouts.masks import check_output_dir, mask_files, write_mask
from medseg_ext.layouts.segmentations import label_map_files
from medseg_ext.layouts.sequences import canonical_channels, canonical_sequence
from medseg_ext.layouts.splits import (
    check_leakage,
    choose_patients,
    kfold,
    patient_group,
    read_split,
    seeded_split,
    select,
    share_of_patients,
    write_split,
)
from medseg_ext.layouts.study import (
    BRATS_CHANNELS,
    BRATS_RULES,
    LGG_CHANNELS,
    LGG_RULES,
    LoadedStudy,
    PatientError,
    Study,
    StudyRules,
)

__all__ = [
    "BRATS_CHANNELS",
    "BRATS_RULES",
    "CONVENTIONS",
    "LGG_CHANNELS",
    "LGG_RULES",
    "REGIONS",
    "AlignedStudy",
    "LoadedStudy",
    "PatientError",
    "Study",
    "StudyRules",
    "canonical_channels",
    "canonical_sequence",
    "check_leakage",
    "check_output_dir",
    "choose_patients",
    "find_studies",
    "kfold",
    "label_map_files",
    "labels_from_regions",
    "load_aligned",
    "load_study",
    "mask_files",
    "patient_group",
    "read_split",
    "regions_from_labels",
    "seeded_split",
    "select",
    "share_of_patients",
    "study_from_files",
    "study_from_path",
    "write_mask",
    "write_split",
]
