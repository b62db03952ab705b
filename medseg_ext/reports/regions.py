"""What a report says of a patient whose tumour has several regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_ext.layouts.labels import REGIONS, get_convention, labels_from_regions
from medseg_ext.layouts.segmentations import COLOURS
from medseg_ext.metrics.bootstrap import Estimate
from medseg_ext.metrics.patient import Measure, Row
from medseg_ext.metrics.regions import (
    MEAN_DICE,
    region_measures,
    region_metrics,
    region_volumes,
    summarise_regions,
    surface_dice_name,
)
from medseg_ext.metrics.volumes import as_mask
from medseg_ext.reports.measures import StudyArrays, StudyMeasures, Tissue, format_value, label_of
from medseg_ext.reports.planes import PlanesSnapshot, draw_planes, take_planes

_NAMES = {"tc": "tumour core (TC)", "wt": "whole tumour (WT)", "et": "enhancing tumour (ET)"}


class RegionMeasures(StudyMeasures):
    """Overlapping regions of a tumour, (R, H, W, D) each, in space: overlap, surfaces, lesions, volumes; three cuts.

    Of a patient without a truth it gives the volumes alone.

    Args:
        channel_order: names of the image's channels, for the pictures.
        regions: names of the regions, in the order of the masks.
        tolerances: of the normalised surface Dice, in mm.
        convention: of label maps, as of the files that are written.
    """

    def __init__(
        self,
        channel_order: Sequence[str] = ("t1", "t1ce", "t2", "flair"),
        regions: Sequence[str] = REGIONS,
        tolerances: Sequence[float] = (1.0,),
        convention: str = "brats2023",
    ) -> None:
        self.channel_order = tuple(channel_order)
        self.regions = tuple(regions)
        self.tolerances = tuple(tolerances)
        self.convention = convention
        self.masks = [_NAMES.get(region, region.upper()) for region in self.regions]
        self.tissues = [
            Tissue(value, tissue, f"#{''.join(f'{round(255 * part):02x}' for part in COLOURS[tissue])}")
            for value, tissue in sorted(get_convention(convention).tissues.items())
        ]
        self._measures = region_measures(self.tolerances)
        self._derived = {
            "dice_where_present": Measure(
                "Dice where present", "", "over the patients whose truth holds the region", share=True
            ),
            "predicted_volume_ml_where_absent": Measure(
                "Predicted volume where absent", "ml", "over the patients whose truth lacks the region", decimals=2
            ),
        }
        self.columns: Mapping[str, Measure] = {"mean_dice": MEAN_DICE} | {
            f"{name}_{region}": measure._replace(region=region.upper())
            for name, measure in (self._measures | self._derived).items()
            for region in self.regions
        }
        self.headlines: Sequence[Sequence[str]] = (
            ("mean_dice", *(f"dice_{region}" for region in self.regions)),
            tuple(f"predicted_volume_ml_{region}" for region in self.regions),
        )
        # what fits a screen; the files hold everything
        surface_dice = [surface_dice_name(tolerance) for tolerance in self.tolerances]
        self._short = ("dice", "lesionwise_dice", "hd95_mm", *surface_dice, "volume_ml", "predicted_volume_ml")

    def measure(self, study: StudyArrays) -> Row:
        """The row of :func:`~medseg_ext.metrics.region_metrics`, or of its volumes."""
        spacing = study.spacing or ()  # which is refused by name
        if study.truth is None:
            return region_volumes(study.pred, spacing, regions=self.regions)
        return region_metrics(
            study.pred,
            study.truth,
            study.probability,
            spacing,
            study.image,
            regions=self.regions,
            tolerances=self.tolerances,
        )

    def caption(self, row: Row) -> str:
        """Dice and volumes, region by region."""
        predicted = ", ".join(f"{row[f'predicted_volume_ml_{region}']:.1f}" for region in self.regions)
        names = ", ".join(region.upper() for region in self.regions)
        if "mean_dice" not in row:
            return f"{names} predicted {predicted} ml"
        scores = ", ".join(f"{row[f'dice_{region}']:.3f}" for region in self.regions)
        truth = ", ".join(f"{row[f'volume_ml_{region}']:.1f}" for region in self.regions)
        return f"{names}: Dice {scores}; truth {truth} ml; predicted {predicted} ml"

    def score(self, row: Row) -> float:
        """Mean Dice over the regions."""
        return float(row.get("mean_dice", float("nan")))

    def summarise(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The estimates of :func:`~medseg_ext.metrics.summarise_regions`, and each patient's predicted volumes."""
        return summarise_regions(rows, regions=self.regions, tolerances=self.tolerances) | {
            "predicted_volumes_ml": {
                str(row["patient"]): {region: row[f"predicted_volume_ml_{region}"] for region in self.regions}
                for row in rows
            }
        }

    def estimates(self, aggregate: Mapping[str, Any]) -> dict[str, Estimate]:
        """By column, ``dice_tc`` and so on."""
        found: dict[str, Estimate] = {"mean_dice": aggregate["mean_dice"]} if "mean_dice" in aggregate else {}
        for name in self._measures | self._derived:
            found |= {f"{name}_{region}": estimate for region, estimate in aggregate.get(name, {}).items()}
        return found

    def counts(self, aggregate: Mapping[str, Any]) -> str:
        """Empty masks, region by region."""
        if not aggregate.get("scored"):
            return ""
        parts = [
            f"{region.upper()}: {aggregate['empty_truth'][region]} empty in truth, "
            f"{aggregate['empty_prediction'][region]} in prediction, {aggregate['both_empty'][region]} in both"
            for region in self.regions
        ]
        return f"{aggregate['scored']} patients with a truth. {'; '.join(parts)}."

    def protocols(self, aggregate: Mapping[str, Any]) -> dict[str, str]:
        """By measure, as it is the same for all regions."""
        measures = {"mean_dice": MEAN_DICE, **self._measures, **self._derived}
        return {name: measure.protocol for name, measure in measures.items() if name in aggregate}

    def printed(self, aggregate: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """A line a measure with the mean and, below it, its interval, a column a region."""
        estimates = self.estimates(aggregate)
        lines = []
        for measure in self._short:
            names = [f"{measure}_{region}" for region in self.regions]
            if not all(name in estimates for name in names):
                continue
            cells = []
            for name in names:
                low, high = (format_value(name, bound, self.columns) for bound in estimates[name]["ci95"])
                cells.append(f"{format_value(name, estimates[name]['mean'], self.columns)}\n{low} – {high}")
            lines.append((f"{label_of(measure, self._measures)}\nmean, 95 % CI", *cells))
        return [region.upper() for region in self.regions], lines

    def shown(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What fits a screen: Dice, distances and volumes."""
        names = ["mean_dice", *(f"{name}_{region}" for name in self._short for region in self.regions)]
        return [name for name in names if any(name in row for row in rows)]

    def snapshot(self, study: StudyArrays, caption: str) -> PlanesSnapshot:
        """Three cuts."""
        return take_planes(
            study.patient,
            study.image,
            study.pred,
            study.truth,
            study.spacing or (),
            channel_order=self.channel_order,
            regions=self.regions,
            caption=caption,
        )

    def draw(self, snapshot: PlanesSnapshot, path: Path) -> Path:
        """As PNG."""
        return draw_planes(snapshot, path)

    def label_map(self, masks: NDArray[Any]) -> NDArray[np.uint8]:
        """In the convention; a region besides those of BraTS has no value in any."""
        by_name = dict(zip(self.regions, as_mask(masks), strict=True))
        nothing = np.zeros(masks.shape[1:], bool)
        return labels_from_regions(np.stack([by_name.get(region, nothing) for region in REGIONS]), self.convention)
