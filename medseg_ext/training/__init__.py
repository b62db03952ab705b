"""What training a bundle needs beside MONAI's engines."""

from medseg_ext.training.epochs import SetSamplerEpoch
from medseg_ext.training.memory import keep_freed_memory
from medseg_ext.training.slices import CountingSampler, LesionSliceDataset
from medseg_ext.training.state import TrainingState

__all__ = ["CountingSampler", "LesionSliceDataset", "SetSamplerEpoch", "TrainingState", "keep_freed_memory"]
