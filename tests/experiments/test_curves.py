"""Curves and times by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medseg_ext.experiments.curves import (
    epoch_means,
    epochs_to,
    log_to_run,
    read_reference_log,
    seconds_an_epoch,
    track_reference,
    tracked_curve,
    tracked_runs,
)


def test_seconds_of_steps_within_epochs() -> None:
    # epochs of 3 steps, 2 s a step; 30 s of validation between them, a pause of an hour in the second
    times = {1: 0.0, 2: 2.0, 3: 4.0, 4: 34.0, 5: 3634.0, 6: 3636.0, 7: 3670.0, 8: 3672.0, 9: 3674.0}
    curve = {step: (0.5, when) for step, when in times.items()}
    assert seconds_an_epoch(curve, 3) == 6.0
    assert math.isnan(seconds_an_epoch(curve, 1))
    assert math.isnan(seconds_an_epoch({}, 3))


def test_means_and_first_epoch() -> None:
    curve = {1: (1.0, 0.0), 2: (3.0, 1.0), 3: (5.0, 2.0), 4: (7.0, 3.0)}
    assert epoch_means(curve, 2) == {1: 2.0, 2: 6.0}
    assert epochs_to({1: 0.2, 2: 0.6, 3: 0.5, 4: 0.7}, 0.6) == 2
    assert epochs_to({1: 0.2}, 0.6) is None
    assert epochs_to({}, 0.6) is None


def test_reference_is_tracked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, log = f"sqlite:///{tmp_path / 'mlruns.db'}", tmp_path / "log.csv"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    log.write_text("images,seconds,train_loss,val_dsc\n32,5,0.75,0.25\n64,9,0.5,0.5\n")
    assert read_reference_log(log) == [(32, 0.75, 0.25), (64, 0.5, 0.5)]
    for _ in range(2):
        track_reference(uri, "experiment", "reference_seed_0", log, {"seed": 0})
    log_to_run(uri, "reference_seed_0", {"scored_dice": 0.5}, [log])
    client, runs = tracked_runs(uri, "reference_seed_0")
    assert len(runs) == 1
    assert runs[0].data.params == {"seed": "0"}
    assert runs[0].data.metrics["scored_dice"] == 0.5
    assert [entry.path for entry in client.list_artifacts(runs[0].info.run_id)] == ["log.csv"]
    assert not list((tmp_path / "here").iterdir()), "artifacts lie beside the store"
    assert {step: value for step, (value, _) in tracked_curve(uri, "reference_seed_0", "val_mean_dice").items()} == {
        32: 0.25,
        64: 0.5,
    }
    # a step that is logged again counts as it was the last time
    client.log_metric(runs[0].info.run_id, "val_mean_dice", 0.75, step=64)
    assert tracked_curve(uri, "reference_seed_0", "val_mean_dice")[64][0] == 0.75
