"""Segment and score a few studies with the shipped weights, and leave masks, pictures and a page with the numbers.

    python scripts/quickstart.py               phantom studies, drawn on the spot
    python scripts/quickstart.py --data DIR    the studies in DIR: with masks they are scored, without they get masks
    python scripts/quickstart.py --bundle brats_3d_segmentation [--data DIR]    the same with another bundle

It runs the bundle's own ``evaluating`` and ``inferring`` and prints the commands. The path of the page comes last.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg_ext.errors import InputError, print_error
from medseg_ext.layouts import (
    BRATS_CHANNELS,
    BRATS_RULES,
    LGG_CHANNELS,
    LGG_RULES,
    StudyRules,
    check_output_dir,
    find_studies,
)
from medseg_ext.layouts.splits import write_split
from medseg_ext.phantoms.__main__ import main as write_phantoms

ROOT = Path(__file__).resolve().parents[1]
EVALUATION = "['configs/inference.json','configs/evaluate.yaml']"
INFERENCE = "configs/inference.json"
PAGE = "summary.html"
FIRST_SEED = 1


@dataclass(frozen=True)
class Task:
    """What a bundle segments.

    Args:
        title: of the tour.
        layout: in which its phantoms are written. pattern: of what lies in their folder, a folder a phantom.
        channels: the sequences it takes.
        rules: what makes files a study.
        phantoms: further arguments of ``python -m medseg_ext.phantoms``.
        pages: whether each phantom gets a page of its own, where that takes no more than a second a phantom.
    """

    title: str
    layout: str
    pattern: str
    channels: tuple[str, ...]
    rules: StudyRules
    phantoms: tuple[str, ...] = ()
    pages: bool = False


TASKS = {
    "lgg_2d_segmentation": Task(
        "Segmentation of lower-grade gliomas on MRI",
        "kaggle",
        "kaggle_3m/PHANTOM_*",
        LGG_CHANNELS,
        LGG_RULES,
        pages=True,
    ),
    "brats_3d_segmentation": Task(
        "Segmentation of the regions of brain tumours on MRI",
        "brats2020",
        "PHANTOM20_*",
        BRATS_CHANNELS,
        BRATS_RULES,
        ("--kind", "high"),
    ),
}
DEFAULT = "lgg_2d_segmentation"


def say(text: str = "") -> None:
    """Print at once, so that the lines keep their place among those of the programs started."""
    print(text, flush=True)


def quoted(command: Sequence[str]) -> str:
    """A command to be pasted into a shell: in double quotes where those do, as they do on Windows too."""
    parts = []
    for part in command:
        plain = shlex.quote(part) == part or (os.name == "nt" and " " not in part)
        parts.append(part if plain else f'"{part}"' if not set(part) & set('"$`!\\') else shlex.quote(part))
    return " ".join(parts)


def make_folder(folder: Path) -> None:
    """Make the folder of the results.

    Raises:
        InputError: a file lies in the way, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, error.strerror or str(error), "a folder that can be made and written") from error


def bundle_folder(bundle: str) -> Path:
    """Where a bundle lies."""
    return ROOT / "bundles" / bundle


def draw_phantoms(folder: Path, count: int, bundle: str = DEFAULT) -> int:
    """Write phantom studies in a layout of the bundle's data; returns the exit status."""
    task = TASKS[bundle]
    for stale in folder.glob(task.pattern):
        shutil.rmtree(stale)
    arguments = ["--count", str(count), "--seed", str(FIRST_SEED), "--layout", task.layout, *task.phantoms]
    return write_phantoms([str(folder), *arguments])


def run_bundle(bundle: str, verb: str, config: str, data: Path, output: Path, *options: str) -> int:
    """Run one of a bundle's verbs as a person would, in the bundle's folder.

    Args:
        bundle: its name.
        verb: ``evaluating`` or ``inferring``.
        config: what ``--config_file`` is given.
        data: folder of studies, absolute.
        output: folder of the results, absolute.
        options: further ones.

    Returns:
        The exit status.
    """
    (output / PAGE).unlink(missing_ok=True)  # or a run that fails would end with the page of an earlier one
    arguments = ["-m", "monai.bundle", "run", verb, "--config_file", config]
    arguments += ["--dataset_dir", str(data), "--output_dir", str(output), *options]
    say(f"  in {bundle_folder(bundle)}:\n  {quoted(['python', *arguments])}\n")
    # Windows prints the tables' characters only in UTF-8
    return subprocess.run(
        [sys.executable, *arguments], cwd=bundle_folder(bundle), env=os.environ | {"PYTHONUTF8": "1"}
    ).returncode


