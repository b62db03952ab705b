"""The LGG bundle's own training, recorded by a server, in a process that is stopped in the middle and started again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from lgg_training import SMALL, prepare, start_training

mlflow = pytest.importorskip("mlflow")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, "KILLED"), (signal.SIGTERM, "KILLED"), (signal.SIGKILL, "FAILED")]
)
def test_stopped_and_started_again(
    mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = prepare(tmp_path, 3, {"train": ["p0", "p1"], "val": ["p2"]})
    options = SMALL | {"max_epochs": 12, "samples_per_epoch": 64, "batch_size": 4, "tracking": "mlflow"}
    options |= {"tracking_uri": mlflow_server, "experiment_name": f"stopped by {number}"}
    process = start_training(place, "run", options)
    client, log = mlflow.MlflowClient(mlflow_server), place / "run.log"
    while "epoch 3/12" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    process.send_signal(number)
    process.wait(timeout=60)
    experiment = client.get_experiment_by_name(f"stopped by {number}").experiment_id
    (first,) = client.search_runs([experiment])
    assert first.info.status == ("RUNNING" if number == signal.SIGKILL else status)

    process = start_training(place, "run", options)
    assert process.wait(timeout=600) == 0, log.read_text()
    first, second = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    assert (first.info.status, second.info.status) == (status, "FINISHED")
    assert second.data.tags["earlier_run"] == first.info.run_id
    epoch = int(second.data.tags["resumed_after_epoch"])
    assert epoch >= 2
    steps = [[p.step for p in client.get_metric_history(r.info.run_id, "train_loss")] for r in (first, second)]
    assert steps[1] == list(range(16 * epoch + 1, 16 * 12 + 1)), "a run holds what it did itself"
    assert steps[0] == list(range(1, len(steps[0]) + 1))
