"""What the bundles' configs call: choose patients, load weights, run an engine, with one-line errors."""

from medseg_ext.workflow.failures import Failures
from medseg_ext.workflow.options import check_options
from medseg_ext.workflow.patients import BatchPatients, TrainingPatients
from medseg_ext.workflow.run import one_line_interrupts, run_engine
from medseg_ext.workflow.stream import PatientStream
from medseg_ext.workflow.weights import load_weights

__all__ = [
    "BatchPatients",
    "Failures",
    "PatientStream",
    "TrainingPatients",
    "check_options",
    "load_weights",
    "one_line_interrupts",
    "run_engine",
]
