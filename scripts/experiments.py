#!/usr/bin/env python
"""Train and score a list of experiments on one budget, and report what helped and what did not.

    python scripts/experiments.py run bundles/lgg_2d_segmentation/configs/experiments/sweep.yaml \\
        --data DIR/kaggle_3m --output OUT
    python scripts/experiments.py report OUT

Each row of the list is an overlay of ``train.json``, or several, checked before anything runs. ``run`` trains it by
``monai.bundle run training`` with each seed, as an MLflow run of ``OUT/mlruns.db``, scores it on the list's split by
``evaluating``, and has it segment a phantom. It goes on where it was stopped; a row that fails does not stop the
others, and is tried again by the next call. ``report`` writes OUT/report.md and OUT/report.html of the runs that have
finished; ``run`` ends with that too.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from medseg_ext.errors import InputError
from medseg_ext.experiments.plan import Experiment, Plan, read_plan
from medseg_ext.experiments.process import terminate_with_children
from medseg_ext.experiments.report import write_report
from medseg_ext.experiments.sweep import Sweep
from medseg_ext.workflow.run import one_line_errors


def choose(plan: Plan, names: Sequence[str] | None) -> list[Experiment]:
    """Rows by name, the baseline first among them; all of them when no name is given.

    Raises:
        InputError: a name that is not in the list.
    """
    known = {row.name: row for row in plan.experiments}
    for name in names or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(plan.path, f"no experiment {name}", f"{', '.join(known)}{hint}")
    rows = [row for row in plan.experiments if names is None or row.name in names]
    return sorted(rows, key=lambda row: row is not plan.baseline)


@one_line_errors
def run(args: argparse.Namespace) -> int:
    """Run a list; returns the exit status."""
    terminate_with_children()
    plan = read_plan(args.list)
    rows = choose(plan, args.only)
    sweep = Sweep(plan, args.data, args.output, args.split_file, args.phantom)
    print(f"{len(rows)} experiments. Budget: {plan.describe_budget()}", flush=True)
    failures = sweep.run(rows)
    report(args)
    return 1 if failures else 0


@one_line_errors
def report(args: argparse.Namespace) -> int:
    """Write the report of what has run."""
    for path in write_report(args.output):
        print(path, flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, metavar="run|report")
    running = verbs.add_parser("run", help="train and score, or go on")
    running.add_argument("list", type=Path, metavar="LIST.yaml")
    running.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of studies with masks")
    running.add_argument("--output", type=Path, required=True, metavar="OUT")
    running.add_argument("--split_file", type=Path, help="patients by side; default: the bundle's configs/split.json")
    running.add_argument("--only", nargs="+", metavar="NAME", help="these rows of the list")
    running.add_argument(
        "--phantom", type=int, nargs=3, default=(256, 256, 24), metavar=("H", "W", "D"), help="size of the example"
    )
    running.set_defaults(function=run)
    reporting = verbs.add_parser("report", help="write the report of what has run")
    reporting.add_argument("output", type=Path, metavar="OUT")
    reporting.set_defaults(function=report)
    args = parser.parse_args(arguments)
    return int(args.function(args))


if __name__ == "__main__":
    sys.exit(main())
