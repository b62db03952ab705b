"""Runs on a real server: what they hold, how they end, and that none is appended to."""

import hashlib
import json
import os
import signal

import numpy as np
import pytest
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from tiny_patients import write_kaggle

from medseg_ext.errors import InputError
from medseg_ext.layouts import find_studies
from medseg_ext.reports import ExampleOverlays
from medseg_ext.tracking import TrackedRun
from medseg_ext.tracking.store import quick_requests
from medseg_ext.workflow import run_engine

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def no_other_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def client(mlflow_server):
    return mlflow.MlflowClient(mlflow_server)


def track(
    store, name, folder, step=lambda engine, batch: [{"loss": 1.0}], handlers=(), artifacts=None, epoch=0, **options
):
    """An engine of one step, recorded by MONAI's own handlers: that of a trainer and that of its validation.

    It starts after ``epoch``, as one that loads the state of a training.
    """
    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", epoch))
    given = {"tracking_uri": store, "experiment_name": "tests", "run_name": name, "epoch_log": False}
    recorder = MLFlowHandler(**given, iteration_log=True, output_transform=lambda x: x[0]["loss"], artifacts=artifacts)
    recorder.close_on_complete = True
    recorder.attach(engine)
    other = MLFlowHandler(**given, iteration_log=False)
    return engine, TrackedRun(engine, [object(), recorder, other, *handlers], folder, **options)


def run(*arguments, **options):
    engine, tracked = track(*arguments, **options)
    with tracked:
        engine.run(range(1))


def runs(client, name):
    """By start, the oldest first."""
    experiment = client.get_experiment_by_name("tests")
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [run for run in found if run.info.run_name == name]


def artifacts(client, run, folder=None):
    found = []
    for entry in client.list_artifacts(run.info.run_id, folder):
        found += artifacts(client, run, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


def test_without_mlflow_nothing_happens(tmp_path):
    engine = Engine(lambda engine, batch: None)
    overlays = ExampleOverlays()
    with TrackedRun(engine, [overlays], tmp_path, parameters={"a": 1}):
        engine.run(range(1))
    assert overlays.sinks == []
    assert not list(tmp_path.iterdir())


def test_what_a_run_holds(mlflow_server, client, tmp_path):
    write_kaggle(tmp_path, "p0", shape=(32, 32, 2))
    studies, _ = find_studies(tmp_path / "kaggle_3m", masks="required")
    split, config = tmp_path / "split.json", tmp_path / "config_20260101_120000.json"
    for path in (split, config):
        path.write_text("{}")
    overlays = ExampleOverlays()

    def step(engine, batch):
        overlays.sinks[0]("patient/1", np.zeros((8, 8, 3), np.uint8), 7)
        return [{"loss": 0.25}]

    run(
        *(mlflow_server, "holds", tmp_path, step),
        handlers=[overlays],
        artifacts=f"{tmp_path} + '/{config.name}'",  # as MONAI has it: the text of an expression
        dataset_dir=tmp_path / "kaggle_3m",
        datasets={"training": studies, "validation": []},
        parameters={"features": [4, 8], "seed": 3},
        metadata={"name": "A bundle", "version": "0.1.2"},
        files=[split, tmp_path / "never.csv", ""],
    )
    (found,) = runs(client, "holds")
    assert found.info.status == "FINISHED"
    assert json.loads((tmp_path / TrackedRun.FILE).read_text()) == {"run_id": found.info.run_id}
    assert found.data.params.items() >= {"features": "[4, 8]", "seed": "3", "max_epochs": "1"}.items()
    assert found.data.metrics["Loss"] == 0.25
    tags = found.data.tags
    assert tags["provenance.bundle"] == "A bundle 0.1.2"
    assert {"provenance.processor", "provenance.memory", "provenance.command", "provenance.packages"} <= tags.keys()
    assert not {"earlier_run", "error", "resumed_after_epoch"} & tags.keys()
    (data,) = found.inputs.dataset_inputs
    assert data.dataset.name == "kaggle_3m"
    assert {tag.key: tag.value for tag in data.tags} == {"mlflow.data.context": "training", "split": "train"}
    assert artifacts(client, found) == [config.name, "overlays/patient_1_epoch_0007.png", "patients.json", "split.json"]
    overlays.sinks[0]("patient/1", np.zeros((8, 8, 3), np.uint8), 8)  # the run is over
    assert len(artifacts(client, found, "overlays")) == 1


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RuntimeError("crashed\nbadly"), "FAILED", "RuntimeError: crashed badly"),
        (InputError("a.nii", "nothing", "a head"), "FAILED", "InputError: a.nii: found nothing, allowed a head"),
        (SystemExit(1), "FAILED", "SystemExit: 1"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt: "),
        (SystemExit(143), "KILLED", "SystemExit: 143"),
    ],
)
def test_how_a_run_ends(mlflow_server, client, tmp_path, error, status, text):
    def step(engine, batch):
        raise error

    name = f"ends {type(error).__name__} {status}"
    with pytest.raises(type(error)):
        run(mlflow_server, name, tmp_path, step, parameters={"seed": 1}, files=[tmp_path / "none"])
    (found,) = runs(client, name)
    assert (found.info.status, found.data.tags["error"].strip()) == (status, text.strip())
    assert found.info.end_time is not None
    assert found.data.params["seed"] == "1", "a crashed run has its parameters too"


