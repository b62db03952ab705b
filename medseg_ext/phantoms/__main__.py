"""``python -m medseg_ext.phantoms DEST``: write phantom studies."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from medseg_ext.errors import print_error
from medseg_ext.phantoms.contrast import SEQUENCES
from medseg_ext.phantoms.phantom import make_phantom
from medseg_ext.phantoms.writers import BRATS_SEQUENCES, LGG_SEQUENCES, VOLUME_LAYOUTS, WRITERS, case_name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m medseg_ext.phantoms",
        description="Write procedural head-MRI studies with a lesion and its mask, in a data set's layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dest", type=Path, help="folder to write to")
    parser.add_argument("--layout", choices=sorted(WRITERS), default="kaggle", help="how the files lie")
    parser.add_argument("--count", type=int, default=4, help="studies")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first study; the next ones count on")
    parser.add_argument(
        "--sequences", nargs="+", choices=SEQUENCES, metavar="NAME", help=f"any of {' '.join(SEQUENCES)}; by the layout"
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, metavar=("H", "W", "D"), help="rows, columns, slices; by the layout"
    )
    parser.add_argument("--spacing", type=float, nargs=3, metavar="MM", help="voxel size in mm; by the shape")
    parser.add_argument("--kind", choices=("low", "high"), help="without or with enhancement; drawn by the seed")
    parser.add_argument("--volume", type=float, metavar="ML", help="volume of the lesion; drawn by the seed")
    parser.add_argument("--no-lesion", action="store_true", help="healthy heads")
    parser.add_argument(
        "--skull-stripped", action=argparse.BooleanOptionalAction, help="zero outside the brain; by the layout"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="put the studies into this part of DEST/split.json"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _update_split(path: Path, part: str, names: list[str]) -> None:
    """Add names to one part of a split file and take them out of the others."""
    split: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    if path.exists():
        split |= json.loads(path.read_text(encoding="utf-8"))
    for key in split:
        split[key] = [name for name in split[key] if name not in names]
    split[part] = sorted({*split[part], *names})
    path.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    volume = args.layout in VOLUME_LAYOUTS
    sequences = tuple(args.sequences or (BRATS_SEQUENCES if volume else LGG_SEQUENCES))
    shape = tuple(args.shape or ((240, 240, 155) if volume else (256, 256, 24)))
    spacing = args.spacing or ((1.0, 1.0, 1.0) if volume and not args.shape else None)
    stripped = volume if args.skull_stripped is None else args.skull_stripped
    names = []
    try:
        if args.count < 1 or args.seed < 0:
            raise ValueError(f"--count {args.count} --seed {args.seed}: allowed a count from 1 and a seed from 0")
        seeds = range(args.seed, args.seed + args.count)
        for seed in tqdm(seeds, desc="phantoms", unit="study", disable=args.quiet or None):
            phantom = make_phantom(
                seed,
                (shape[0], shape[1], shape[2]),
                tuple(spacing) if spacing else None,
                sequences,
                not args.no_lesion,
                kind=args.kind,
                volume_ml=args.volume,
                skull_stripped=stripped,
            )
            names.append(case_name(seed, args.layout))
            WRITERS[args.layout](phantom, args.dest, names[-1])
        if args.split:
            _update_split(args.dest / "split.json", args.split, names)
    except (ValueError, OSError) as error:
        print_error(error)
        return 1
    print(f"{len(names)} studies in {args.dest} (layout {args.layout}, sequences {' '.join(sequences)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
