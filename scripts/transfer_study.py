#!/usr/bin/env python
"""Measure whether transfer pays: target Dice by start and by share of the target's patients, and the distance.

    python scripts/transfer_study.py run bundles/brats_3d_segmentation/configs/experiments/transfer_study.yaml \\
        --lgg DIR/kaggle_3m --pieces PIECES --people DATA/brats/patients.csv --output OUT
    python scripts/transfer_study.py distance STUDY.yaml --weights OUT/sources/slices/all/training/model_last.pt \\
        --lgg DIR/kaggle_3m --pieces PIECES --people DATA/brats/patients.csv --output OUT
    python scripts/transfer_study.py report OUT

``run`` trains and scores every start at every share, fold and seed of the study on one budget, and goes on where it was
stopped. Sources are trained without anyone who is in both sets, or is held out. ``distance`` compares the two sets as
the encoder of the 2-D twin sees them. ``report`` writes OUT/rows.json, OUT/report.md and OUT/report.html; the others
end with it where a comparison is complete. PIECES are packed by scripts/brats_pieces.py; ``--people`` says who is in
both sets, by the columns brats2020 and lgg_folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from medseg_ext.experiments.distance import measure_distance
from medseg_ext.experiments.process import terminate_with_children
from medseg_ext.experiments.study import Study, part_of, read_people, read_study
from medseg_ext.experiments.study_report import paired_runs, read_results, write_report
from medseg_ext.experiments.study_run import RESULT, TransferStudy
from medseg_ext.layouts import read_split
from medseg_ext.workflow.run import one_line_errors

LGG = "lgg_2d_segmentation"


def split_of(args: argparse.Namespace, study: Study) -> Path:
    """The split file of the LGG patients."""
    return args.split_file or study.bundle.parent / LGG / "configs" / "split.json"


@one_line_errors
def run(args: argparse.Namespace) -> int:
    """Run a study; returns the exit status."""
    terminate_with_children()
    study = part_of(read_study(args.study), args.arms, args.shares, args.max_epochs)
    people = read_people(args.people)
    started = TransferStudy(study, args.lgg, split_of(args, study), args.pieces, people, args.output)
    runs = list(started.runs())
    left = sum(not (one.folder(started.output) / RESULT).exists() for one in runs)
    print(f"{len(runs)} trainings of the target, {left} to run", flush=True)
    failures = started.run()
    if any((args.output / "runs").rglob(RESULT)):
        _report_if_complete(args)
    return 1 if failures else 0


@one_line_errors
def distance(args: argparse.Namespace) -> int:
    """Measure how far the LGG slices are from the pieces."""
    study = read_study(args.study)
    split = read_split(split_of(args, study))
    path = measure_distance(
        study.bundle.parent / LGG,
        args.weights,
        args.lgg,
        split["train"],
        split["val"],
        args.pieces,
        study.kinds,
        read_people(args.people),
        args.output,
        args.permutations,
        {} if args.features is None else {"features": args.features},
    )
    print(path, flush=True)
    print(json.dumps(json.loads(path.read_text())["distances"], indent=1), flush=True)
    if any((args.output / "runs").rglob(RESULT)):
        _report_if_complete(args)
    return 0


def _report_if_complete(args: argparse.Namespace) -> None:
    arms = json.loads((args.output / "study.json").read_text())["arms"]
    if paired_runs(read_results(args.output), arms):
        report(args)


@one_line_errors
def report(args: argparse.Namespace) -> int:
    """Write the report of what has run."""
    for path in write_report(args.output):
        print(path, flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, metavar="run|distance|report")
    running = verbs.add_parser("run", help="train and score, or go on")
    measuring = verbs.add_parser("distance", help="compare the sets as an encoder sees them")
    for verb in (running, measuring):
        verb.add_argument("study", type=Path, metavar="STUDY.yaml")
        verb.add_argument("--lgg", type=Path, required=True, metavar="DIR", help="folder of the LGG patients")
        verb.add_argument("--pieces", type=Path, required=True, metavar="DIR", help="packed pieces")
        verb.add_argument("--people", type=Path, required=True, metavar="FILE.csv", help="who is in both sets")
        verb.add_argument("--output", type=Path, required=True, metavar="OUT")
        verb.add_argument("--split_file", type=Path, help="of the LGG patients; default: that of their bundle")
    running.add_argument("--arms", nargs="+", metavar="ARM", help="some of the ways to start (all)")
    running.add_argument("--shares", type=float, nargs="+", metavar="S", help="some of the shares (all)")
    running.add_argument("--max_epochs", type=int, metavar="N", help="another budget, in an OUT of its own")
    running.set_defaults(function=run)
    measuring.add_argument("--weights", type=Path, required=True, help="of the LGG bundle's twin")
    measuring.add_argument("--features", type=int, nargs="+", help="of the twin, where they are not those of twin.yaml")
    measuring.add_argument("--permutations", type=int, default=1000)
    measuring.set_defaults(function=distance)
    reporting = verbs.add_parser("report", help="write the report of what has run")
    reporting.add_argument("output", type=Path, metavar="OUT")
    reporting.set_defaults(function=report)
    args = parser.parse_args(arguments)
    return int(args.function(args))


if __name__ == "__main__":
    sys.exit(main())
