"""Score weights of the 3-D bundle on packed pieces of patients (lesion cubes, registered heads, cases of 2013).

    python scripts/score_pieces.py run PIECES --fold 3 --weights W.pt --output fold3.json
    python scripts/score_pieces.py run HEADS_OF_VAL --kinds head --weights W.pt --output val.json [--subsets]
    python scripts/score_pieces.py table fold0.json fold1.json ...      pools them

``run`` segments every piece as the bundle's ``inferring`` would, with the inferer and the post-processing of its
config (``--set NAME=VALUE`` changes a named value), and writes a row a piece, or with ``--subsets`` a row a piece and
a set of sequences. ``table`` prints means over pieces with bootstrap intervals. Of a piece whose truth lacks a region
no Dice of that region is counted; what was claimed there stands apart. What is not known of a piece is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser
from tqdm import tqdm

from medseg_ext.errors import InputError
from medseg_ext.files import read_json, write_atomically
from medseg_ext.layouts.labels import REGIONS
from medseg_ext.layouts.study import BRATS_CHANNELS
from medseg_ext.metrics import bootstrap_mean, dice
from medseg_ext.networks import fold_batch_norm
from medseg_ext.reports import sha256
from medseg_ext.training import keep_freed_memory, read_pieces, whole_piece
from medseg_ext.transforms import DropSmallLesions, ThresholdRegionsd
from medseg_ext.workflow import load_weights
from medseg_ext.workflow.run import one_line_errors

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "brats_3d_segmentation"
Row = dict[str, Any]


class Segmenter:
    """The bundle's network, inferer and post-processing.

    Args:
        weights: of the network.
        changes: named values of the config, by name.
    """

    def __init__(self, weights: Path, changes: dict[str, Any]) -> None:
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs" / "inference.json"))
        unknown = sorted(set(changes) - set(parser["options"]))
        if unknown:
            raise InputError("--set", ", ".join(unknown), ", ".join(sorted(parser["options"])))
        parser.update(changes)
        parser["bundle_root"] = str(BUNDLE)
        self.network: Any = parser.get_parsed_content("network")
        fold_batch_norm(load_weights(self.network, weights))
        self.inferer = parser.get_parsed_content("inferer")
        thresholds = parser["thresholds"]
        self.drop = DropSmallLesions(thresholds, parser["smallest_lesion"], parser["smallest_enhancing"])
        self.cut = ThresholdRegionsd("pred", thresholds)

    def __call__(self, image: torch.Tensor) -> np.ndarray:
        """Regions (3, H, W, D) bool of a normalised image (4, H, W, D) with voxels of 1 mm."""
        probability = torch.sigmoid(self.inferer(image[None], self.network)[0])
        regions: torch.Tensor = self.cut({"pred": self.drop(probability)})["pred"]
        return regions.numpy().astype(bool)


def subsets_of(present: Sequence[bool]) -> Iterator[tuple[str, ...]]:
    """Every non-empty set of the sequences that are there, the largest first."""
    there = [name for name, had in zip(BRATS_CHANNELS, present, strict=True) if had]
    for count in range(len(there), 0, -1):
        yield from itertools.combinations(there, count)


def row_of(regions: np.ndarray, item: Row, facts: Row) -> Row:
    """Dice and volumes in ml, region by region, over what is known."""
    row = dict(facts)
    for name, found, true, known in zip(
        REGIONS, regions, item["label"].numpy() > 0, item["known"].numpy(), strict=True
    ):
        found, true = found & known, true & known
        row[f"dice_{name}"] = dice(found, true) if true.any() else None
        row[f"volume_ml_{name}"] = int(true.sum()) / 1000
        row[f"predicted_volume_ml_{name}"] = int(found.sum()) / 1000
    return row


@one_line_errors
def run(args: argparse.Namespace) -> int:
    """Score pieces and write their rows."""
    keep_freed_memory()
    changes = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError("--set", text, "NAME=VALUE")
        changes[name] = yaml.safe_load(value)
    segment = Segmenter(args.weights, changes)
    pieces = [
        piece
        for piece in read_pieces(args.pieces, args.kinds)
        if (args.fold is None or piece.fold == args.fold) and piece.shape[2] > 1
    ]
    if not pieces:
        raise InputError(args.pieces, f"no pieces of fold {args.fold}", "a fold that the pieces name")
    rows = []
    for piece in tqdm(pieces, desc="pieces", unit="piece"):
        item = whole_piece(piece)
        sets = list(subsets_of(piece.present))
        for shown in sets if args.subsets else sets[:1]:
            keep = torch.tensor([name in shown for name in BRATS_CHANNELS])
            facts = {"piece": piece.name, "patient": piece.patient, "kind": piece.kind, "sequences": " ".join(shown)}
            rows.append(row_of(segment(item["image"] * keep.view(-1, 1, 1, 1)), item, facts))
    content = {"weights": sha256(args.weights), "set": changes, "fold": args.fold, "rows": rows}
    write_atomically(args.output, json.dumps(content, indent=1))
    print_table(rows)
    return 0


@one_line_errors
def table(args: argparse.Namespace) -> int:
    """Pool the rows of several files."""
    rows: list[Row] = []
    for path in args.files:
        content = read_json(path, "rows of score_pieces.py run")
        if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
            raise InputError(path, "no rows", "what score_pieces.py run writes")
        rows += content["rows"]
    print_table(rows, args.min_ml)
    return 0


def print_table(rows: Sequence[Row], least_ml: float = 0.0) -> None:
    """Means over pieces, a line a kind and a set of sequences."""
    has_subsets = len({row["piece"] for row in rows}) < len(rows)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["sequences"] if has_subsets else ""), []).append(row)
    head = [f"{name.upper()} Dice" for name in REGIONS] + [f"{name.upper()} claimed" for name in REGIONS]
    print("| kind | sequences | pieces | " + " | ".join(head) + " |")
    print("|---" * (3 + len(head)) + "|")
    for (kind, sequences), group in groups.items():
        cells = []
        for name in REGIONS:
            scores = [
                row[f"dice_{name}"]
                for row in group
                if row[f"dice_{name}"] is not None and row[f"volume_ml_{name}"] >= least_ml
            ]
            e = bootstrap_mean(scores)
            cells.append(
                f"{e['mean']:.3f} ({e['ci95'][0]:.3f}-{e['ci95'][1]:.3f}, n {e['n']}, median {e['median']:.3f})"
            )
        for name in REGIONS:
            claimed = [row[f"predicted_volume_ml_{name}"] for row in group if row[f"dice_{name}"] is None]
            cells.append(f"{np.mean(claimed):.2f} ml (n {len(claimed)})" if claimed else "")
        print(f"| {kind} | {sequences} | {len(group)} | " + " | ".join(cells) + " |")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    score = verbs.add_parser("run", help="segment and score pieces")
    score.add_argument("pieces", type=Path, help="folder as scripts/brats_pieces.py packs it")
    score.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt", help="default: the shipped ones")
    score.add_argument("--fold", type=int, help="pieces of this fold alone")
    score.add_argument("--kinds", nargs="+", help="default: all but single slices")
    score.add_argument("--subsets", action="store_true", help="with every non-empty set of a piece's sequences")
    score.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="named values of the config")
    score.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="a row a piece")
    score.set_defaults(run=run)
    pool = verbs.add_parser("table", help="pool what `run` wrote")
    pool.add_argument("files", nargs="+", type=Path)
    pool.add_argument("--min-ml", type=float, default=0.0, help="count a Dice where the truth has at least this volume")
    pool.set_defaults(run=table)
    args = parser.parse_args(argv)
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
