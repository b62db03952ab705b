"""Two processes train, an MLflow server and TensorBoard record, one process continues, the registered model is used."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import Patients, Runner, Small, as_options
from .test_contract import network

mlflow = pytest.importorskip("mlflow")
TRAIN = ["--config_file", "['configs/train.json','configs/multi_gpu.yaml']"]


@pytest.fixture(scope="module")
def client(mlflow_server: str) -> Any:
    return mlflow.MlflowClient(mlflow_server)


@pytest.fixture(scope="module")
def trained(
    bundle: Path,
    small: Small,
    patients: Patients,
    run_in: Runner,
    mlflow_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder that a training by two processes leaves."""
    output = tmp_path_factory.mktemp(f"trained_{bundle.name}") / "first"
    ids = {"dataset_dir": patients.folder, "split_file": patients.split_file, "output_dir": output}
    done = run_in(
        bundle,
        *["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run", "training"],
        *TRAIN,
        *as_options({**ids, **small.network, **small.training, "tracking": "mlflow", "tracking_uri": mlflow_server}),
        *as_options({"run_name": f"{bundle.name} first", "register_model": bundle.name}),
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"epoch 2/2: 100%", done.stderr)) == 1, "a bar of the first process alone"
    return output


def metadata(bundle: Path) -> Any:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def runs(client: Any, name: str) -> list[Any]:
    found = [run for e in client.search_experiments() for run in client.search_runs(e.experiment_id)]
    return [run for run in found if run.info.run_name == name]


def artifacts(client: Any, run: Any, folder: str | None = None) -> list[str]:
    found = []
    for entry in client.list_artifacts(run.info.run_id, folder):
        found += artifacts(client, run, entry.path) if entry.is_dir else [entry.path]
    return found


def test_weights_carry_no_prefix(bundle: Path, small: Small, trained: Path) -> None:
    assert sorted(path.name for path in trained.glob("*.pt")) == ["model_best.pt", "model_last.pt", "training_state.pt"]
    wanted = network(bundle, small.network).state_dict()
    for name in ("model_best.pt", "model_last.pt"):
        weights = torch.load(trained / name, weights_only=True)
        assert weights.keys() == wanted.keys()
    state = torch.load(trained / "training_state.pt", weights_only=True)
    assert state["epoch"] == small.training["max_epochs"]
    assert state["network"].keys() == state["objects"]["network"].keys() == wanted.keys()


