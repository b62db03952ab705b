"""The report of a sweep: every sentence in it comes from the numbers of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.experiments.document import Document, save_figure
from medseg_ext.experiments.plan import GROUPS, REFERENCE
from medseg_ext.experiments.sweep import RESULT, SWEEP
from medseg_ext.files import read_json
from medseg_ext.metrics.bootstrap import bootstrap_mean
from medseg_ext.metrics.comparison import CORRECTION, LEVEL, Comparison, compare_with_baseline

Result = dict[str, Any]
MEASURE = "dice"


def read_results(output: Path) -> dict[str, list[Result]]:
    """Results by row, of each seed; rows in the order of groups.

    Raises:
        InputError: there is none.
    """
    files = sorted((output / "runs").glob(f"*/seed_*/{RESULT}"))
    results = [read_json(path, "what a sweep writes") for path in files]
    if not results:
        raise InputError(output, "no finished run", "the output folder of a sweep")
    rows: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: (GROUPS.index(r["group"]), r["name"], r["seed"])):
        rows.setdefault(result["name"], []).append(result)
    return rows


def patient_means(results: Sequence[Result], measure: str = MEASURE) -> dict[str, float]:
    """A measure by patient, the mean over the seeds."""
    patients = results[0]["patients"]
    return {p: float(np.mean([r["patients"][p][measure] for r in results])) for p in patients}


def compare_by_group(rows: Mapping[str, Sequence[Result]], base: str) -> dict[str, Comparison]:
    """Each row against the baseline; each group of rows asks a question of its own, and is corrected by itself."""
    found: dict[str, Comparison] = {}
    for group in GROUPS:
        family = {name: patient_means(r) for name, r in rows.items() if r[0]["group"] == group or name == base}
        found |= compare_with_baseline(family, base)
    return found


def findings(rows: Mapping[str, Sequence[Result]], compared: Mapping[str, Comparison]) -> dict[str, list[str]]:
    """Sentences by verdict: what helped, what did not, and what the numbers do not tell."""
    said: dict[str, list[str]] = {}
    for name, c in sorted(compared.items(), key=lambda item: -item[1].mean):
        line = (
            f"{name} ({rows[name][0]['group']}): {c.mean:+.3f} ({c.low:+.3f} to {c.high:+.3f}), "
            f"corrected p {c.p_corrected:.3f}"
        )
        said.setdefault(c.verdict, []).append(line)
    return said


def write_report(output: Path) -> tuple[Path, Path]:
    """Write ``report.md``, ``report.html`` and ``figures/`` of a sweep's finished runs.

    Raises:
        InputError: no run has finished, the baseline is missing, or a file cannot be written.
    """
    sweep = read_json(output / SWEEP, "what a sweep writes")
    rows = read_results(output)
    base = sweep["baseline"]
    if base not in rows:
        raise InputError(output, f"no finished run of the baseline, {base}", "a sweep whose baseline has run")
    scores = {name: patient_means(results) for name, results in rows.items()}
    compared = compare_by_group(rows, base)
    document = Document(f"Experiments of {sweep['bundle']}")
    document.text(_describe(sweep, rows, base))
    document.heading("What helped and what did not")
    _add_findings(document, rows, compared, base)
    document.heading("Dice")
    document.table(*_table(rows, scores, compared, base))
    document.text(_footnote(rows))
    figures = output / "figures"
    figures.mkdir(exist_ok=True)
    for path, caption in (
        (_draw_differences(figures / "differences.png", rows, compared, base), "Difference of Dice to the baseline"),
        (
            _draw_curves(figures / "curves.png", rows, base),
            "Curves of the first seed; a loss compares with its own kind alone",
        ),
    ):
        document.picture(path, caption, output)
    document.heading("Examples")
    document.text("A head drawn by a program, as each row segments it; no patient is shown.")
    for name, results in rows.items():
        folder = output / "runs" / name / f"seed_{results[0]['seed']}" / "example" / "overlays"
        for path in sorted(folder.glob("*.png"))[:1]:
            document.picture(path, name, output)
    return document.write(output / "report")


def _describe(sweep: Mapping[str, Any], rows: Mapping[str, Sequence[Result]], base: str) -> str:
    budget = sweep["budget"]
    samples = budget["max_epochs"] * budget["samples_per_epoch"]
    best = sweep["weights"] == "model_best.pt"
    patients = len(rows[base][0]["patients"])
    chosen = "those of the last step"
    if best:
        chosen = "chosen on the patients that are scored here, which flatters each row"
    return (
        f"Budget of each run: {samples:,} training samples, {budget['max_epochs']} epochs of "
        f"{budget['samples_per_epoch']:,} in batches of {budget['batch_size']}; learning rates and other values are "
        "those of the overlays, tuned for no row. "
        f"Scored on the {patients} patients of {sweep['split']}; weights: {chosen}. Dice of a patient's whole volume, "
        "the mean over the seeds; intervals: 95 %, bootstrap over patients, which does not cover what another seed "
        f"would have given.{_chance(rows[base])} Rows are compared patient by patient with "
        f"the baseline, {base}: bootstrap of the paired difference, and Wilcoxon's signed-rank test, its p corrected "
        f"for the rows of its group by {CORRECTION}. Better or worse needs an interval without 0 and a corrected p of "
        f"{LEVEL} or less; perhaps, the interval alone."
    )


def _chance(results: Sequence[Result]) -> str:
    """What another seed alone changes."""
    if len(results) == 1:
        return ""
    means = sorted(float(np.mean(list(patient_means([r]).values()))) for r in results)
    return (
        f" The baseline by itself has {', '.join(f'{m:.3f}' for m in means)} with {len(means)} seeds: differences of "
        f"up to {means[-1] - means[0]:.3f} are within what chance makes."
    )


def _add_findings(
    document: Document, rows: Mapping[str, Sequence[Result]], compared: Mapping[str, Comparison], base: str
) -> None:
    said = findings(rows, compared)
    titles = {
        "better": "Better than the baseline:",
        "perhaps better": "Perhaps better (the corrected test does not bear it out):",
        "no difference shown": "No difference shown, which is not the same as none:",
        "perhaps worse": "Perhaps worse (the corrected test does not bear it out):",
        "worse": "Worse than the baseline:",
    }
    if not said:
        document.text("Nothing to compare yet: the baseline alone has run.")
    for verdict, title in titles.items():
        if verdict in said:
            document.text(title)
            document.items(said[verdict])
    groups = [rows[name][0]["group"] for name in compared]
    for group in dict.fromkeys(groups):
        n = min(compared[name].n for name in compared if rows[name][0]["group"] == group)
        least = 2 / 2**n * groups.count(group)
        if least > LEVEL:
            document.text(
                f"With {n} patients the corrected p of one of {groups.count(group)} rows ({group}) cannot fall below "
                f"{least:.3f}: none of them could be called better or worse than {base}."
            )


def _table(
    rows: Mapping[str, Sequence[Result]],
    scores: Mapping[str, Mapping[str, float]],
    compared: Mapping[str, Comparison],
    base: str,
) -> tuple[list[str], list[list[str]]]:
    head = ["row", "changes", "seeds", "Dice", "Dice, reference protocol", "difference", "p", "p corrected", "verdict"]
    head += ["seconds an epoch", "parameters"]
    lines = []
    for name, results in rows.items():
        seconds = [r["seconds_an_epoch"] for r in results if r["seconds_an_epoch"] is not None]
        line = [name, results[0]["group"], str(len(results)), _interval(scores[name].values())]
        line.append(_interval(patient_means(results, "dice_reference_protocol").values()))
        if name == base:
            line += ["", "", "", "baseline"]
        else:
            c = compared[name]
            line += [f"{c.mean:+.3f} ({c.low:+.3f} to {c.high:+.3f})", f"{c.p:.3f}", f"{c.p_corrected:.3f}", c.verdict]
        line += [f"{np.median(seconds):.1f}" if seconds else "", f"{results[0]['parameters']:,}"]
        lines.append(line)
    return head, lines


def _footnote(rows: Mapping[str, Sequence[Result]]) -> str:
    text = "Seconds an epoch: training alone, without validation; they depend on what else the machine did."
    for name, results in rows.items():
        if results[0]["group"] == REFERENCE:
            own = float(np.mean([r["own_validation_dsc"] for r in results]))
            text += f" {name}, with its validation: by its own validation DSC it reaches {own:.3f}."
    return text


def _interval(values: Any) -> str:
    e = bootstrap_mean(values)
    return f"{e['mean']:.3f} ({e['ci95'][0]:.3f} to {e['ci95'][1]:.3f})"


def _draw_differences(
    path: Path, rows: Mapping[str, Sequence[Result]], compared: Mapping[str, Comparison], base: str
) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.28 * len(compared)), layout="constrained")
    axes = figure.add_subplot()
    colours = {group: f"C{i}" for i, group in enumerate(GROUPS)}
    for place, (name, c) in enumerate(compared.items()):
        colour = colours[rows[name][0]["group"]]
        axes.plot([c.low, c.high], [place, place], color=colour, linewidth=2)
        axes.plot(c.mean, place, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(compared)), [f"{name} ({rows[name][0]['group']})" for name in compared])
    axes.invert_yaxis()
    axes.set_xlabel(f"Dice less that of {base}, mean and 95 % interval over patients")
    return save_figure(figure, path)


def _draw_curves(path: Path, rows: Mapping[str, Sequence[Result]], base: str) -> Path:
    from matplotlib.figure import Figure

    groups = [g for g in GROUPS if any(r[0]["group"] == g and name != base for name, r in rows.items())] or [GROUPS[0]]
    figure = Figure(figsize=(10, 3 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 2, squeeze=False)
    for group, line in zip(groups, panels, strict=True):
        for axes, key, label in ((line[0], "loss", "training loss"), (line[1], "val_mean_dice", "validation Dice")):
            for name, results in rows.items():
                if name != base and results[0]["group"] != group:
                    continue
                curve = results[0][key]
                epochs = sorted(curve, key=float)
                style = {"color": "black", "linewidth": 2} if name == base else {"linewidth": 1.2}
                axes.plot([float(e) for e in epochs], [curve[e] for e in epochs], label=name, **style)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.set_title(group)
        line[1].legend(fontsize=8)
    return save_figure(figure, path)
