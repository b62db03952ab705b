"""A page a study: pictures, a 3-D view, volumes, measures and provenance in one file that needs no network."""

from medseg_ext.reports.html.pages import StudyPages

__all__ = ["StudyPages"]