def test_sigterm_ends_a_run(mlflow_server, client, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        run(mlflow_server, "sigterm", tmp_path, lambda engine, batch: os.kill(os.getpid(), signal.SIGTERM))
    assert runs(client, "sigterm")[0].info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is before


def test_engine_is_run_inside(mlflow_server, client, tmp_path, capsys):
    def step(engine, batch):
        raise InputError("a.nii", "nothing", "a head")

    engine, tracked = track(mlflow_server, "inside", tmp_path, step)
    with pytest.raises(SystemExit, match="1"):
        run_engine(engine, tracked=tracked, data=range(1))
    assert capsys.readouterr().err.splitlines()[-1] == "error: a.nii: found nothing, allowed a head"
    assert runs(client, "inside")[0].info.status == "FAILED"


def test_a_server_that_goes_away(mlflow_server, client, tmp_path, capsys, caplog):
    """In one line, without the traceback that the engine logs of any other error."""

    def step(engine, batch):
        with quick_requests():
            mlflow.MlflowClient("http://127.0.0.1:9").log_metric("0123", "Loss", 1.0)

    engine, tracked = track(mlflow_server, "goes away", tmp_path, step)
    with pytest.raises(SystemExit, match="1"):
        run_engine(engine, tracked=tracked, data=range(1))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith(
        f"error: {mlflow_server}: found no MLflow store that takes the run (no server answers there)"
    )
    assert "Traceback" not in caplog.text
    assert runs(client, "goes away")[0].info.status == "FAILED"


def test_no_run_is_appended_to(mlflow_server, client, tmp_path):
    """Of a failed run, a finished one and one that was killed without a word, none is continued."""

    def crash(engine, batch):
        raise RuntimeError("crashed")

    with pytest.raises(RuntimeError):
        run(mlflow_server, "again", tmp_path, crash, parameters={"features": 4})

    engine, tracked = track(mlflow_server, "again", tmp_path, epoch=1, parameters={"features": 8})
    with tracked:
        engine.run(range(1), max_epochs=2)
    # a third start is killed: nothing of it runs any more, and its run is left as it was
    _, third = track(mlflow_server, "again", tmp_path)
    third.__enter__()
    third._surroundings.close()
    failed, finished, lost = runs(client, "again")
    assert lost.info.status == "RUNNING"
    # the same name in another folder has nothing to do with it
    run(mlflow_server, "again", tmp_path / "elsewhere")
    assert runs(client, "again")[2].info.status == "RUNNING"
    run(mlflow_server, "again", tmp_path)
    found = runs(client, "again")
    assert [run.info.status for run in found] == ["FAILED", "FINISHED", "FAILED", "FINISHED", "FINISHED"]
    assert (failed.data.params["features"], finished.data.params["features"]) == ("4", "8")
    assert [run.data.tags.get("earlier_run") for run in found] == [
        None, failed.info.run_id, finished.info.run_id, None, lost.info.run_id,
    ]  # fmt: skip
    assert finished.data.tags["resumed_after_epoch"] == "1"
    assert found[2].data.tags["error"] == "its process ended without a word"
    assert [len(client.get_metric_history(run.info.run_id, "Loss")) for run in found] == [0, 1, 0, 1, 1]


def test_results_are_those_of_this_run(mlflow_server, client, tmp_path):
    def step(engine, batch):
        (tmp_path / "overlays" / "new.png").write_bytes(b"")
        estimate = {"mean": 0.5, "median": 0.5, "ci95": [0.4, 0.6], "n": 2}
        content = {"dice": estimate, "hd95": {"tc": estimate, "wt": {**estimate, "mean": None}}, "scored": 2}
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        (tmp_path / "metrics.csv").write_text("patient,dice\na,0.5\n")
        return [{"loss": 1.0}]

    (tmp_path / "overlays").mkdir()
    names = ("metrics.json", "metrics.csv", "overlays", "measurements.csv")
    for path in (tmp_path / "overlays" / "old.png", tmp_path / "measurements.csv"):
        path.write_bytes(b"")
        os.utime(path, (1, 1))
    run(mlflow_server, "results", tmp_path, step, results=[tmp_path / name for name in names])
    (found,) = runs(client, "results")
    assert artifacts(client, found) == ["metrics.csv", "metrics.json", "overlays/new.png"]
    means = {name: value for name, value in found.data.metrics.items() if name.startswith("results/")}
    assert means == {"results/dice": 0.5, "results/hd95_tc": 0.5}


@pytest.mark.parametrize("local", [False, True], ids=["server", "file"])
def test_checkpoint_is_logged_and_registered(mlflow_server, tmp_path, local):
    store = f"sqlite:///{tmp_path / 'mlruns.db'}" if local else mlflow_server
    client = mlflow.MlflowClient(store)
    best, last = tmp_path / "model_best.pt", tmp_path / "model_last.pt"
    last.write_bytes(b"last")
    checksum = hashlib.sha256(b"last").hexdigest()
    options = {"metadata": {"name": "A bundle", "version": "0.1.2"}, "checkpoints": [best, last]}
    run(store, "checkpoint", tmp_path, **options, register_model="tests model")
    (found,) = runs(client, "checkpoint")
    assert (found.data.tags["checkpoint.file"], found.data.tags["checkpoint.sha256"]) == ("model_last.pt", checksum)
    assert artifacts(client, found, "model") == ["model/configs/metadata.json", "model/models/model.pt"]
    best.write_bytes(b"best")
    run(store, "checkpoint", tmp_path, **options, register_model="tests model")
    first, second = (client.get_model_version("tests model", number) for number in ("1", "2"))
    assert (first.run_id, first.status) == (found.info.run_id, "READY")
    assert first.tags.items() >= {"bundle": "A bundle 0.1.2", "checkpoint.sha256": checksum}.items()
    assert second.tags["checkpoint.sha256"] == hashlib.sha256(b"best").hexdigest()
    if local:
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["mlruns"]


def test_nothing_to_register_with(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        TrackedRun(Engine(lambda engine, batch: None), [], tmp_path, register_model="a")
    assert capsys.readouterr().err == (
        "error: register_model: found 'a', allowed a name together with --tracking mlflow\n"
    )


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9: found no MLflow store .*no server answers"):
        run("http://me:secret@127.0.0.1:9", "nowhere", tmp_path)
    assert not (tmp_path / TrackedRun.FILE).exists()
