"""What the bundles' configs call: choose patients, load weights, run an engine, with one-line errors."""

from medseg_ext.workflow.failures import Failures
from medseg_ext.workflow.join import join_processes, launched, leave_processes, process_device
from medseg_ext.workflow.label_server import served_weights, training_dir
from medseg_ext.workflow.options import check_options, devices
from medseg_ext.workflow.patients import BatchPatients, TrainingPatients, patient_names
from medseg_ext.workflow.records import CaseRecords
from medseg_ext.workflow.run import one_line_interrupts, run_engine
from medseg_ext.workflow.stream import PatientStream
from medseg_ext.workflow.weights import load_weights

__all__ = [
    "BatchPatients",
    "CaseRecords",
    "Failures",
    "PatientStream",
    "TrainingPatients",
    "check_options",
    "devices",
    "join_processes",
    "launched",
    "leave_processes",
    "load_weights",
    "one_line_interrupts",
    "patient_names",
    "process_device",
    "run_engine",
    "served_weights",
    "training_dir",
]
