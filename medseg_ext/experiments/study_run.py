"""Run a transfer study: sources, then every arm, share, fold and seed, each once."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from medseg_ext.errors import InputError, print_error
from medseg_ext.experiments.curves import (
    DICE,
    LOSS,
    Curve,
    log_to_run,
    seconds_an_epoch,
    store_of,
    tracked_curve,
    tracked_runs,
)
from medseg_ext.experiments.process import SCRIPTS, claim, run_logged, run_verb
from medseg_ext.experiments.study import PIECES, Arm, People, Source, Study
from medseg_ext.files import read_json, write_atomically
from medseg_ext.layouts import kfold, read_split, write_split
from medseg_ext.layouts.labels import REGIONS
from medseg_ext.training import read_pieces

RESULT, STUDY, SOURCE = "result.json", "study.json", "source.json"
_FOLD_SEED = 0


class Run(NamedTuple):
    """One training of the target."""

    arm: Arm
    share: float
    fold: int
    seed: int

    def folder(self, output: Path) -> Path:
        """Where it lies."""
        return output / "runs" / self.arm.name / f"share_{self.share:g}" / f"fold_{self.fold}" / f"seed_{self.seed}"

    @property
    def name(self) -> str:
        """Of its MLflow run."""
        return f"{self.arm.name}_share_{self.share:g}_fold_{self.fold}_seed_{self.seed}"

    @property
    def drawn_by(self) -> int:
        """Seed of patients, weights and samples: another one in each fold, whose training patients overlap."""
        return 1000 * self.fold + self.seed


class TransferStudy:
    """A study in an output folder.

    Args:
        study: what to run.
        lgg: folder of the LGG patients. split_file: whose ``train`` and ``val`` take part; ``test`` never does.
        pieces: folder of packed pieces. people: who is in both sets.
        output: where it goes.

    Raises:
        InputError: a set without patients, a fold that there is not, or a folder of another study.
    """

    def __init__(self, study: Study, lgg: Path, split_file: Path, pieces: Path, people: People, output: Path) -> None:
        self.study, self.people = study, people
        self.lgg, self.pieces, self.output = lgg.resolve(), pieces.resolve(), output.resolve()
        self.store = store_of(self.output)
        split = read_split(split_file)
        for side in ("train", "val"):
            if not split.get(side):
                raise InputError(split_file, f"no patients in {side!r}", "patients in train and val")
        self.split = {side: split[side] for side in ("train", "val")}
        self.folds_of_pieces: dict[int | None, set[str]] = {}
        for piece in read_pieces(self.pieces):
            self.folds_of_pieces.setdefault(piece.fold, set()).add(piece.patient)
        there = [f for f in self.folds_of_pieces if f is not None]
        known = there if study.target == PIECES else range(study.fold_count)
        if absent := [fold for fold in study.folds if fold not in known]:
            raise InputError(study.path, f"fold {absent[0]}", ", ".join(map(str, sorted(known))))
        claim(
            self.output / STUDY,
            {
                "bundle": study.bundle.name,
                "target": study.target,
                "budget": study.budget,
                "weights": study.weights,
                "dice_targets": study.dice_targets,
                "split": self.split,
                "arms": [arm.name for arm in study.arms],
            },
        )

    def runs(self) -> Iterator[Run]:
        """All trainings of the target: all arms before the next fold, all shares before the next seed."""
        study = self.study
        for number in range(max(map(len, study.shares.values()))):
            for share, seeds in study.shares.items():
                for fold, seed in product(study.folds, seeds[number : number + 1]):
                    for arm in study.arms:
                        yield Run(arm, share, fold, seed)

    def run(self) -> list[InputError]:
        """Run what has not run; a run that fails does not stop the others.

        Returns:
            What failed, already printed.
        """
        failures = []
        for run in self.runs():
            if (run.folder(self.output) / RESULT).exists():
                continue
            print(f"{run.arm.name}, {run.share:.0%} of the patients, fold {run.fold}, seed {run.seed}", flush=True)
            try:
                self._run(run)
            except InputError as error:
                failures.append(error)
                print_error(error)
        return failures

    def lgg_split(self, fold: int) -> dict[str, list[str]]:
        """LGG patients by side: where the target is slices, ``val`` is the fold.

        Where it is pieces, they are a source: nobody who is in the pieces too takes part, held out or not, or a small
        share of the pieces would come with masks of persons whom that share leaves out.
        """
        if self.study.target != PIECES:
            patients = [*self.split["train"], *self.split["val"]]
            return kfold(patients, self.study.fold_count, fold, _FOLD_SEED)
        among = set().union(*self.folds_of_pieces.values())
        return {side: self.people.lgg_alone(names, among) for side, names in self.split.items()}

    def excluded_pieces(self) -> list[str]:
        """Patients of the pieces who are in the slices too, where pieces are a source: see :meth:`lgg_split`."""
        return self.people.brats_names([*self.split["train"], *self.split["val"]])

    def _source(self, source: Source, fold: int) -> Path:
        """Weights of a source: one of the other set is trained once, of the target's set once a fold without it."""
        own = source.bundle == self.study.bundle
        part = f"fold_{fold}" if own else "all"
        folder = self.output / "sources" / source.name / part
        place = {"bundle_root": str(source.bundle), "output_dir": str(folder / "training")}
        data = self._data(fold) if own else self._other_data(fold)
        name = f"{source.name}_{part}"
        record = {"experiment_name": f"{self.study.bundle.name}_transfer", "run_name": name}
        values = {**data, **source.values, **place, **record}
        run_verb("training", source.bundle, source.configs, values, folder, self.store)
        if not (folder / SOURCE).exists():
            loss, patients = self._recorded(name)
            seconds = seconds_an_epoch(loss, len(loss))
            known = {"source": source.name, "patients": patients, "steps": len(loss), "seconds": seconds}
            write_atomically(folder / SOURCE, json.dumps(known) + "\n")
        return folder / "training" / source.weights

    def _recorded(self, name: str) -> tuple[Curve, int]:
        """Loss by step of a training, and how many patients it was given."""
        _, runs = tracked_runs(self.store, name)
        return tracked_curve(self.store, name, LOSS), int(runs[-1].data.params["train_patients"])

    def _data(self, fold: int) -> dict[str, Any]:
        """Named values that make a training one of a fold of the target."""
        if self.study.target == PIECES:
            return {"dataset_dir": str(self.pieces), "fold": fold}
        return {"dataset_dir": str(self.lgg), "split_file": str(self._split_file(fold))}

    def _other_data(self, fold: int) -> dict[str, Any]:
        """The same of the set that is not the target."""
        if self.study.target == PIECES:
            return {"dataset_dir": str(self.lgg), "split_file": str(self._split_file(fold))}
        return {"dataset_dir": str(self.pieces), "excluded_patients": self.excluded_pieces()}

    def _split_file(self, fold: int) -> Path:
        path = self.output / "splits" / ("all.json" if self.study.target == PIECES else f"fold_{fold}.json")
        return path if path.exists() else write_split(path, self.lgg_split(fold))

    def _run(self, run: Run) -> None:
        study, folder = self.study, run.folder(self.output)
        source = str(self._source(run.arm.source, run.fold)) if run.arm.source else ""
        values = {
            **study.values,
            **run.arm.values,
            **self._data(run.fold),
            **study.budget,
            "source": source,
            "patients_share": run.share,
            "seed": run.drawn_by,
            "bundle_root": str(study.bundle),
            "output_dir": str(folder / "training"),
            "experiment_name": f"{study.bundle.name}_transfer",
            "run_name": run.name,
        }
        run_verb("training", study.bundle, study.configs, values, folder, self.store)
        weights = folder / "training" / study.weights
        rows = (
            self._score_pieces(run, folder, weights)
            if study.target == PIECES
            else self._score_slices(run, folder, weights)
        )
        loss, patients = self._recorded(run.name)
        seconds = seconds_an_epoch(loss, study.steps_an_epoch)
        means = {
            f"scored_{key}": sum(known) / len(known)
            for key in (f"dice_{region}" for region in REGIONS)
            if (known := [row[key] for row in rows if row.get(key) is not None])
        }
        log_to_run(self.store, run.name, means)
        result = {
            "arm": run.arm.name,
            "share": run.share,
            "fold": run.fold,
            "seed": run.seed,
            "train_patients": patients,
            "seconds_an_epoch": None if math.isnan(seconds) else seconds,
            "val_mean_dice": {e: value for e, (value, _) in tracked_curve(self.store, run.name, DICE).items()},
            "rows": rows,
        }
        write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")

    def _score_pieces(self, run: Run, folder: Path, weights: Path) -> list[dict[str, Any]]:
        """Dice by region of each held-out piece, as ``scripts/score_pieces.py`` has it."""
        output = folder / "scores.json"
        command = [sys.executable, str(SCRIPTS / "score_pieces.py"), "run", str(self.pieces), "--fold", str(run.fold)]
        command += ["--kinds", *self.study.kinds, "--weights", str(weights), "--output", str(output)]
        changes = _inference_values(self.study, run.arm)
        command += ["--set", *(f"{name}={json.dumps(value)}" for name, value in changes.items())] if changes else []
        run_logged(command, folder / "scores.log", folder)
        rows = read_json(output, "what score_pieces.py writes")["rows"]
        return [
            {key: row[key] for key in ("piece", "patient", "kind", *(f"dice_{region}" for region in REGIONS))}
            for row in rows
        ]

    def _score_slices(self, run: Run, folder: Path, weights: Path) -> list[dict[str, Any]]:
        """Dice of each held-out patient, by the bundle's ``evaluating``; the abnormality counts as whole tumour."""
        study, configs = self.study, self.study.bundle / "configs"
        files = [configs / "inference.json", *study.scoring, configs / "evaluate.yaml"]
        values = {
            **self._data(run.fold),
            **_inference_values(study, run.arm),
            "bundle_root": str(study.bundle),
            "split": "val",
            "overlays": False,
            "ckpt_path": str(weights),
            "output_dir": str(folder / "scores"),
        }
        run_verb("evaluating", study.bundle, files, values, folder)
        table = pd.read_csv(folder / "scores" / "metrics.csv")
        return [
            {"patient": str(patient), "kind": "study", "dice_wt": float(score)}
            for patient, score in zip(table["patient"], table["dice"], strict=True)
        ]


def _inference_values(study: Study, arm: Arm) -> Mapping[str, Any]:
    """Named values of the training that ``inference.json`` has too."""
    known = read_json(study.bundle / "configs" / "inference.json", "a config")
    return {name: value for name, value in {**study.values, **arm.values}.items() if name in known}
