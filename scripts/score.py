"""Score a folder of masks, of whatever program, against the truth, and compare two such scorings patient by patient.

    python scripts/score.py masks --dataset_dir DIR/kaggle_3m --masks_dir MASKS --output_dir OUT
    python scripts/score.py compare OURS/metrics.csv THEIRS/metrics.csv [MORE_OURS MORE_THEIRS ...]

``masks`` writes the same metrics.csv, metrics.json, pictures and page as a bundle's ``evaluating``. ``compare`` prints
the mean difference a patient (first minus second) with its bootstrap interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medseg_ext.errors import InputError
from medseg_ext.layouts import Study, load_study
from medseg_ext.layouts.sequences import NIFTI_SUFFIXES, PICTURE_SUFFIXES
from medseg_ext.layouts.slices import slice_name
from medseg_ext.metrics.bootstrap import paired_difference
from medseg_ext.reports import StudyReportHandler
from medseg_ext.workflow import BatchPatients
from medseg_ext.workflow.run import one_line_errors


def find_mask(folder: Path, stem: str, suffixes: Sequence[str]) -> Path:
    """The file of that name in any of the formats that hold the same: a program may write PNG for TIFF.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [path for suffix in suffixes if (path := folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise InputError(found[0], f"a second mask, {found[1].name}", "one mask")
    if not found:
        raise InputError(folder / f"{stem}{suffixes[0]}", "no such file", f"a mask ({', '.join(suffixes)})")
    return found[0]


def predicted_study(study: Study, masks_dir: Path) -> Study:
    """The study with the masks of a folder, named as ``inferring`` names them, in place of its own.

    Raises:
        InputError: a mask is missing, or there are two.
    """
    if study.layout in {"kaggle", "slices"}:
        images = study.images[:: max(len(study.sequences), 1)]
        stems = [f"{slice_name(image, study.patient)}_mask" for image in images]
        folder = masks_dir / study.patient
        masks = [
            find_mask(folder, stem, [image.suffix, *(s for s in PICTURE_SUFFIXES if s != image.suffix.lower())])
            for stem, image in zip(stems, images, strict=True)
        ]
        return replace(study, masks=tuple(masks))
    tail = "" if study.layout == "nnunet" else "_mask"
    return replace(study, masks=(find_mask(masks_dir, f"{study.patient}{tail}", NIFTI_SUFFIXES),))


@one_line_errors
def score_masks(args: argparse.Namespace) -> int:
    """Score every patient of the split; returns the number that failed."""
    patients = BatchPatients(args.dataset_dir, args.output_dir, args.split_file, args.split, labels=True)
    handler = StudyReportHandler(
        args.output_dir, title=f"Masks of {args.masks_dir.name}, patients of {args.split}", errors=patients.failures
    )
    handler.start()
    for study in tqdm(patients.studies, desc="patients", unit="patient"):
        try:
            truth = load_study(study, masks="required")
            prediction = load_study(predicted_study(study, args.masks_dir), masks="required")
        except InputError as error:
            patients.failures.add(error, study.patient)
            continue
        assert truth.mask is not None and prediction.mask is not None  # masks="required" raises otherwise
        handler.add(
            {
                "patient": study.patient,
                "image": truth.image,
                "label": truth.mask[None],
                "pred": prediction.mask[None],
                "spacing": truth.spacing,
            }
        )
    handler.write()
    return len(patients.failures)


def read_pairs(files: list[Path], column: str) -> pd.DataFrame:
    """Join alternating first and second tables by patient; columns ``first`` and ``second``.

    Raises:
        InputError: a file is no such table, the patients differ, or one comes twice.
    """
    if len(files) % 2:
        raise InputError(files[-1], f"{len(files)} tables", "pairs of tables: FIRST SECOND [FIRST SECOND ...]")
    joined = []
    for first, second in zip(files[::2], files[1::2], strict=True):
        sides = [read_column(path, column) for path in (first, second)]
        if odd := sorted({*sides[0].index} ^ {*sides[1].index}):
            raise InputError(second, f"other patients than {first} ({', '.join(odd)})", "the same patients")
        joined.append(pd.DataFrame({"first": sides[0], "second": sides[1]}))
    table = pd.concat(joined)
    if table.index.duplicated().any():
        raise InputError(files[0], f"{table.index[table.index.duplicated()][0]} in two pairs", "each patient once")
    return table


def read_column(path: Path, column: str) -> pd.Series[float]:
    """One measure of a metrics.csv, by patient.

    Raises:
        InputError: the file is no such table, a patient comes twice, or lacks a number.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("patient")[column]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(path, f"no such table ({error})", f"a metrics.csv with patient and {column}") from error
    if table.index.duplicated().any():
        raise InputError(path, f"{table.index[table.index.duplicated()][0]} twice", "each patient once")
    numbers = pd.to_numeric(table, errors="coerce")
    without = [str(name) for name in numbers.index[~np.isfinite(numbers)]]
    if without or table.empty:
        # to leave them out would favour the side that has none where it is bad
        found = f"no {column} for {', '.join(without)}" if without else "no patient"
        raise InputError(path, found, "a number for every patient")
    return numbers


@one_line_errors
def compare(args: argparse.Namespace) -> int:
    """Print each patient's pair and the mean difference with its interval."""
    table = read_pairs(args.tables, args.column)
    table["difference"] = table["first"] - table["second"]
    print(table.to_string(float_format=lambda value: f"{value:.4f}"))
    result = paired_difference(table["first"].to_numpy(), table["second"].to_numpy())
    low, high = result["ci95"]
    print(
        f"{args.column}: mean {table['first'].mean():.4f} against {table['second'].mean():.4f}, paired difference "
        f"{result['mean']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {len(table)} patients"
    )
    return 0


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    masks = commands.add_parser("masks", help="score a folder of masks")
    masks.add_argument("--dataset_dir", type=Path, required=True, help="studies with their true masks")
    masks.add_argument("--masks_dir", type=Path, required=True, help="masks, named as a bundle's inferring names them")
    masks.add_argument("--output_dir", type=Path, required=True)
    masks.add_argument("--split_file", type=Path, help="needed unless --split is all")
    masks.add_argument("--split", default="all")
    masks.set_defaults(run=score_masks)
    pairs = commands.add_parser("compare", help="compare two scorings patient by patient")
    pairs.add_argument("tables", type=Path, nargs="+", help="FIRST SECOND [FIRST SECOND ...]: metrics.csv files")
    pairs.add_argument("--column", default="dice_reference_protocol")
    pairs.set_defaults(run=compare)
    args = parser.parse_args()
    sys.exit(1 if args.run(args) else 0)


if __name__ == "__main__":
    main()
