"""Procedural head MRI with a lesion: anatomy, contrast, scanner, and writers for the data sets' layouts."""

from medseg_ext.phantoms.anatomy import Tissue
from medseg_ext.phantoms.phantom import Phantom, best_threshold_dice, make_phantom
from medseg_ext.phantoms.writers import WRITERS, case_name

__all__ = ["WRITERS", "Phantom", "Tissue", "best_threshold_dice", "case_name", "make_phantom"]
