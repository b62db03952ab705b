import json

import numpy as np
import pytest
from ignite.engine import Engine
from monai.handlers import MLFlowHandler

from medseg_ext.reports import ExampleOverlays, track_run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all tests, for to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlruns.db'}"


@pytest.fixture(autouse=True)
def no_other_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run(store, name, folder, parameters, files=(), fail=False, **options):
    """A run with MONAI's own handler, that may crash after its first step."""

    def step(engine, batch):
        if fail:
            raise RuntimeError("crashed")
        return [{"loss": 1.0}]

    engine = Engine(step)
    recorder = MLFlowHandler(tracking_uri=store, experiment_name="tests", run_name=name, epoch_log=False, **options)
    recorder.iteration_log = False
    recorder.attach(engine)
    overlays = ExampleOverlays()
    track_run(engine, [object(), recorder, overlays], folder, parameters, files)
    if fail:
        with pytest.raises(RuntimeError, match="crashed"):
            engine.run(range(1))
    else:
        engine.run(range(1))
    return recorder, overlays


def runs(recorder, name):
    found = recorder.client.search_runs(recorder.experiment.experiment_id)
    return [run for run in found if run.info.run_name == name]


def names(recorder, run, folder=None):
    return sorted(entry.path for entry in recorder.client.list_artifacts(run.info.run_id, folder))


def test_without_mlflow_nothing_happens(tmp_path):
    engine = Engine(lambda engine, batch: None)
    overlays = ExampleOverlays()
    track_run(engine, [overlays], tmp_path, {"a": 1})
    engine.run(range(1))
    assert overlays.sinks == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("literal", [True, False], ids=["text of an expression", "path"])
def test_executed_config_is_an_artifact(store, tmp_path, literal):
    config = tmp_path / "config_20260101_120000.json"
    config.write_text(json.dumps({"a": 1}))
    handed = f"{tmp_path} + '/{config.name}'" if literal else str(config)
    recorder, _ = run(store, f"config {literal}", tmp_path, {}, artifacts=handed)
    (found,) = runs(recorder, f"config {literal}")
    assert names(recorder, found) == [config.name]


def test_a_crashed_run_has_its_parameters_and_config_too(store, tmp_path):
    (tmp_path / "split.json").write_text("{}")
    recorder, _ = run(
        store, "crashed", tmp_path, {"features": [4, 8]}, [tmp_path / "split.json", tmp_path / "later.csv"], fail=True
    )
    (found,) = runs(recorder, "crashed")
    assert found.info.status == "RUNNING"
    assert found.data.params["features"] == "[4, 8]"
    assert found.data.tags["provenance.python"]
    assert names(recorder, found) == ["split.json"]

    # continued with another value: MLflow refuses to change a parameter
    recorder, _ = run(store, "crashed", tmp_path, {"features": [4, 8], "seed": 1}, close_on_complete=False)
    recorder, _ = run(store, "crashed", tmp_path, {"features": [4, 16], "seed": 1})
    (found,) = runs(recorder, "crashed")
    assert (found.data.params["features"], found.data.params["seed"]) == ("[4, 8]", "1")
    assert found.data.tags["changed.features"] == "[4, 16]"
    assert "changed.seed" not in found.data.tags


def test_results_are_logged_at_the_end(store, tmp_path):
    table = tmp_path / "metrics.csv"
    engine = Engine(lambda engine, batch: table.write_text("dice\n0.9\n"))
    recorder = MLFlowHandler(
        tracking_uri=store, experiment_name="tests", run_name="results", iteration_log=False, epoch_log=False
    )
    recorder.attach(engine)
    track_run(engine, [recorder], tmp_path, files=[table])
    engine.run(range(1))
    (found,) = runs(recorder, "results")
    assert names(recorder, found) == ["metrics.csv"]


def test_overlays_are_logged_as_they_come(store, tmp_path):
    recorder, overlays = run(store, "overlays", tmp_path, {})
    (sink,) = overlays.sinks
    sink("patient/1", np.zeros((8, 8, 3), np.uint8), 7)
    (found,) = runs(recorder, "overlays")
    assert names(recorder, found, "overlays") == ["overlays/patient_1_epoch_0007.png"]
    recorder.cur_run = None  # the run is over
    sink("patient/1", np.zeros((8, 8, 3), np.uint8), 8)
