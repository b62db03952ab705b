"""Weights back from a real server."""

import hashlib
import json
import re
import time

import pytest

from medseg_ext.tracking import weights_file
from medseg_ext.workflow.weights import trained_channels

mlflow = pytest.importorskip("mlflow")
WEIGHTS = b"weights"


@pytest.fixture(autouse=True)
def nothing_beside(monkeypatch, tmp_path):
    """No other store, and a working folder in which anything that MLflow leaves would show."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert not list((tmp_path / "here").iterdir())


@pytest.fixture(scope="module")
def run_id(mlflow_server, tmp_path_factory):
    """A run as training leaves it; its model is version 1, by alias ``best``, and version 2 with another checksum."""
    client = mlflow.MlflowClient(mlflow_server)
    folder = tmp_path_factory.mktemp("model")
    for name, content in (
        ("models/model.pt", WEIGHTS),
        ("configs/metadata.json", json.dumps({"channel_order": ["t1"]})),
    ):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    experiment = client.create_experiment("weights")
    checksum = hashlib.sha256(WEIGHTS).hexdigest()
    run = client.create_run(experiment, tags={"checkpoint.sha256": checksum})
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.log_text(run.info.run_id, "", "empty/readme.txt")
    client.create_registered_model("weights")
    for number, known in (("1", checksum), ("2", "0" * 64)):
        source = f"{run.info.artifact_uri}/model"
        client.create_model_version("weights", source, run.info.run_id, tags={"checkpoint.sha256": known})
        if number == "1":
            client.set_registered_model_alias("weights", "best", "1")
    return run.info.run_id


@pytest.mark.parametrize(
    "uri", ["models:/weights/1", "models:/weights@best", "runs:/{}/model", "runs:/{}/model/models/model.pt"]
)
def test_fetched(mlflow_server, run_id, uri):
    path = weights_file(uri.format(run_id), tracking_uri=mlflow_server)
    assert path.read_bytes() == WEIGHTS
    if not uri.endswith(".pt"):
        assert trained_channels(path) == ["t1"], "the metadata comes along"


def test_environment_wins(mlflow_server, run_id, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    assert weights_file("models:/weights/1", tracking_uri="http://127.0.0.1:9").read_bytes() == WEIGHTS


def test_a_path_is_a_path(tmp_path):
    for path in (
        tmp_path / "model.pt",
        "models/model.pt",
        "models:x",
        "https://127.0.0.1:9/model.pt",
        "models://a/b/1",
    ):
        assert weights_file(path) == type(tmp_path)(path)


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("models:/weights/9", "nothing in .*weights, version=9"),
        ("models:/weights@worst", "nothing in .*worst"),
        ("models:/none/1", "nothing in .*none"),
        ("models:/weights/1/none.pt", "nothing in "),
        ("runs:/0123/model", "nothing in .*0123"),
        ("runs:/{}/none.pt", "nothing in "),
        ("runs:/{}/empty", "a folder without models/model.pt"),
        ("models:/weights/2", "other weights than were logged"),
    ],
)
def test_not_there(mlflow_server, run_id, uri, found, capsys):
    uri = uri.format(run_id)
    with pytest.raises(SystemExit, match="1"):
        weights_file(uri, tracking_uri=mlflow_server)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"error: {uri}: found {found}.*, allowed ", line), line


def test_no_server_and_no_store(tmp_path, capsys):
    started = time.monotonic()
    for store in ("http://127.0.0.1:9", f"sqlite:///{tmp_path / 'none.db'}"):
        with pytest.raises(SystemExit, match="1"):
            weights_file("models:/weights/1", tracking_uri=store)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: models:/weights/1: found nothing in http://127.0.0.1:9 (no server answers there), ")
    assert second.startswith(f"error: models:/weights/1: found no MLflow store at sqlite:///{tmp_path / 'none.db'}, ")
    assert time.monotonic() - started < 30, "MLflow's own patience is minutes"
    assert not (tmp_path / "none.db").exists()
