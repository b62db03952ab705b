"""What a report says of a patient: which numbers, what they are called, how they add up, and what is drawn.

The handler collects, writes and lays out; everything that depends on the task stands here, so that another task is
another :class:`StudyMeasures`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_ext.metrics.bootstrap import Estimate
from medseg_ext.metrics.patient import MEASURES, Measure, Row, patient_areas, patient_metrics, summarise
from medseg_ext.metrics.volumes import as_mask
from medseg_ext.reports.overlays import PREDICTION_COLOUR, Snapshot, draw_overlay, take_snapshot


@dataclass(frozen=True)
class StudyArrays:
    """A patient as an evaluator yields it, as numpy arrays.

    Attributes:
        patient: name.
        image: (C, H, W, D) original intensities.
        pred: binary prediction, (H, W, D), or (R, H, W, D) of several regions.
        truth: of the prediction's shape; None where there is none.
        probability: of the prediction's shape; None where there is none.
        spacing: (row, column, slice) in mm; None where it is not known.
    """

    patient: str
    image: NDArray[Any]
    pred: NDArray[Any]
    truth: NDArray[Any] | None = None
    probability: NDArray[Any] | None = None
    spacing: tuple[float, ...] | None = None


class Tissue(NamedTuple):
    """A value of a label map: what it is called, and its colour as ``#rrggbb``."""

    value: int
    name: str
    colour: str


class StudyMeasures(ABC):
    """What is measured of a patient, how it is called and summarised, and what a picture of the patient shows.

    Attributes:
        columns: every measure of a row or an aggregate, by its name, in the order of the tables.
        headlines: names of what stands in large print on the page; the first group that has any is taken.
        masks: what the masks of a prediction or a truth are of, in their order.
        tissues: the values of :meth:`label_map` but for 0.
    """

    columns: Mapping[str, Measure]
    headlines: Sequence[Sequence[str]]
    masks: Sequence[str]
    tissues: Sequence[Tissue]

    @abstractmethod
    def measure(self, study: StudyArrays) -> Row:
        """The row of a patient, without the name; of one without a truth, what can be said all the same.

        Raises:
            ValueError: arrays that do not fit each other.
        """

    @abstractmethod
    def caption(self, row: Row) -> str:
        """The row in a line, for the patient's picture."""

    @abstractmethod
    def score(self, row: Row) -> float:
        """By which patients are put in order, higher is better; NaN without a truth."""

    @abstractmethod
    def summarise(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the rows come to, for the JSON file, with ``patients`` and ``scored``."""

    @abstractmethod
    def estimates(self, aggregate: Mapping[str, Any]) -> dict[str, Estimate]:
        """The estimates in an aggregate, by column."""

    @abstractmethod
    def counts(self, aggregate: Mapping[str, Any]) -> str:
        """A sentence on how many patients were scored and how many masks were empty."""

    @abstractmethod
    def protocols(self, aggregate: Mapping[str, Any]) -> dict[str, str]:
        """How each measure of an aggregate came about."""

    @abstractmethod
    def printed(self, aggregate: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The table that is printed in the end: the headings beside the first, empty one, and the lines."""

    @abstractmethod
    def snapshot(self, study: StudyArrays, caption: str) -> Any:
        """Little enough to be kept of every patient, and what :meth:`draw` needs."""

    @abstractmethod
    def draw(self, snapshot: Any, path: Path) -> Path:
        """Draw a picture as PNG.

        Raises:
            InputError: the file cannot be written.
        """

    @abstractmethod
    def label_map(self, masks: NDArray[Any]) -> NDArray[np.uint8]:
        """The masks of a prediction or a truth as one (H, W, D) map of the values of ``tissues``."""

    def shown(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """The columns that the page's table of patients has."""
        return [name for name in self.columns if any(name in row for row in rows)]


class LesionMeasures(StudyMeasures):
    """One lesion mask in slices that may be thick: overlap, in-plane distances, areas; montages of slices.

    Args:
        flair_channel: the channel drawn.
    """

    columns: Mapping[str, Measure] = MEASURES
    headlines: Sequence[Sequence[str]] = (
        ("dice", "dice_reference_protocol", "iou", "hd95_px"),
        ("predicted_volume_ml", "predicted_area_px"),
    )
    masks: Sequence[str] = ("lesion",)
    tissues: Sequence[Tissue] = (Tissue(1, "lesion", PREDICTION_COLOUR),)

    def __init__(self, flair_channel: int = 1) -> None:
        self.flair_channel = flair_channel

    def measure(self, study: StudyArrays) -> Row:
        if study.truth is None:
            return patient_areas(study.pred, study.spacing)
        return patient_metrics(study.pred, study.truth, study.probability, study.image, study.spacing)

    def caption(self, row: Row) -> str:
        predicted = f"predicted {_size(row, 'predicted_')}"
        return f"Dice {row['dice']:.3f}, truth {_size(row, '')}, {predicted}" if "dice" in row else predicted

    def score(self, row: Row) -> float:
        return float(row.get("dice", float("nan")))

    def summarise(self, rows: Sequence[Row]) -> dict[str, Any]:
        return summarise(rows)

    def estimates(self, aggregate: Mapping[str, Any]) -> dict[str, Estimate]:
        return {name: aggregate[name] for name in self.columns if name in aggregate}

    def counts(self, aggregate: Mapping[str, Any]) -> str:
        if not aggregate.get("scored"):
            return ""
        return (
            f"{aggregate['scored']} patients with a truth, of which {aggregate['empty_truth']} empty; "
            f"{aggregate['empty_prediction']} empty predictions. "
        )

    def protocols(self, aggregate: Mapping[str, Any]) -> dict[str, str]:
        return {name: measure.protocol for name, measure in self.columns.items() if name in aggregate}

    def printed(self, aggregate: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        lines = []
        for name, estimate in self.estimates(aggregate).items():
            if name == "n_slices":
                continue
            low, high = (format_value(name, bound) for bound in estimate["ci95"])
            mean, median = format_value(name, estimate["mean"]), format_value(name, estimate["median"])
            lines.append((label_of(name), mean, median, f"{low} – {high}"))
        return ("mean", "median", "95 % CI"), lines

    def snapshot(self, study: StudyArrays, caption: str) -> Snapshot:
        return take_snapshot(
            study.patient,
            study.image,
            study.pred,
            study.truth,
            channel=self.flair_channel,
            spacing=study.spacing,
            caption=caption,
        )

    def draw(self, snapshot: Snapshot, path: Path) -> Path:
        return draw_overlay(snapshot, path)

    def label_map(self, masks: NDArray[Any]) -> NDArray[np.uint8]:
        return as_mask(masks).astype(np.uint8)


def format_value(name: str, value: Any, columns: Mapping[str, Measure] = MEASURES) -> str:
    """A measure as the page and the printed table show it; a dash where it is not defined."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    decimals = columns[name].decimals
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if decimals == 0 else f"{value:.{decimals}f}"


def label_of(name: str, columns: Mapping[str, Measure] = MEASURES) -> str:
    """A measure's label with its region and its unit."""
    measure = columns[name]
    label = " ".join(part for part in (measure.label, measure.region) if part)
    return f"{label} [{measure.unit}]" if measure.unit else label


def _size(row: Row, prefix: str) -> str:
    volume = row.get(f"{prefix}volume_ml")
    return f"{row[f'{prefix}area_px']:,} px" if volume is None else f"{volume:.1f} ml"
