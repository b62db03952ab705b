"""Start a network from another one's weights: other names, sequences, regions and dimensions; freezing, step sizes."""

from medseg_ext.transfer.freezing import FreezeLayers
from medseg_ext.transfer.initializer import WeightInitializer, transfer_weights
from medseg_ext.transfer.layer_decay import layer_groups
from medseg_ext.transfer.names import match_names
from medseg_ext.transfer.report import Row, TransferReport
from medseg_ext.transfer.sources import Source, read_source

__all__ = [
    "FreezeLayers",
    "Row",
    "Source",
    "TransferReport",
    "WeightInitializer",
    "layer_groups",
    "match_names",
    "read_source",
    "transfer_weights",
]
