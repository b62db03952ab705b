"""Draw a few slices of a phantom with the outlines of truth and prediction, small enough for a README.

python scripts/quickstart.py --output OUT
python scripts/phantom_picture.py OUT bundles/lgg_2d_segmentation/docs/phantom_overlay.png
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from medseg_ext.errors import InputError
from medseg_ext.layouts import find_studies, load_study
from medseg_ext.reports.overlays import draw_overlay, take_snapshot
from medseg_ext.workflow.run import one_line_errors


@one_line_errors
def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="output folder of scripts/quickstart.py")
    parser.add_argument("picture", type=Path, help="the PNG file")
    parser.add_argument("--study", type=int, default=0, help="which phantom, from 0 (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=6, help="slices shown at the most (default: %(default)s)")
    args = parser.parse_args()
    studies, _ = find_studies(args.results / "phantoms", masks="required")
    if not 0 <= args.study < len(studies):
        raise InputError(args.results, f"--study {args.study}", f"0 to {len(studies) - 1}")
    study = studies[args.study]
    masks = tuple(args.results / "masks" / study.patient / mask.name for mask in study.masks)
    loaded, prediction = load_study(study), load_study(replace(study, masks=masks)).mask
    snapshot = take_snapshot("Phantom", loaded.image, prediction, loaded.mask, caption="FLAIR", max_slices=args.slices)
    with Image.open(draw_overlay(snapshot, args.picture)) as drawn:
        # a third of the bytes, and nothing to be seen of it; by coverage, or thin lines lose their colours to the greys
        few_colours = drawn.convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE)
    few_colours.save(args.picture, optimize=True)
    print(args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
