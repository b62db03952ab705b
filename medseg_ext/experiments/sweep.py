"""Run a sweep: train, score and describe each row with each seed, and go on where it was stopped."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from medseg_ext.errors import InputError, print_error
from medseg_ext.experiments.curves import (
    DICE,
    LOSS,
    epoch_means,
    log_to_run,
    read_reference_log,
    seconds_an_epoch,
    store_of,
    track_reference,
    tracked_curve,
)
from medseg_ext.experiments.plan import REFERENCE, Experiment, Plan
from medseg_ext.experiments.process import SCRIPTS, claim, run_logged, run_verb
from medseg_ext.files import read_json, write_atomically
from medseg_ext.layouts import find_studies, read_split
from medseg_ext.phantoms import WRITERS, make_phantom

SCORES = ("dice", "dice_reference_protocol")
RESULT, SWEEP = "result.json", "sweep.json"


class Sweep:
    """Rows of a plan in an output folder: ``RUNS/NAME/seed_N`` each, and one MLflow store of all.

    Args:
        plan: what to run.
        data: folder of studies.
        output: where it goes.
        split_file: patients by side; that of the bundle when None.
        phantom: rows, columns, slices of the head that examples are drawn of.

    Raises:
        InputError: no patients in ``data``, or a folder of another sweep.
    """

    def __init__(
        self,
        plan: Plan,
        data: Path,
        output: Path,
        split_file: Path | None = None,
        phantom: tuple[int, int, int] = (256, 256, 24),
    ) -> None:
        self.plan, self.data, self.output = plan, data.resolve(), output.resolve()
        self.store = store_of(self.output)
        self.split_file = (split_file or plan.bundle / "configs" / "split.json").resolve()
        self.phantom_shape = phantom
        split = read_split(self.split_file)
        for side in ("train", plan.split):
            if not split.get(side):
                raise InputError(self.split_file, f"no patient in {side!r}", f"patients in train and {plan.split}")
        studies, errors = find_studies(self.data, masks="required")
        if not studies:
            raise errors[0] if errors else InputError(data, "no patient", "studies with masks")
        shared = {"budget": dict(plan.budget), "weights": plan.weights, "split": plan.split, "patients": split}
        claim(self.output / SWEEP, {**shared, "bundle": plan.bundle.name, "baseline": plan.baseline.name})

    def run(self, rows: Sequence[Experiment]) -> list[InputError]:
        """Run rows, the first seed of all before the second; a row that fails does not stop the others.

        Returns:
            What failed, already printed.
        """
        failures = []
        for seed in dict.fromkeys(seed for row in rows for seed in row.seeds):
            for row in (row for row in rows if seed in row.seeds):
                folder = run_folder(self.output, row.name, seed)
                if (folder / RESULT).exists() and row.group == REFERENCE:
                    continue
                print(f"{row.name}, seed {seed}: {folder}", flush=True)
                try:
                    if row.group == REFERENCE:
                        self._run_reference(row, seed, folder)
                    else:
                        self._run(row, seed, folder)
                except InputError as error:
                    failures.append(error)
                    print_error(error)
        return failures

    def _run(self, row: Experiment, seed: int, folder: Path) -> None:
        plan, configs = self.plan, self.plan.bundle / "configs"
        name = f"{row.name}_seed_{seed}"
        place = {"bundle_root": str(plan.bundle), "dataset_dir": str(self.data), "split_file": str(self.split_file)}
        training = {**place, **row.values, **plan.budget, "seed": seed, "output_dir": str(folder / "training")}
        record = {"experiment_name": f"{plan.bundle.name}_experiments", "run_name": name}
        run_verb(
            "training", plan.bundle, [configs / "train.json", *row.overlays], training | record, folder, self.store
        )
        weights = folder / "training" / plan.weights
        scoring = _write_yaml(folder / "scoring.yaml", row.scoring)
        files = [configs / "inference.json", configs / "evaluate.yaml", *scoring]
        common = {**place, "ckpt_path": str(weights)}
        scored = {**common, "split": plan.split, "overlays": False, "output_dir": str(folder / "scores")}
        run_verb("evaluating", plan.bundle, files, scored, folder)
        drawn = {**common, "dataset_dir": str(self._phantom()), "split": "all", "overlays": "all"}
        run_verb("evaluating", plan.bundle, files, drawn | {"output_dir": str(folder / "example")}, folder / "example")
        if (folder / RESULT).exists():
            return
        patients = read_scores(folder / "scores" / "metrics.csv")
        means = {f"scored_{s}": _mean(p[s] for p in patients.values()) for s in SCORES}
        log_to_run(self.store, name, means, [folder / "scores" / "metrics.csv"])
        loss = tracked_curve(self.store, name, LOSS)
        dice = {epoch: value for epoch, (value, _) in tracked_curve(self.store, name, DICE).items()}
        steps = plan.steps_an_epoch
        self._write_result(
            row, seed, folder, patients, weights, epoch_means(loss, steps), dice, seconds_an_epoch(loss, steps)
        )

    def _run_reference(self, row: Experiment, seed: int, folder: Path) -> None:
        """The recipe of ``scripts/reference_lgg.py`` on as many images, scored by its own DSC and as the others are."""
        training, plan = folder / "training", self.plan
        place = ["--dataset-dir", str(self.data), "--split-file", str(self.split_file)]
        every = max(plan.samples // 8, 16)
        command = [sys.executable, str(SCRIPTS / "reference_lgg.py"), "train", *place, "--output-dir", str(training)]
        command += [
            "--images",
            str(plan.samples),
            "--val-every",
            str(every),
            "--seed",
            str(seed),
            "--fast-augmentation",
        ]
        if not (training / "report.json").exists():
            run_logged(command, folder / "training.log", folder.parent)
        masks, weights = folder / "masks", training / plan.weights
        command = [sys.executable, str(SCRIPTS / "reference_lgg.py"), "predict", *place, "--split", plan.split]
        run_logged([*command, "--weights", str(weights), "--output-dir", str(masks)], folder / "predict.log", folder)
        command = [sys.executable, str(SCRIPTS / "score.py"), "masks", "--dataset_dir", str(self.data)]
        command += ["--masks_dir", str(masks), "--output_dir", str(folder / "scores")]
        command += ["--split_file", str(self.split_file), "--split", plan.split]
        run_logged(command, folder / "score.log", folder)
        report = read_json(training / "report.json", "what reference_lgg.py writes")
        name = f"{row.name}_seed_{seed}"
        parameters = {**plan.budget, "seed": seed, "recipe": "scripts/reference_lgg.py"}
        track_reference(self.store, f"{plan.bundle.name}_experiments", name, training / "log.csv", parameters)
        patients = read_scores(folder / "scores" / "metrics.csv")
        means = {f"scored_{s}": _mean(p[s] for p in patients.values()) for s in SCORES}
        own = report["best" if plan.weights == "model_best.pt" else "last"]["val_dsc_mean"]
        log_to_run(self.store, name, {**means, "own_validation_dsc": own}, [folder / "scores" / "metrics.csv"])
        log = read_reference_log(training / "log.csv")
        epoch = plan.budget["samples_per_epoch"]
        loss = {images / epoch: value for images, value, _ in log}
        dice = {images / epoch: value for images, _, value in log}
        seconds = report["seconds"] * epoch / report["images"]
        self._write_result(row, seed, folder, patients, weights, loss, dice, seconds, own)

    def _write_result(
        self,
        row: Experiment,
        seed: int,
        folder: Path,
        patients: Mapping[str, Mapping[str, float]],
        weights: Path,
        loss: Mapping[Any, float],
        dice: Mapping[Any, float],
        seconds: float,
        own: float | None = None,
    ) -> None:
        result = {
            "name": row.name,
            "group": row.group,
            "seed": seed,
            "patients": patients,
            "loss": loss,
            "val_mean_dice": dice,
            "seconds_an_epoch": None if math.isnan(seconds) else seconds,
            "own_validation_dsc": own,
            "parameters": count_parameters(weights),
        }
        write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")

    def _phantom(self) -> Path:
        """A head drawn by a program, in the LGG layout; the same for every row."""
        folder = self.output / "phantom"
        if not folder.is_dir():
            part = self.output / ".part-phantom"
            WRITERS["kaggle"](make_phantom(0, self.phantom_shape), part, None)
            part.rename(folder)
        return folder


def run_folder(output: Path, name: str, seed: int) -> Path:
    """Where a row's run with a seed lies."""
    return output / "runs" / name / f"seed_{seed}"


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Measures by patient of a ``metrics.csv``.

    Raises:
        InputError: it is no such table, or a patient lacks a number.
    """
    try:
        table = pd.read_csv(path).set_index("patient")[list(SCORES)].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(path, f"no such table ({error})", f"a metrics.csv with {', '.join(SCORES)}") from error
    if table.empty or table.isna().any(axis=None):
        raise InputError(path, "a patient without a score" if len(table) else "no patient", "a number for each patient")
    return {str(patient): {s: float(row[s]) for s in SCORES} for patient, row in table.iterrows()}


def count_parameters(weights: Path) -> int:
    """Numbers in a state dict that training changes: all but the statistics of normalisation."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    kept = (v for k, v in state.items() if not k.endswith(("running_mean", "running_var", "num_batches_tracked")))
    return sum(value.numel() for value in kept)


def _mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> list[Path]:
    if not content:
        return []
    return [write_atomically(path, yaml.safe_dump(dict(content), sort_keys=False))]
