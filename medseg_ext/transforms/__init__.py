"""Transforms that MONAI does not have: reading studies, normalising heads, augmenting slices, writing masks."""

from medseg_ext.transforms.augment import SliceAugmentation, augment_slice
from medseg_ext.transforms.augment_volume import VolumeAugmentation, change_intensities, cut_patch, draw_matrix
from medseg_ext.transforms.components import KeepLesions, KeepLesionsd
from medseg_ext.transforms.implant import Implantation, implant_lesion
from medseg_ext.transforms.load import LoadStudyd, ToStoredOrientationd
from medseg_ext.transforms.load_sequences import LoadSequencesd
from medseg_ext.transforms.neighbours import neighbour_indices
from medseg_ext.transforms.normalize import NormalizeHead, NormalizeHeadd, head_box, head_threshold
from medseg_ext.transforms.restore import RegionsToLabelsd, RestoreRegionsd, ThresholdRegionsd
from medseg_ext.transforms.save import SaveMaskd
from medseg_ext.transforms.save_segmentation import SaveSegmentationd
from medseg_ext.transforms.small_lesions import DropSmallLesions, DropSmallLesionsd
from medseg_ext.transforms.truth import encode_truth, target_from_truth
from medseg_ext.transforms.zscore import ZScoreHead, ZScoreHeadd

__all__ = [
    "DropSmallLesions",
    "DropSmallLesionsd",
    "Implantation",
    "KeepLesions",
    "KeepLesionsd",
    "LoadSequencesd",
    "LoadStudyd",
    "NormalizeHead",
    "NormalizeHeadd",
    "RegionsToLabelsd",
    "RestoreRegionsd",
    "SaveMaskd",
    "SaveSegmentationd",
    "SliceAugmentation",
    "ThresholdRegionsd",
    "ToStoredOrientationd",
    "VolumeAugmentation",
    "ZScoreHead",
    "ZScoreHeadd",
    "augment_slice",
    "change_intensities",
    "cut_patch",
    "draw_matrix",
    "encode_truth",
    "head_box",
    "head_threshold",
    "implant_lesion",
    "neighbour_indices",
    "target_from_truth",
]
