"""Numbers and pictures of an evaluation as files: tables, overlays, a page, and the handler that makes them."""

from medseg_ext.reports.by_case import MetricByCase
from medseg_ext.reports.examples import ExampleOverlays
from medseg_ext.reports.handler import StudyReportHandler
from medseg_ext.reports.html import StudyPages
from medseg_ext.reports.measures import LesionMeasures, StudyArrays, StudyMeasures
from medseg_ext.reports.overlays import Snapshot, draw_overlay, example_overlay, take_snapshot
from medseg_ext.reports.planes import PlanesSnapshot, draw_planes, take_planes
from medseg_ext.reports.provenance import bundle_name, provenance, sha256
from medseg_ext.reports.regions import RegionMeasures
from medseg_ext.reports.summary import Picture, write_summary
from medseg_ext.reports.tables import write_csv, write_json

__all__ = [
    "ExampleOverlays",
    "LesionMeasures",
    "MetricByCase",
    "Picture",
    "PlanesSnapshot",
    "RegionMeasures",
    "Snapshot",
    "StudyArrays",
    "StudyMeasures",
    "StudyPages",
    "StudyReportHandler",
    "bundle_name",
    "draw_overlay",
    "draw_planes",
    "example_overlay",
    "provenance",
    "sha256",
    "take_planes",
    "take_snapshot",
    "write_csv",
    "write_json",
    "write_summary",
]
