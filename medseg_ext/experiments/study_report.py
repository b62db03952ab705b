"""The answer of a transfer study: does it pay, where, and how much, from the numbers of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg_ext.errors import InputError
from medseg_ext.experiments.curves import epochs_to
from medseg_ext.experiments.document import Document, save_figure
from medseg_ext.experiments.study import SCRATCH
from medseg_ext.experiments.study_run import RESULT, SOURCE, STUDY
from medseg_ext.files import read_json
from medseg_ext.layouts.labels import REGIONS
from medseg_ext.metrics.bootstrap import bootstrap_mean
from medseg_ext.metrics.comparison import CORRECTION, LEVEL, Comparison, holm, signed_rank_p
from medseg_ext.reports import write_json

Result = dict[str, Any]
DISTANCES = "distances.json"
_ANSWERS = {
    "better": "it pays",
    "perhaps better": "it may pay",
    "no difference shown": "no gain shown",
    "perhaps worse": "it may harm",
    "worse": "it harms",
}


class Cell(NamedTuple):
    """An arm at a share of the patients, in one region.

    Args:
        arm, share, region: which. scores: Dice by patient. gain: against scratch; None of scratch itself.
        single: mean gain of each fold and seed, each with other training patients.
    """

    arm: str
    share: float
    region: str
    scores: Mapping[str, float]
    gain: Comparison | None
    single: tuple[float, ...] = ()

    @property
    def verdict(self) -> str:
        """That of the gain, but no more than ``perhaps`` where a fold and seed has it the other way round.

        The gain's interval and test are over patients who are scored; they know nothing of who trained.
        """
        said = self.gain.verdict if self.gain else ""
        agree = len({gain > 0 for gain in self.single}) == 1
        return f"perhaps {said}" if said in {"better", "worse"} and not agree else said


def read_results(output: Path) -> list[Result]:
    """Results of the runs that have finished.

    Raises:
        InputError: there is none.
    """
    results = [read_json(path, "what a study writes") for path in sorted((output / "runs").rglob(RESULT))]
    if not results:
        raise InputError(output, "no finished run", "the output folder of a study")
    return results


def patient_scores(
    results: Iterable[Result], arm: str, share: float, region: str, kind: str | None = None
) -> dict[str, float]:
    """Dice by patient: the mean over a patient's pieces, then over the seeds. A patient is scored in one fold.

    Pieces whose truth lacks the region have no Dice and do not count; with ``kind``, those of other kinds neither.
    """
    by_seed: dict[str, dict[tuple[int, int], list[float]]] = {}
    for result in results:
        if result["arm"] == arm and result["share"] == share:
            for row in result["rows"]:
                if (score := row.get(f"dice_{region}")) is not None and kind in (None, row.get("kind")):
                    key = result["fold"], result["seed"]
                    by_seed.setdefault(row["patient"], {}).setdefault(key, []).append(score)
    return {p: float(np.mean([np.mean(scores) for scores in runs.values()])) for p, runs in sorted(by_seed.items())}


def paired_runs(results: Sequence[Result], arms: Sequence[str]) -> list[Result]:
    """Runs of a share, fold and seed that every one of the arms has run: only those compare like with like."""
    done: dict[tuple[float, int, int], set[str]] = {}
    for r in results:
        done.setdefault((r["share"], r["fold"], r["seed"]), set()).add(r["arm"])
    return [r for r in results if set(arms) <= done[r["share"], r["fold"], r["seed"]]]


def make_cells(results: Sequence[Result], arms: Sequence[str]) -> list[Cell]:
    """All arms, shares and regions; p of the gains of a region are corrected together."""
    shares = sorted({r["share"] for r in results})
    cells: list[Cell] = []
    for region in REGIONS:
        scores = {(a, s): patient_scores(results, a, s, region) for s in shares for a in arms}
        if not any(scores.values()):
            continue
        gains = {
            (a, s): [
                scores[a, s][p] - scores[SCRATCH, s][p] for p in sorted(scores[a, s].keys() & scores[SCRATCH, s].keys())
            ]
            for a, s in scores
            if a != SCRATCH
        }
        p_values = [signed_rank_p(differences) for differences in gains.values()]
        compared: dict[tuple[str, float], Comparison] = {}
        for (key, differences), p, corrected in zip(gains.items(), p_values, holm(p_values), strict=True):
            e = bootstrap_mean(differences)
            low, high = e["ci95"]
            compared[key] = Comparison(e["mean"], low, high, p, corrected, e["n"])
        single = {key: single_gains(results, *key, region) for key in gains}
        cells += [Cell(*key, region, scores[key], compared.get(key), single.get(key, ())) for key in scores]
    return cells


def single_gains(results: Sequence[Result], arm: str, share: float, region: str) -> tuple[float, ...]:
    """Mean gain over patients against scratch, of each fold and seed by itself, in their order."""
    gains = []
    for place in sorted({(r["fold"], r["seed"]) for r in results if r["share"] == share}):
        of_place = [r for r in results if (r["fold"], r["seed"]) == place]
        new, old = (patient_scores(of_place, name, share, region) for name in (arm, SCRATCH))
        if both := new.keys() & old.keys():
            gains.append(float(np.mean([new[p] - old[p] for p in both])))
    return tuple(gains)


def write_report(output: Path) -> tuple[Path, Path]:
    """Write ``rows.json``, ``report.md``, ``report.html`` and ``figures/`` of what a study has run so far.

    Raises:
        InputError: no comparison is complete, or a file cannot be written.
    """
    study = read_json(output / STUDY, "what a study writes")
    arms = study["arms"]
    everything = read_results(output)
    results = paired_runs(everything, arms)
    if not results:
        raise InputError(output, "no share, fold and seed that all arms have run", "a study that has run further")
    keys = ("arm", "share", "fold", "seed", "train_patients")
    rows = [{**{key: r[key] for key in keys}, **row} for r in everything for row in r["rows"]]
    write_json({"rows": rows}, output / "rows.json")
    cells = make_cells(results, arms)
    figures = output / "figures"
    figures.mkdir(exist_ok=True)
    document = Document(f"Transfer to {study['bundle']}: does it pay?")
    document.text(_describe(study, results))
    document.heading("Answer")
    document.items(_answers(cells))
    document.heading("Target Dice")
    document.picture(_draw(figures / "transfer.png", cells, arms), "Dice by share of the target's patients", output)
    document.table(*_table(cells))
    kinds = sorted({row["kind"] for r in results for row in r["rows"]})
    if len(kinds) > 1:
        document.text("The same by kind of piece, without tests:")
        document.table(*_kinds(results, arms, kinds))
    document.heading("Time")
    document.table(*_times(study, results))
    document.text(
        "Seconds an epoch: training alone, without validation, the median over runs. Time to a Dice: the first epoch "
        "whose validation reaches it times the seconds of an epoch of that run, the median over the runs that reach "
        "it. What a source's own training takes is not in it:"
    )
    sources = [read_json(path, "what a study writes") for path in sorted((output / "sources").rglob(SOURCE))]
    head = ["source", "training patients", "steps", "seconds"]
    document.table(head, [[s["source"], f"{s['patients']}", f"{s['steps']:,}", f"{s['seconds']:.0f}"] for s in sources])
    if (output / DISTANCES).exists():
        _add_distances(document, output)
    return document.write(output / "report")


def _describe(study: Mapping[str, Any], results: Sequence[Result]) -> str:
    budget = study["budget"]
    samples = budget["max_epochs"] * budget["samples_per_epoch"]
    counts = []
    for share in sorted({r["share"] for r in results}):
        of_share = [r for r in results if r["share"] == share]
        patients = sorted({r["train_patients"] for r in of_share})
        seeds, folds = ({r[key] for r in of_share} for key in ("seed", "fold"))
        some = f"{patients[0]}" if len(patients) == 1 else f"{patients[0]} to {patients[-1]}"
        counts.append(f"{share:.0%} ({some} patients; folds: {len(folds)}, seeds: {len(seeds)})")
    return (
        f"Budget of each run on the target, whatever it starts from: {samples:,} training samples, "
        f"{budget['max_epochs']} epochs of {budget['samples_per_epoch']:,} in batches of {budget['batch_size']}; "
        f"weights: {study['weights']}. Sources are trained beside it, without anyone who is in both sets or held out. "
        f"Shares of the training patients: {'; '.join(counts)}. Dice of held-out patients, the mean over a patient's "
        "pieces and over seeds, patients of all folds together; intervals: 95 %, bootstrap over patients, which covers "
        "neither seeds nor who trained: each fold and seed draws other training patients, and its gain is given by "
        "itself. Gains are paired, patient by patient, against from scratch at the same share; p: Wilcoxon's "
        f"signed-rank test, corrected within a region by {CORRECTION}. It pays, or harms, where the interval leaves "
        f"out 0, the corrected p is {LEVEL} or less and no fold and seed has it the other way round; it may, where the "
        "interval alone does."
    )


def _answers(cells: Sequence[Cell]) -> list[str]:
    lines = []
    for cell in cells:
        if cell.gain is not None:
            g = cell.gain
            lines.append(
                f"{cell.region.upper()}, {cell.share:.0%}, {cell.arm}: {_ANSWERS[cell.verdict]}, "
                f"{g.mean:+.3f} ({g.low:+.3f} to {g.high:+.3f})"
            )
    return lines


def _table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    head = ["region", "share", "start", "patients scored", "Dice", "gain", "gain of each fold and seed", "p"]
    head += ["p corrected", "answer"]
    lines = []
    for c in cells:
        e, g = bootstrap_mean(c.scores.values()), c.gain
        line = [c.region.upper(), f"{c.share:.0%}", c.arm, str(e["n"])]
        line.append(f"{e['mean']:.3f} ({e['ci95'][0]:.3f} to {e['ci95'][1]:.3f})")
        if g is None:
            line += [""] * 5
        else:
            line += [f"{g.mean:+.3f} ({g.low:+.3f} to {g.high:+.3f})", " ".join(f"{one:+.2f}" for one in c.single)]
            line += [f"{g.p:.3f}", f"{g.p_corrected:.3f}", _ANSWERS[c.verdict]]
        lines.append(line)
    return head, lines


def _kinds(results: Sequence[Result], arms: Sequence[str], kinds: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    lines = []
    for region, share, kind in product(REGIONS, sorted({r["share"] for r in results}), kinds):
        scores = {arm: patient_scores(results, arm, share, region, kind) for arm in arms}
        if scores[SCRATCH]:
            means = [f"{np.mean(list(scores[arm].values())):.3f}" for arm in arms]
            lines.append([region.upper(), f"{share:.0%}", kind, str(len(scores[SCRATCH])), *means])
    return ["region", "share", "kind", "patients scored", *arms], lines


def _times(study: Mapping[str, Any], results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    targets = study["dice_targets"]
    head = ["share", "start", "seconds an epoch", *(f"seconds to Dice {t:g} (runs that reach it)" for t in targets)]
    lines = []
    for share in sorted({r["share"] for r in results}):
        for arm in study["arms"]:
            runs = [r for r in results if r["share"] == share and r["arm"] == arm]
            timed = [r["seconds_an_epoch"] for r in runs if r["seconds_an_epoch"] is not None]
            line = [f"{share:.0%}", arm, f"{np.median(timed):.1f}" if timed else ""]
            for target in targets:
                reached = [
                    epoch * r["seconds_an_epoch"]
                    for r in runs
                    if r["seconds_an_epoch"] is not None
                    and (epoch := epochs_to({int(e): v for e, v in r["val_mean_dice"].items()}, target)) is not None
                ]
                when = f"{np.median(reached):.0f}" if reached else "never"
                line.append(f"{when} ({len(reached)} of {len(runs)})")
            lines.append(line)
    return head, lines


def _add_distances(document: Document, output: Path) -> None:
    content = read_json(output / DISTANCES, "what the distance of a study is")
    document.heading("How far the slices are from the pieces")
    document.text(content["note"])
    rows = [
        [
            d["sequence"],
            d["other"],
            f"{d['n'][0]} and {d['n'][1]}",
            f"{d['mmd2']:.4f}",
            f"{d['bandwidth']:.2f}",
            f"{d['p']:.3f}",
        ]
        for d in content["distances"]
    ]
    document.table(["sequence", "from slices to", "patients", "MMD, squared", "bandwidth", "p"], rows)
    document.picture(output / content["picture"], "Features by sequence, first two principal components", output)


def _draw(path: Path, cells: Sequence[Cell], arms: Sequence[str]) -> Path:
    from matplotlib.figure import Figure

    regions = list(dict.fromkeys(cell.region for cell in cells))
    shares = sorted({cell.share for cell in cells})
    figure = Figure(figsize=(4.2 * len(regions), 3.8), layout="constrained")
    for axes, region in zip(figure.subplots(1, len(regions), squeeze=False)[0], regions, strict=True):
        for number, arm in enumerate(arms):
            estimates = [
                bootstrap_mean(c.scores.values())
                for share in shares
                for c in cells
                if (c.region, c.arm, c.share) == (region, arm, share)
            ]
            # beside each other, or the intervals would hide each other
            places = np.arange(len(shares)) + 0.12 * (number - (len(arms) - 1) / 2)
            means = np.array([e["mean"] for e in estimates])
            ends = np.array([e["ci95"] for e in estimates]).T
            axes.errorbar(places, means, yerr=np.abs(ends - means), marker="o", markersize=4, capsize=2, label=arm)
        axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
        axes.set_xlabel("share of the target's patients")
        axes.set_ylabel("Dice, mean and 95 % interval")
        axes.set_title(region.upper())
        axes.legend(fontsize=8)
    return save_figure(figure, path)