def test_one_run_with_curves_and_parameters(client: Any, bundle: Path, small: Small, trained: Path) -> None:
    (run,) = runs(client, f"{bundle.name} first")
    assert run.info.status == "FINISHED"
    for name in ("train_loss", "lr_group_0"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        # an epoch's samples in batches from 2 processes
        count = small.training["samples_per_epoch"] // (2 * small.training["batch_size"]) * small.training["max_epochs"]
        assert steps == list(range(1, count + 1)), name
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val_mean_dice")] == [1, 2]
    assert run.data.params["world_size"] == "2"
    assert run.data.params["features"] == str(small.network["features"])
    assert run.data.params["train_patients"] == "2"
    assert {"provenance.command", "provenance.packages", "provenance.processor"} <= run.data.tags.keys()
    assert run.data.tags["provenance.bundle"].endswith(f" {metadata(bundle)['version']}")


def test_run_names_its_data(client: Any, bundle: Path, patients: Patients, trained: Path) -> None:
    (run,) = runs(client, f"{bundle.name} first")
    found = {tag.value: data.dataset for data in run.inputs.dataset_inputs for tag in data.tags}
    assert found.keys() == {"training", "train", "validation", "val"}
    assert found["training"].digest != found["validation"].digest
    assert {data.name for data in found.values()} == {patients.folder.name}
    assert json.loads(found["training"].profile)["patients"] == 2


def test_model_is_registered_with_its_checksum(client: Any, bundle: Path, trained: Path, tmp_path: Path) -> None:
    (run,) = runs(client, f"{bundle.name} first")
    (version,) = client.search_model_versions(f"name='{bundle.name}'")
    assert version.run_id == run.info.run_id
    checksum = hashlib.sha256((trained / "model_best.pt").read_bytes()).hexdigest()
    assert version.tags["checkpoint.sha256"] == run.data.tags["checkpoint.sha256"] == checksum
    path = Path(client.download_artifacts(run.info.run_id, "model/configs/metadata.json", str(tmp_path)))
    assert json.loads(path.read_text()) == metadata(bundle) | {"eval_metrics": {}}, "those of the shipped weights"


def test_run_holds_config_split_and_pictures(
    client: Any, bundle: Path, trained: Path, patients: Patients, tmp_path: Path
) -> None:
    (run,) = runs(client, f"{bundle.name} first")
    found = artifacts(client, run)
    (config,) = [path for path in found if re.fullmatch(r"config_\d{8}_\d{6}\.json", path)]
    executed = json.loads(Path(client.download_artifacts(run.info.run_id, config, str(tmp_path))).read_text())
    assert executed["output_dir"] == str(trained)
    assert {"split.json", "patients.json", "model/models/model.pt"} <= set(found)
    (patient,) = json.loads(patients.split_file.read_text())["val"]
    assert [path for path in found if path.startswith("overlays/")] == [
        f"overlays/{patient}_epoch_0001.png",
        f"overlays/{patient}_epoch_0002.png",
    ]


def test_tensorboard_has_curves_and_pictures(trained: Path, patients: Patients) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tags: dict[str, set[str]] = {"scalars": set(), "images": set()}
    for path in trained.glob("events.out.tfevents.*"):
        events = accumulator.EventAccumulator(str(path)).Reload().Tags()
        for kind, names in tags.items():
            names |= set(events[kind])
    (patient,) = json.loads(patients.split_file.read_text())["val"]
    assert {"train_loss", "val_mean_dice"} <= tags["scalars"]
    assert tags["images"] == {f"overlays/{patient}"}


def test_one_process_continues_what_two_began(
    bundle: Path, small: Small, patients: Patients, trained: Path, run_in: Runner, tmp_path: Path
) -> None:
    output = tmp_path / "second"
    output.mkdir()
    (output / "training_state.pt").write_bytes((trained / "training_state.pt").read_bytes())
    ids = {"dataset_dir": patients.folder, "split_file": patients.split_file, "output_dir": output}
    done = run_in(
        bundle,
        *["monai.bundle", "run", "training", "--config_file", "configs/train.json"],
        *as_options({**ids, **small.network, **small.training, "max_epochs": 3}),
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 3/3: 100%" in done.stderr
    assert "epoch 2/3" not in done.stderr
    assert torch.load(output / "training_state.pt", weights_only=True)["epoch"] == 3


def test_evaluation_of_the_registered_model_is_tracked(
    bundle: Path, small: Small, patients: Patients, trained: Path, mlflow_server: str, client: Any, run_in: Runner
) -> None:
    output = trained.parent / "evaluated"
    ids = {"dataset_dir": patients.folder, "split_file": patients.split_file, "split": "test", "output_dir": output}
    done = run_in(
        bundle,
        *["monai.bundle", "run", "evaluating"],
        *["--config_file", "['configs/inference.json','configs/evaluate.yaml']"],
        *as_options({**ids, "ckpt_path": f"models:/{bundle.name}/1", **small.network}),
        *["--tracking", "mlflow", "--tracking_uri", mlflow_server, "--run_name", f"{bundle.name} evaluated"],
    )
    assert done.returncode == 0, done.stderr
    (run,) = runs(client, f"{bundle.name} evaluated")
    assert run.info.status == "FINISHED"
    assert "val_mean_dice" in run.data.metrics
    report = json.loads((output / "metrics.json").read_text())
    mean = report["dice"]["wt"]["mean"] if "wt" in report["dice"] else report["dice"]["mean"]
    assert run.data.metrics["results/dice_wt" if "wt" in report["dice"] else "results/dice"] == mean
    assert run.data.params["split"] == "test"
    assert run.data.params["ckpt_path"] == f"models:/{bundle.name}/1"
    assert run.data.tags["provenance.weights_sha256"] == report["provenance"]["weights_sha256"]
    (data,) = run.inputs.dataset_inputs
    assert {tag.value for tag in data.tags} == {"evaluation", "test"}
    found = artifacts(client, run)
    assert {"metrics.csv", "metrics.json", "split.json", "summary.html"} <= set(found)
    assert any(re.fullmatch(r"config_\d{8}_\d{6}\.json", path) for path in found)
    assert any(re.fullmatch(r"overlays/.*\.png", path) for path in found)


def test_inference_by_the_uri_of_a_run(
    bundle: Path, small: Small, patients: Patients, trained: Path, mlflow_server: str, run_in: Runner, tmp_path: Path
) -> None:
    run_id = json.loads((trained / "mlflow_run.json").read_text())["run_id"]
    before = sorted(bundle.iterdir())
    ids = {"dataset_dir": patients.folder, "split": "all", "output_dir": tmp_path, "ckpt_path": f"runs:/{run_id}/model"}
    options = as_options({**ids, **small.network, "tracking_uri": mlflow_server})
    done = run_in(bundle, "monai.bundle", "run", "inferring", "--config_file", "configs/inference.json", *options)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob(small.masks))) >= 4
    assert sorted(bundle.iterdir()) == before, "MLflow left something where it ran"
