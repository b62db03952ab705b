"""Curves of a training from where it was recorded, and what time it took."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Value by step, and when it was logged, in seconds.
Curve = dict[int, tuple[float, float]]
LOSS, DICE = "train_loss", "val_mean_dice"


def store_of(output: Path) -> str:
    """URI of the MLflow store in an output folder."""
    return f"sqlite:///{(output / 'mlruns.db').as_posix()}"


def tracked_runs(uri: str, name: str) -> tuple[Any, list[Any]]:
    """MLflow's client and the runs of that name, the oldest first."""
    import mlflow  # takes seconds, and a report needs none

    client = mlflow.MlflowClient(uri)
    found = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    return client, sorted((r for r in found if r.info.run_name == name), key=lambda run: run.info.start_time)


def tracked_curve(uri: str, name: str, metric: str) -> Curve:
    """A metric of the runs of that name; of a step that was logged twice, as after a kill, the later one counts."""
    client, runs = tracked_runs(uri, name)
    points = [point for run in runs for point in client.get_metric_history(run.info.run_id, metric)]
    return {p.step: (float(p.value), p.timestamp / 1000) for p in sorted(points, key=lambda p: p.timestamp)}


def log_to_run(uri: str, name: str, metrics: Mapping[str, float], files: Sequence[Path] = ()) -> None:
    """Add results to the latest run of that name."""
    client, runs = tracked_runs(uri, name)
    if runs:
        for metric, value in metrics.items():
            client.log_metric(runs[-1].info.run_id, metric, value)
        for path in files:
            client.log_artifact(runs[-1].info.run_id, str(path))


def track_reference(uri: str, experiment: str, name: str, log: Path, parameters: Mapping[str, Any]) -> None:
    """Record a training of ``scripts/reference_lgg.py`` as the bundles' are recorded: its log and parameters.

    Args:
        uri: of a SQLite store. experiment, name: of the run, which is made once.
        log: the training's ``log.csv``. parameters: by name, logged as text.
    """
    client, runs = tracked_runs(uri, name)
    if runs:
        return
    known = client.get_experiment_by_name(experiment)
    # beside the store, as MONAI has it: MLflow itself would put a folder where the process happens to be
    artifacts = (Path(uri.removeprefix("sqlite:///")).parent / "mlruns").absolute().as_uri()
    made = known.experiment_id if known else client.create_experiment(experiment, artifact_location=artifacts)
    run = client.create_run(made, run_name=name)
    for key, value in parameters.items():
        client.log_param(run.info.run_id, key, str(value))
    for images, loss, score in read_reference_log(log):
        client.log_metric(run.info.run_id, LOSS, loss, step=images)
        client.log_metric(run.info.run_id, DICE, score, step=images)
    client.set_terminated(run.info.run_id)


def read_reference_log(path: Path) -> list[tuple[int, float, float]]:
    """Images, mean training loss since the row before and validation DSC, of each row of a ``log.csv``."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [(int(row["images"]), float(row["train_loss"] or "nan"), float(row["val_dsc"])) for row in rows]


def epoch_means(curve: Curve, steps: int) -> dict[int, float]:
    """Mean of a value of each epoch of so many steps; epochs and steps count from 1."""
    by_epoch: dict[int, list[float]] = {}
    for step, (value, _) in curve.items():
        by_epoch.setdefault((step - 1) // steps + 1, []).append(value)
    return {epoch: float(np.mean(values)) for epoch, values in sorted(by_epoch.items())}


def seconds_an_epoch(curve: Curve, steps: int) -> float:
    """Training time of an epoch of so many steps, without validation: steps times the median time of a step.

    The median of the times between one step and the next within an epoch: pauses of an interrupted run and the first
    step, before which data are read, do not count. NaN where no epoch has two steps.
    """
    times = {step: when for step, (_, when) in curve.items()}
    gaps = [times[step] - times[step - 1] for step in times if (step - 1) % steps and step - 1 in times]
    return float(np.median(gaps)) * steps if gaps else float("nan")


def epochs_to(curve: Mapping[int, float], value: float) -> int | None:
    """The first epoch at which a curve is there; None where it never is."""
    return min((epoch for epoch, reached in curve.items() if reached >= value), default=None)
