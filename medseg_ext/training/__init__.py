"""What training a bundle needs beside MONAI's engines."""

from medseg_ext.training.average import UpdateAverage
from medseg_ext.training.epochs import SetSamplerEpoch
from medseg_ext.training.memory import keep_freed_memory
from medseg_ext.training.patients import PatientCache, read_patients
from medseg_ext.training.progress import TrainingBar
from medseg_ext.training.slices import CountingSampler, LesionSliceDataset
from medseg_ext.training.state import TrainingState

__all__ = [
    "CountingSampler",
    "LesionSliceDataset",
    "PatientCache",
    "SetSamplerEpoch",
    "TrainingBar",
    "TrainingState",
    "UpdateAverage",
    "keep_freed_memory",
    "read_patients",
]
