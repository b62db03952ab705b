"""Measure a bundle's speed beside that of the program it is compared with, in one run on one machine.

    python scripts/benchmark.py lgg [--dataset_dir DIR/kaggle_3m] [--output results/benchmark.json]

Contenders run in turns and the medians are shown; "times as fast" compares within each round with the first row, whose
own figure is 1. All contenders run with the memory allocator's setting that the bundle uses, which helps the reference
too. A busy machine spoils the figures: the load average is shown with them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import benchmark_lgg
import torch
from benchmark_tools import Section, describe_machine, load_average, measure, print_result, write_report
from rich.console import Console

from medseg_ext.training import keep_freed_memory
from medseg_ext.workflow.run import one_line_errors

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"


@one_line_errors
def lgg(options: argparse.Namespace) -> None:
    """Measure the LGG bundle."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        scratch = Path(folder)
        dataset_dir = benchmark_lgg.collect_patients(options.dataset_dir, options.split_file, options.patients, scratch)
        steps = max(1, options.images // benchmark_lgg.reference.BATCH_SIZE)
        setting = benchmark_lgg.Setting(options.bundle.resolve(), dataset_dir, scratch, options.threads, steps)
        weights = options.reference_weights or benchmark_lgg.save_random_weights(scratch / "reference.pt")
        sections: dict[str, Callable[[], Section]] = {
            "training": lambda: benchmark_lgg.training_section(setting),
            "inference": lambda: benchmark_lgg.inference_section(setting, weights.resolve()),
            "first_mask": lambda: benchmark_lgg.first_mask_section(setting, weights.resolve()),
        }
        run_sections([sections[name] for name in options.sections], options)


def run_sections(sections: Sequence[Callable[[], Section]], options: argparse.Namespace) -> None:
    """Build, measure and show one section after the other, then write the report."""
    console = Console()
    machine = describe_machine(options.threads)
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
    load = load_average()
    if load is not None and load > 0.5:
        console.print(f"[yellow]load average {load:.2f}: other programs run, and the figures suffer from them")
    results = []
    for build in sections:
        results.append(measure(build(), options.repeats))
        print_result(results[-1], console)
    if options.output is not None:
        chosen = {key: str(value) for key, value in vars(options).items() if key != "function"}
        write_report(options.output, machine, chosen, results)
        console.print(f"every figure: {options.output}")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="lgg")
    command = commands.add_parser("lgg", help="2-D LGG bundle against brain-segmentation-pytorch")
    command.set_defaults(function=lgg)
    command.add_argument("--bundle", type=Path, default=BUNDLES / "lgg_2d_segmentation", help="the bundle's folder")
    command.add_argument("--dataset_dir", type=Path, help="folder kaggle_3m; phantoms without it")
    command.add_argument("--split_file", type=Path, help="use only the train patients of this file")
    command.add_argument("--patients", type=int, default=6, help="patients to measure with, 2 or more (6)")
    command.add_argument("--images", type=int, default=64, help="training images a round and contender (64)")
    command.add_argument("--reference_weights", type=Path, help="weights of reference_lgg.py; random ones without it")
    command.add_argument(
        "--sections",
        nargs="+",
        choices=("training", "inference", "first_mask"),
        default=["training", "inference", "first_mask"],
        help="what to measure (all)",
    )
    command.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the network (all)")
    command.add_argument("--output", type=Path, help="JSON file for every single figure")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    for name, least in (("patients", 2), ("images", 16), ("repeats", 1), ("threads", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: found {getattr(options, name)}, allowed {least} or more")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    options.function(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
