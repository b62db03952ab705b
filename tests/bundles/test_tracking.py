"""Two processes train, MLflow and TensorBoard record, one process continues, the result is evaluated."""

from __future__ import annotations

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
def client(trained: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{trained / 'mlruns.db'}")


@pytest.fixture(scope="module")
def trained(
    bundle: Path, small: Small, patients: Patients, run_in: Runner, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that a training by two processes leaves."""
    output = tmp_path_factory.mktemp(f"trained_{bundle.name}") / "first"
    ids = {"dataset_dir": patients.folder, "split_file": patients.split_file, "output_dir": output}
    done = run_in(
        bundle,
        *["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run", "training"],
        *TRAIN,
        *as_options({**ids, **small.network, **small.training, "tracking": "mlflow"}),
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"epoch 2/2: 100%", done.stderr)) == 1, "a bar of the first process alone"
    return output


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


def test_one_run_with_curves_and_parameters(client: Any, small: Small, trained: Path) -> None:
    (run,) = runs(client, trained.name)
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
    assert {"provenance.command", "provenance.packages"} <= run.data.tags.keys()


def test_run_holds_config_split_and_pictures(client: Any, trained: Path, patients: Patients, tmp_path: Path) -> None:
    (run,) = runs(client, trained.name)
    found = artifacts(client, run)
    (config,) = [path for path in found if re.fullmatch(r"config_\d{8}_\d{6}\.json", path)]
    executed = json.loads(Path(client.download_artifacts(run.info.run_id, config, str(tmp_path))).read_text())
    assert executed["output_dir"] == str(trained)
    assert "split.json" in found
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


def test_evaluation_is_tracked(
    bundle: Path, small: Small, patients: Patients, trained: Path, client: Any, run_in: Runner
) -> None:
    output = trained.parent / "evaluated"
    ids = {"dataset_dir": patients.folder, "split_file": patients.split_file, "split": "test", "output_dir": output}
    done = run_in(
        bundle,
        *["monai.bundle", "run", "evaluating"],
        *["--config_file", "['configs/inference.json','configs/evaluate.yaml']"],
        *as_options({**ids, "ckpt_path": trained / "model_last.pt", **small.network}),
        # the store that is there already, for to make a new one takes seconds
        *["--tracking", "mlflow", "--tracking_uri", f"sqlite:///{trained / 'mlruns.db'}"],
    )
    assert done.returncode == 0, done.stderr
    (run,) = runs(client, "evaluated")
    assert run.info.status == "FINISHED"
    assert "val_mean_dice" in run.data.metrics
    assert run.data.params["split"] == "test"
    assert "provenance.weights_sha256" in run.data.tags
    found = artifacts(client, run)
    assert {"metrics.csv", "metrics.json"} <= set(found)
    assert any(re.fullmatch(r"config_\d{8}_\d{6}\.json", path) for path in found)
    assert any(path.endswith(".png") for path in found)
