"""Both bundles in a real MONAI Label server, spoken to by MONAI Label's own client.

    ./scripts/test.sh -m monailabel

installs MONAI Label into ``.venv-monailabel`` where it is not (several GB), or uses the environment that
``MEDSEG_MONAILABEL_VENV`` names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import nibabel
import numpy as np
import pytest
import torch
from label_studies import channels_of, draw, write_label, write_sequence, write_stack

from medseg_ext.metrics.overlap import dice

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parent.parent for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
SCRIPT = ROOT / "scripts" / "monailabel.sh"
#: An epoch within seconds; whatever the bundle does not have is left out.
SHORT = {
    "samples_per_epoch": 4,
    "batch_size": 2,
    "loader_workers": 0,
    "crop_size": [96, 96],
    "patch_size": [48, 48, 48],
    "learning_rate": 1e-5,
}
CLIENT = """
import json, sys
from monailabel.client import MONAILabelClient
address, folder, method, arguments = *sys.argv[1:4], json.loads(sys.argv[4])
print(json.dumps(getattr(MONAILabelClient(address, folder), method)(**arguments)))
"""
pytestmark = pytest.mark.monailabel


@dataclass(frozen=True)
class Server:
    """A running server."""

    bundle: Path
    address: str
    studies: Path
    app: Path
    python: Path
    log: Path

    def ask(self, method: str, **arguments: Any) -> Any:
        """Call a method of MONAI Label's client."""
        # a folder of its own: it takes over the name of the server's file, which the server then removes
        answers = self.log.parent / "answers"
        answers.mkdir(exist_ok=True)
        done = subprocess.run(
            [self.python, "-c", CLIENT, self.address, answers, method, json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.log.read_text()[-5000:]
        return json.loads(done.stdout)

    def infer(self, image: str, **params: Any) -> tuple[nibabel.Nifti1Image, dict[str, Any]]:
        """The mask of an image and what came with it."""
        file, result = self.ask("infer", model=self.bundle.name, image_id=image, params=params)
        return nibabel.load(file), result

    def train(self, **params: Any) -> None:
        """Train, as 3D Slicer does: with all that the server says can be set."""
        config = self.ask("info")["trainers"][self.bundle.name]["config"]
        chosen = {name: value[0] if isinstance(value, list) else value for name, value in config.items()}
        self.ask("train_start", model=self.bundle.name, params={**chosen, **params})
        for _ in range(600):
            status = self.ask("train_status")
            if status["status"] not in {"SUBMITTED", "RUNNING"}:
                break
            time.sleep(2)
        assert status["status"] == "DONE", "\n".join(status["details"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urlopen(f"{address}/info/", timeout=30):
                return
        except (URLError, OSError):
            time.sleep(1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: path.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundle, served with three phantoms in 4-D files and one with a file a sequence."""
    bundle = Path(request.param)
    root = tmp_path_factory.mktemp(f"label_{bundle.name}")
    studies, app, log = root / "the studies", root / "the app", root / "server.log"
    for seed in range(3):
        phantom = draw(bundle, seed)
        write_stack(bundle, phantom, studies / f"p{seed}.nii.gz", "LPS")
        write_label(bundle, phantom, root / "truth" / f"p{seed}.nii.gz", "LPS")
    phantom = draw(bundle, 3)
    for name in channels_of(bundle):
        write_sequence(phantom, name, studies / f"p3_{name}.nii.gz", "PIL" if name == "t1" else "RAS")
    write_label(bundle, phantom, root / "truth" / "p3_t1.nii.gz", "PIL")

    venv = Path(os.environ.get("MEDSEG_MONAILABEL_VENV") or ROOT / ".venv-monailabel")
    subprocess.run(["bash", SCRIPT, "--install", "--app", app, "--venv", venv, "--bundle", bundle.name], check=True)
    config = app / "model" / bundle.name / "configs" / "train.json"
    values = json.loads(config.read_text())
    config.unlink()  # a link to the bundle's own; a file in its place is kept
    config.write_text(json.dumps({**values, **{name: value for name, value in SHORT.items() if name in values}}))

    port = free_port()
    options = ["--studies", studies, "--app", app, "--venv", venv, "--bundle", bundle.name, "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", SCRIPT, *options], stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, process, log)
        yield Server(bundle, address, studies, app, venv / "bin" / "python", log)
    finally:
        # the trainings that it started belong to its group
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def truth_of(server: Server, image: str) -> Path:
    return server.studies.parent / "truth" / f"{image}.nii.gz"


def check_mask(server: Server, mask: nibabel.Nifti1Image, image: str) -> float:
    stored = nibabel.load(server.studies / f"{image}.nii.gz")
    assert mask.shape == stored.shape[:3]
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, stored.affine, atol=1e-4)
    found, wanted = (np.asarray(item.dataobj) > 0 for item in (mask, nibabel.load(truth_of(server, image))))
    return float(dice(found, wanted))


def test_info_offers_the_bundle(server: Server) -> None:
    info = server.ask("info")
    meta = json.loads((server.bundle / "configs" / "metadata.json").read_text())
    assert list(info["models"]) == list(info["trainers"]) == [server.bundle.name]
    model = info["models"][server.bundle.name]
    assert model["version"] == meta["version"]
    named = meta["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert model["labels"] == {name.lower(): int(value) for value, name in named.items() if value != "0"}
    assert model["config"]["model_filename"] == ["model.pt", "model_trained.pt"]
    with urlopen(f"{server.address}/ohif/", timeout=60) as page:
        assert b"OHIF" in page.read()


def test_masks_lie_on_their_images(server: Server) -> None:
    found = {image: server.infer(image) for image in ("p0", "p1", "p3_t1")}
    scores = {image: check_mask(server, mask, image) for image, (mask, _) in found.items()}
    print(server.bundle.name, "Dice:", scores)
    assert min(scores.values()) > 0.6
    names = server.ask("info")["models"][server.bundle.name]["labels"]
    assert all(result["label_names"] == names for _, result in found.values())


def test_an_image_that_is_none_ends_in_an_error(server: Server) -> None:
    (server.studies / "broken.nii.gz").write_bytes(b"no volume")
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{server.address}/infer/{server.bundle.name}?image=broken", data=b"", timeout=300)
    assert caught.value.code == 500
    (server.studies / "broken.nii.gz").unlink()
    assert server.ask("info")["name"], "the server goes on"


def test_trainings_on_saved_labels(server: Server) -> None:
    folder = server.app / "model" / server.bundle.name
    assert (folder / "models" / "model_trained.pt").is_symlink()
    for image in ("p0", "p1", "p2"):
        path = truth_of(server, image)
        server.ask("save_label", image_id=image, label_in=str(path), tag="final", params={})
        kept = nibabel.load(server.studies / "labels" / "final" / path.name)
        np.testing.assert_array_equal(np.asarray(kept.dataobj), np.asarray(nibabel.load(path).dataobj))
    server.train(max_epochs=1, tracking="mlflow", val_split=0.34)
    first = torch.load(folder / "models" / "model_trained.pt", weights_only=True)
    server.train(max_epochs=2, tracking="mlflow", val_split=0.34, model_filename="model_trained.pt", run_id="run")
    second = torch.load(folder / "models" / "model_trained.pt", weights_only=True)
    shipped = torch.load(server.bundle / "models" / "model.pt", weights_only=True)
    assert first.keys() == second.keys() == shipped.keys()
    assert any(not torch.equal(first[name], shipped[name]) for name in shipped)
    assert any(not torch.equal(first[name], second[name]) for name in shipped)

    outputs = sorted(path.name for path in (folder / "results").iterdir())
    assert len(outputs) == 2, "each training in a folder of its own"
    with sqlite3.connect(server.app / "mlruns.db") as store:
        runs = store.execute("select name, status, run_uuid from runs order by start_time").fetchall()
        epochs = [
            store.execute("select value from params where key = 'max_epochs' and run_uuid = ?", run[2:]).fetchone()
            for run in runs
        ]
        (experiment,) = store.execute("select name from experiments where name = ?", [server.bundle.name]).fetchone()
        scores = store.execute("select value from metrics where key = 'val_mean_dice' order by timestamp").fetchall()
    assert [run[:2] for run in runs] == [(name, "FINISHED") for name in outputs]
    assert epochs == [("1",), ("2",)]
    assert experiment == server.bundle.name
    assert scores[0][0] > 0.6, "it began with the shipped weights"

    mask, _ = server.infer("p0", model_filename="model_trained.pt")
    assert check_mask(server, mask, "p0") > 0.6
