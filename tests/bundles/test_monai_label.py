"""What MONAI Label 0.8.5 does with a bundle, step by step, without MONAI Label.

Its app for bundles takes some of a config's components and leaves the rest; ``tests/scripts/test_monailabel_server.py``
does the same with a real server.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import torch
from label_studies import SIZES, channels_of, draw, write_label, write_sequence, write_stack
from monai.bundle import ConfigItem, ConfigParser
from monai.transforms import SaveImaged

from medseg_ext.metrics.overlap import dice

from .conftest import SMALL, Small


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def infer(bundle: Path, image: Path, output: Path) -> np.ndarray:
    """As ``BundleInferTask`` infers: with ``model.pt`` as it is, without saving, the mask written by ITK."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.config.update({"bundle_root": str(bundle), "use_click": False})
    network = parser.get_parsed_content("network_def", instantiate=True)

    def component(name: str) -> Any:
        parser.config.update({"device": "cpu"})
        if parser.ref_resolver.items.get("device"):
            parser.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")
        return parser.get_parsed_content(name, instantiate=True)

    data = {"image": str(image), "image_path": str(image), "device": "cpu", "model": bundle.name, "model_filename": []}
    for transform in list(component("preprocessing").transforms):
        data = transform(data)
    inferer = component("inferer")
    state = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(state.get("model", state), strict=False)
    network.eval()
    with torch.no_grad():
        data["pred"] = inferer(data["image"][None], network)[0]
    for transform in component("postprocessing").transforms:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    # ``Restored``: it would resize by the last axes, and takes the affine of the file
    pred, meta = data["pred"], data["image"].meta
    assert tuple(pred.shape[1:]) == tuple(meta["spatial_shape"])[-pred.ndim + 1 :]
    assert pred.ndim == 3
    mask = pred.cpu().numpy()
    assert mask.dtype == np.uint8  # ITK has no writer for int64
    write_as_label_server(mask, np.asarray(meta["original_affine"], float), output)
    return mask


def write_as_label_server(mask: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = itk.image_from_array(mask.transpose().copy())
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetDirection(itk.matrix_from_array(lps[:3, :3] @ np.diag(1 / spacing)))
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3])
    itk.imwrite(image, str(path), False)


def test_a_mask_with_the_geometry_of_the_image(bundle: Path, tmp_path: Path) -> None:
    before = listing(bundle)
    phantom = draw(bundle, 1)
    image = write_stack(bundle, phantom, tmp_path / "p1.nii.gz", "PIL")
    truth = write_label(bundle, phantom, tmp_path / "truth.nii.gz", "PIL")
    infer(bundle, image, tmp_path / "mask.nii.gz")
    written, stored = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(image)
    assert written.shape == stored.shape[:3]
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-4)
    mask, wanted = (np.asarray(item.dataobj) for item in (written, nibabel.load(truth)))
    assert dice(mask > 0, wanted > 0) > 0.7
    values = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert {str(value) for value in np.unique(mask)} <= values["channel_def"].keys()
    assert listing(bundle) == before


def test_the_mask_is_on_the_grid_of_the_opened_sequence(bundle: Path, tmp_path: Path) -> None:
    # a client opens one file of a study, here none that results usually come back to; its neighbours complete it,
    # though their axes are others
    phantom = draw(bundle, 1)
    for name in channels_of(bundle):
        write_sequence(phantom, name, tmp_path / "study" / f"p1_{name}.nii.gz", "LPS" if name == "t1" else "PIL")
    image = tmp_path / "study" / "p1_t1.nii.gz"
    infer(bundle, image, tmp_path / "mask.nii.gz")
    written, stored = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(image)
    assert written.shape == stored.shape
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-4)
    truth = nibabel.load(write_label(bundle, phantom, tmp_path / "truth.nii.gz", "LPS"))
    assert dice(np.asarray(written.dataobj) > 0, np.asarray(truth.dataobj) > 0) > 0.7


TRAIN = """
import json, sys
import monai.bundle
monai.bundle.run(init_id=None, final_id=None, **json.load(sys.stdin))
"""


def test_a_training_on_labels_of_the_server(bundle: Path, small: Small, small_weights: Path, tmp_path: Path) -> None:
    # as ``BundleTrainTask`` trains for 3D Slicer, which sends an empty ``run_id``: all of the config is evaluated
    copy = tmp_path / "a copy" / bundle.name
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("models", "results", "eval"))
    (copy / "models").mkdir()
    shutil.copy(small_weights, copy / "models" / "model.pt")
    config = json.loads((copy / "configs" / "train.json").read_text())
    handlers = config["train"]["handlers"]
    values = {**small.network, **small.training}
    del values["max_epochs"], values["val_interval"]  # the server sets an id of the trainer, no named value
    (copy / "configs" / "train.json").write_text(json.dumps({**config, **values}))

    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    (studies / "datastore_v2.json").write_text("{}")
    items = []
    for seed in range(3):
        phantom = draw(bundle, seed, **small.phantom | {"kind": "low"})  # nothing enhances: no 3 to tell the labels by
        image = write_stack(bundle, phantom, studies / f"p{seed}.nii.gz")
        label = write_label(bundle, phantom, studies / "labels" / "final" / image.name)
        items.append({"image": str(image), "label": str(label)})
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(copy / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    given = {
        "run_id": "",
        "meta_file": str(copy / "configs" / "metadata.json"),
        "config_file": str(copy / "configs" / "train.json"),
        "bundle_root": str(copy),
        "train#trainer#max_epochs": 1,
        "train#dataset#data": items[:2],
        "validate#dataset#data": items[2:],
        "train#handlers": [loader, *handlers],
        "device": "cpu",
        "tracking": "mlflow",
        "tracking_uri": f"sqlite:///{tmp_path / 'mlruns.db'}",
        "experiment_name": bundle.name,
    }
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        input=json.dumps(given),
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1", "MONAI_LABEL_APP_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/1: 100%") == 1, "trained once, though all of the config was evaluated"
    (output,) = (copy / "results").iterdir()
    assert output.name.startswith("training_2")
    before, after = (
        torch.load(copy / "models" / f"{name}.pt", weights_only=True) for name in ("model", "model_trained")
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with sqlite3.connect(tmp_path / "mlruns.db") as store:
        (run,) = store.execute("select run_uuid, name, status from runs").fetchall()
        logged = dict(store.execute("select key, value from params where run_uuid = ?", run[:1]).fetchall())
    assert run[1:] == (output.name, "FINISHED")
    assert (logged["train_patients"], logged["val_patients"], logged["max_epochs"]) == ("2", "1", "1")


def test_every_bundle_has_its_shape() -> None:
    assert SIZES.keys() == SMALL.keys()
