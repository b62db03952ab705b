"""Sliding windows: where they lie, how they are weighted and put together, and what memory they take."""

from medseg_ext.inferers.window.inferer import OUTSIDE_LOGIT, BoxWindowInferer

__all__ = ["OUTSIDE_LOGIT", "BoxWindowInferer"]
