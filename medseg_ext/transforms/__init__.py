"""Transforms that MONAI does not have: reading studies, normalising heads, augmenting slices, writing masks."""

from medseg_ext.transforms.augment import SliceAugmentation, augment_slice
from medseg_ext.transforms.components import KeepLesions, KeepLesionsd
from medseg_ext.transforms.load import LoadStudyd, ToStoredOrientationd
from medseg_ext.transforms.neighbours import neighbour_indices, stack_neighbours
from medseg_ext.transforms.normalize import NormalizeHead, NormalizeHeadd, head_box, head_threshold
from medseg_ext.transforms.save import SaveMaskd

__all__ = [
    "KeepLesions",
    "KeepLesionsd",
    "LoadStudyd",
    "NormalizeHead",
    "NormalizeHeadd",
    "SaveMaskd",
    "SliceAugmentation",
    "ToStoredOrientationd",
    "augment_slice",
    "head_box",
    "head_threshold",
    "neighbour_indices",
    "stack_neighbours",
]
