"""What training a bundle needs beside MONAI's engines."""

from medseg_ext.training.accumulation import SyncOnStep
from medseg_ext.training.average import UpdateAverage
from medseg_ext.training.epochs import SetSamplerEpoch
from medseg_ext.training.gradients import ClipGradients
from medseg_ext.training.memory import keep_freed_memory
from medseg_ext.training.mosaic import MosaicDataset
from medseg_ext.training.normalization import FixNormalization, set_batch_norm_momentum
from medseg_ext.training.patches import LesionPatchDataset
from medseg_ext.training.patients import PatientCache, read_patients
from medseg_ext.training.pieces import (
    Piece,
    TrainingPieces,
    make_piece,
    pack_studies,
    read_pieces,
    whole_piece,
    write_piece,
)
from medseg_ext.training.progress import TrainingBar
from medseg_ext.training.restoration import RestorationBatch
from medseg_ext.training.slabs import SlabDataset
from medseg_ext.training.slices import CountingSampler, LesionSliceDataset
from medseg_ext.training.state import TrainingState
from medseg_ext.training.studies import piece_volumes, study_patches, study_volumes

__all__ = [
    "ClipGradients",
    "CountingSampler",
    "FixNormalization",
    "LesionPatchDataset",
    "LesionSliceDataset",
    "MosaicDataset",
    "PatientCache",
    "Piece",
    "RestorationBatch",
    "SetSamplerEpoch",
    "SlabDataset",
    "SyncOnStep",
    "TrainingBar",
    "TrainingPieces",
    "TrainingState",
    "UpdateAverage",
    "keep_freed_memory",
    "make_piece",
    "pack_studies",
    "piece_volumes",
    "read_patients",
    "read_pieces",
    "set_batch_norm_momentum",
    "study_patches",
    "study_volumes",
    "whole_piece",
    "write_piece",
]
