"""Measure contenders in turns on a machine that is described beside the figures."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import monai
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from medseg_ext.files import write_beside

RELEVANT_FLAGS = ("amx_tile", "amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "fma")


@dataclass
class Contender:
    """Something whose speed is measured.

    Args:
        name: as in the table.
        run: does the work once and returns its figure, in the section's unit.
    """

    name: str
    run: Callable[[], float]


@dataclass
class Row:
    """All figures of one contender.

    Args:
        name: as in the table.
        values: one figure a round.
        speedup: median over the rounds of this contender's speed over that of the first, taken in the same round.
    """

    name: str
    values: list[float]
    speedup: float

    @property
    def median(self) -> float:
        """The median figure."""
        return median(self.values)


@dataclass
class Section:
    """Contenders of one kind of work; the first is the baseline.

    Args:
        title: what is measured.
        unit: of the figures.
        higher_is_better: False where the figures are times.
        contenders: in the order in which each round runs them.
        notes: what a reader must know to judge the figures.
        columns: asked after the last round for more figures: heading, then name of the contender, to figure.
        remarks: asked after the last round for more notes.
    """

    title: str
    unit: str
    higher_is_better: bool
    contenders: Sequence[Contender]
    notes: Sequence[str] = ()
    columns: Callable[[], Mapping[str, Mapping[str, float]]] = dict
    remarks: Callable[[], Sequence[str]] = list


@dataclass
class Result:
    """A measured section, with the load averages (1 minute) around it; figures of what failed are NaN."""

    title: str
    unit: str
    higher_is_better: bool
    rows: list[Row]
    notes: list[str]
    load_before: float | None
    load_after: float | None
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def measure(section: Section, repeats: int) -> Result:
    """Run all contenders in turns (A B C A B C ...), so that a change of the machine's load meets all of them.

    Args:
        section: what to run.
        repeats: number of rounds.
    """
    values: dict[str, list[float]] = {contender.name: [] for contender in section.contenders}
    before = load_average()
    with tqdm(total=repeats * len(section.contenders), desc=section.title, unit="run") as bar:
        for _ in range(repeats):
            for contender in section.contenders:
                bar.set_postfix_str(contender.name)
                values[contender.name].append(contender.run())
                bar.update()
    after = load_average()
    rows = rows_of(values, section.higher_is_better)
    notes = [*section.notes, *section.remarks()]
    return Result(section.title, section.unit, section.higher_is_better, rows, notes, before, after, section.columns())


def rows_of(values: dict[str, list[float]], higher_is_better: bool) -> list[Row]:
    """Compare each contender with the first, round by round."""
    baseline = next(iter(values.values()))
    return [
        Row(
            name,
            figures,
            median(own / base if higher_is_better else base / own for own, base in zip(figures, baseline, strict=True)),
        )
        for name, figures in values.items()
    ]


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def load_average() -> float | None:
    """Mean number of processes that wanted to run during the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def describe_machine(threads: int) -> dict[str, Any]:
    """What the figures depend on: processor, its instruction sets, threads, versions."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        pairs = (line.partition(":") for line in info.read_text().splitlines())
        entries = {key.strip(): value.strip() for key, _, value in pairs}
        model, flags = entries.get("model name", model), set(entries.get("flags", "").split())
    return {
        "processor": model,
        "flags": [flag for flag in RELEVANT_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def print_result(result: Result, console: Console) -> None:
    """Show one section as a table."""
    table = Table(title=result.title, title_justify="left", caption="\n".join(result.notes), caption_justify="left")
    table.add_column("", no_wrap=not result.columns)
    for heading in (f"{result.unit} (median)", "lowest", "highest", "times as fast", *result.columns):
        table.add_column(heading, justify="right", min_width=6)
    for row in result.rows:
        figures = (row.median, min(row.values), max(row.values))
        more = [f"{column[row.name]:.4g}" if row.name in column else "" for column in result.columns.values()]
        table.add_row(row.name, *(f"{figure:.3g}" for figure in figures), f"{row.speedup:.2f}", *more)
    console.print(table)
    if result.load_before is not None and result.load_after is not None:
        console.print(f"load average before {result.load_before:.2f}, after {result.load_after:.2f}\n")


def write_report(path: Path, machine: dict[str, Any], options: dict[str, Any], results: Sequence[Result]) -> None:
    """Write machine, options and every single figure as JSON."""
    sections = [
        asdict(result) | {"rows": [asdict(row) | {"median": row.median} for row in result.rows]} for result in results
    ]
    report = _without_nan({"machine": machine, "options": options, "sections": sections})
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as part:
        part.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    """The same with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
