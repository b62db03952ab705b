"""Measure a bundle's speed beside that of the program it is compared with, in one run on one machine.

    python scripts/benchmark.py lgg [--dataset_dir DIR/kaggle_3m] [--output results/benchmark.json]
    python scripts/benchmark.py scaling [--bundle DIR] [--processes 1 2] [--trace FILE] [--output results/scaling.json]
    python scripts/benchmark.py brats [--case DIR] [--sections case ablation growth] [--output results/brats.json]

Contenders run in turns and the medians are shown; "times as fast" compares within each round with the first row, whose
own figure is 1. All contenders run with the memory allocator's setting that the bundle uses, which helps the reference
too. A busy machine spoils the figures: the load average is shown with them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import benchmark_brats
import benchmark_lgg
import benchmark_scaling
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


@one_line_errors
def brats(options: argparse.Namespace) -> None:
    """Measure the 3-D window."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        network = benchmark_brats.NetworkSetting(
            options.filters, options.stem_factor, weights=None if options.weights is None else str(options.weights)
        )
        data = os.environ.get("MEDSEG_DATA")
        case = options.case or (benchmark_brats.find_case(Path(data)) if data and not options.phantom else None)
        if case is None:
            image, truth = benchmark_brats.prepare_phantom(tuple(options.size), work)
        else:
            image, truth = benchmark_brats.prepare_case(case, work, options.truth)
        setting = benchmark_brats.Setting(
            image=image,
            network=network,
            threads=options.threads,
            device=options.device,
            work=work,
            patch=tuple(options.patch),
            zoo_window=tuple(options.zoo_window),
            timeout=options.timeout,
            same_process=options.same_process,
            truth=truth if options.truth else None,
            bundle=None if options.bundle is None else options.bundle.resolve(),
        )
        sections: dict[str, list[Callable[[], Section]]] = {
            "case": [lambda: benchmark_brats.case_section(setting, options.contenders)],
            "ablation": [lambda: benchmark_brats.ablation_section(setting)],
            "growth": benchmark_brats.growth_sections(setting, options.sizes, options.classes, options.classes_size),
        }
        run_sections([section for name in options.sections for section in sections[name]], options)


@one_line_errors
def scaling(options: argparse.Namespace) -> None:
    """Measure a training step in one process and in several."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        task = benchmark_scaling.Task(
            str(options.bundle.resolve()),
            folder,
            options.batch_size,
            options.steps,
            options.threads,
            "" if options.trace is None else str(options.trace.resolve()),
            options.timeout,
        )
        counts = sorted({1, 2, *options.processes})
        setting = benchmark_scaling.Setting(task, Path(folder), counts)
        sections: list[Callable[[], Section]] = [
            lambda: benchmark_scaling.measured_section(setting),
            lambda: benchmark_scaling.projected_section(setting, sorted({*options.projected} - {1, 2})),
        ]
        run_sections(sections, options)


def run_sections(sections: Sequence[Callable[[], Section]], options: argparse.Namespace) -> None:
    """Build, measure and show one section after the other, then write the report."""
    # a file has room for every heading
    console = Console(width=None if sys.stdout.isatty() else 160)
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
    commands = parser.add_subparsers(required=True, metavar="{lgg,brats,scaling}")
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
    _add_shared(command, repeats=3)

    command = commands.add_parser("brats", help="3-D window against MONAI's, nnU-Net's and OpenVINO")
    command.set_defaults(function=brats)
    command.add_argument("--case", type=Path, help="folder of a case; without it one of $MEDSEG_DATA, or a phantom")
    command.add_argument("--phantom", action="store_true", help="take the phantom even where there are real cases")
    command.add_argument("--truth", action="store_true", help="compare with the labels too, which scores the case")
    command.add_argument(
        "--size", type=int, nargs=3, default=[240, 240, 155], metavar="N", help="of the phantom (240 240 155)"
    )
    command.add_argument("--filters", type=int, default=16, help="initial filters of SegResNet (16)")
    command.add_argument("--stem_factor", type=int, default=1, help="of a space-to-depth stem before it (1: none)")
    command.add_argument("--weights", type=Path, help="weights of that network; random ones without it")
    command.add_argument("--bundle", type=Path, help="folder of a bundle, measured as it is shipped")
    command.add_argument(
        "--patch", type=int, nargs=3, default=[128, 128, 128], metavar="N", help="the smaller window (128 128 128)"
    )
    command.add_argument(
        "--zoo_window", type=int, nargs=3, default=[240, 240, 160], metavar="N", help="the model zoo's (240 240 160)"
    )
    command.add_argument(
        "--sections", nargs="+", choices=("case", "ablation", "growth"), default=["case", "ablation"],
        help="what to measure (case ablation)",
    )  # fmt: skip
    command.add_argument("--contenders", nargs="+", help="only these rows of the case, by their first words (all)")
    command.add_argument(
        "--sizes", type=int, nargs="*", default=[96, 128, 160, 192], help="edges of growth's volumes (96 128 160 192)"
    )
    command.add_argument("--classes", type=int, nargs="*", default=[1, 10, 50], help="classes of growth (1 10 50)")
    command.add_argument("--classes_size", type=int, default=128, help="edge of the volume for the classes (128)")
    command.add_argument("--work", type=Path, help="folder that keeps what was measured, to go on after a stop")
    command.add_argument("--timeout", type=float, default=3600.0, help="seconds a row may take (3600)")
    command.add_argument("--device", default="cpu", help="cpu, or a GPU as torch names it (cpu)")
    command.add_argument("--same_process", action="store_true", help="no process a row: quick, without peak memory")
    _add_shared(command, repeats=1)

    command = commands.add_parser("scaling", help="a bundle's training step in one process and in several")
    command.set_defaults(function=scaling)
    command.add_argument("--bundle", type=Path, default=BUNDLES / "lgg_2d_segmentation", help="the bundle's folder")
    command.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="how many; 1 and 2 are always measured (1 2)"
    )
    command.add_argument(
        "--projected", type=int, nargs="*", default=[4, 8, 16, 32, 64], help="how many to compute (4 8 16 32 64)"
    )
    command.add_argument("--batch_size", type=int, default=0, help="samples of a process and step (the config's)")
    command.add_argument("--steps", type=int, default=10, help="timed steps a round, of each kind (10)")
    command.add_argument("--trace", type=Path, help="JSON file for a profiler's trace of one step of most processes")
    command.add_argument(
        "--timeout", type=float, default=600.0, help="seconds that processes wait for each other (600)"
    )
    _add_shared(command, repeats=3)
    command.set_defaults(threads=1)
    return parser


def _add_shared(command: argparse.ArgumentParser, repeats: int) -> None:
    command.add_argument("--repeats", type=int, default=repeats, help=f"rounds ({repeats})")
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the network (all)")
    command.add_argument("--output", type=Path, help="JSON file for every single figure")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    bounds = {"patients": 2, "images": 16, "filters": 8, "repeats": 1, "threads": 1, "steps": 1, "batch_size": 0}
    for name, least in (bounds | {"processes": 1, "projected": 1}).items():
        value = getattr(options, name, least)
        if min(value if isinstance(value, list) else [value], default=least) < least:
            parser.error(f"--{name}: found {value}, allowed {least} or more")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    options.function(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