def segment(data: Path, output: Path, bundle: str = DEFAULT, *further: str) -> tuple[int, list[Path]]:
    """Score the studies that have masks, and give masks to those that have none.

    Args:
        data: folder of studies.
        output: folder of the results; where only some studies have masks, the others' go to ``unscored`` in it.
        bundle: name of the bundle.
        further: options of the bundle where all studies have masks.

    Returns:
        The exit status, and the folders written to, the one to look at first at the end.

    Raises:
        InputError: no studies, or an output folder that is among them or cannot be made.
    """
    check_output_dir(output, data)
    studies, errors = find_studies(
        data, channel_order=TASKS[bundle].channels, masks="optional", rules=TASKS[bundle].rules
    )
    make_folder(output)
    with_masks = [study for study in studies if study.masks]
    without = [study for study in studies if not study.masks]
    say(f"  {counted(len(with_masks))} with masks, {counted(len(without))} without")
    if not with_masks:
        return run_bundle(bundle, "inferring", INFERENCE, data, output, "--overlays", "True"), [output]
    if not without:
        return run_bundle(bundle, "evaluating", EVALUATION, data, output, "--split", "all", *further), [output]
    sides = {"scored": [study.patient for study in with_masks], "unscored": [study.patient for study in without]}
    split_file = str(write_split(output / "split.json", sides))
    rest = output / "unscored"
    options = ("--overlays", "True", "--split_file", split_file, "--split", "unscored")
    status = run_bundle(bundle, "inferring", INFERENCE, data, rest, *options)
    status |= run_bundle(
        bundle, "evaluating", EVALUATION, data, output, "--split_file", split_file, "--split", "scored"
    )
    for error in errors:  # in neither part
        print_error(error)
    return status or int(bool(errors)), [rest, output]


def counted(count: int, kind: str = "") -> str:
    """As "1 study"."""
    return f"{count} {kind}{'study' if count == 1 else 'studies'}"


def report(folder: Path) -> None:
    """Say what lies where."""
    scored = (folder / "metrics.csv").is_file()
    say(f"  masks      {folder / 'masks' if scored else folder}")
    say(f"  pictures   {folder / 'overlays'}")
    if (folder / "reports").is_dir():
        say(f"  pages      {folder / 'reports'}, a study each, with a 3-D view")
    say(f"  numbers    {folder / ('metrics.csv' if scored else 'measurements.csv')} and .json")


def what_next(data: Path | None, bundle: str = DEFAULT) -> str:
    """Commands to try after this one, with the person's own folder where one was given."""
    run = [sys.executable, "-m", "monai.bundle", "run"]
    own = ["--dataset_dir", str(data or "DIR"), "--output_dir", "OUT"]
    commands = {
        "Masks": ["inferring", "--config_file", INFERENCE, *own],
        "Numbers": ["evaluating", "--config_file", EVALUATION, *own, "--split", "all"],
        "Training": ["training", "--config_file", "configs/train.json", *own, "--split_file", ""],
    }
    lines = [f"  {name:9} {quoted([*run, *command])}" for name, command in commands.items()]
    script = str(ROOT / "scripts" / "quickstart.sh")
    lines += [f"  {'Also':9} {quoted([script, '--bundle', name])}" for name in TASKS if name != bundle]
    head = "What to try next, with DIR and OUT as you like (the README says more):"
    return "\n".join([head, f"  First     {quoted(['cd', str(bundle_folder(bundle))])}", *lines])


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="quickstart", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle",
        choices=list(TASKS),
        default=DEFAULT,
        metavar="NAME",
        help=f"{' or '.join(TASKS)} (default: the first)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="your own studies, in place of phantoms")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the results go (default: results/quickstart in the repository, with --data quickstart-NAME there)",
    )
    parser.add_argument("--studies", type=int, default=4, metavar="N", help="phantoms to draw (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = parse(argv)
    try:
        own = args.data.resolve() if args.data else None
        stem = "quickstart" if args.bundle == DEFAULT else f"quickstart-{args.bundle}"
        default = ROOT / "results" / (f"{stem}-{own.name}" if own else stem)
        output = (args.output or default).resolve()
        say(f"{TASKS[args.bundle].title}, a short tour. Research use only, not for clinical use.\n")
        data = own or output / "phantoms"
        if own is None:
            make_folder(output)
            say(f"1. Drawing {counted(args.studies, 'phantom ')}: heads drawn by a program, with lesion and mask")
            if status := draw_phantoms(data, args.studies, args.bundle):
                return status
        else:
            say(f"1. Looking for studies in {data}")
        say("\n2. Running the bundle with its shipped weights")
        pages = ("--html_report", "True") if own is None and TASKS[args.bundle].pages else ()
        status, folders = segment(data, output, args.bundle, *pages)
        summaries = [folder / PAGE for folder in folders if (folder / PAGE).is_file()]
        if not summaries:
            return status or 1
        say("\n3. Done" if status == 0 else "\n3. Done in part: what failed is named above, nothing was written for it")
        for page in summaries:
            report(page.parent)
        say(f"\n{what_next(own, args.bundle)}\n\nSummary, to be opened in a browser:")
        for page in summaries:
            say(str(page))
    except InputError as error:
        print_error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
