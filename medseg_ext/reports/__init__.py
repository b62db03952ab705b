"""Numbers and pictures of an evaluation as files: tables, overlays, a page, and the handler that makes them."""

from medseg_ext.reports.files import write_atomically
from medseg_ext.reports.handler import StudyReportHandler
from medseg_ext.reports.overlays import Snapshot, draw_overlay, example_overlay, take_snapshot
from medseg_ext.reports.provenance import provenance, sha256
from medseg_ext.reports.summary import Picture, write_summary
from medseg_ext.reports.tables import write_csv, write_json

__all__ = [
    "Picture",
    "Snapshot",
    "StudyReportHandler",
    "draw_overlay",
    "example_overlay",
    "provenance",
    "sha256",
    "take_snapshot",
    "write_atomically",
    "write_csv",
    "write_json",
    "write_summary",
]
