"""The bundle's own training, killed and continued, bit for bit the uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_patients import write_kaggle

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "lgg_2d_segmentation"
SMALL = {
    "features": "[4,8,8]",
    "crop_size": "[64,64]",
    "samples_per_epoch": 16,
    "batch_size": 8,
    "max_epochs": 4,
    "val_interval": 1,
    "loader_workers": 0,
    "warmup_iterations": 2,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle without its weights, three patients and their split."""
    place = tmp_path_factory.mktemp("kill")
    shutil.copytree(BUNDLE, place / "bundle", ignore=shutil.ignore_patterns("*.pt", "results", "data"))
    for seed in range(3):
        write_kaggle(place, f"p{seed}", seed)
    (place / "split.json").write_text(json.dumps({"train": ["p0", "p1"], "val": ["p2"], "test": ["absent"]}))
    return place


def start(place: Path, name: str, **options: object) -> subprocess.Popen:
    given = {"dataset_dir": place / "kaggle_3m", "split_file": place / "split.json", "output_dir": place / name}
    arguments = [text for key, value in (given | SMALL | options).items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", "configs/train.json"]
    with (place / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=place / "bundle",
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(process: subprocess.Popen, place: Path, name: str) -> None:
    assert process.wait(timeout=500) == 0, (place / f"{name}.log").read_text()


def weights(place: Path, name: str) -> dict[str, bytes]:
    return {file: (place / name / file).read_bytes() for file in ("model_best.pt", "model_last.pt")}


def test_a_killed_training_ends_alike(place: Path) -> None:
    whole, other, killed = start(place, "whole"), start(place, "other", seed=1), start(place, "killed")
    try:
        state, deadline = place / "killed" / "training_state.pt", time.monotonic() + 300
        while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        pause = random.uniform(0, 0.4)
        time.sleep(pause)
        killed.kill()
        killed.wait(timeout=60)
        assert state.exists(), (place / "killed.log").read_text()
        finish(whole, place, "whole")
        finish(other, place, "other")
        resumed = start(place, "killed")
        finish(resumed, place, "killed")
    finally:
        for process in (whole, other, killed):
            process.kill()
    if killed.returncode == -9:  # it had not ended by itself
        assert "continuing after epoch" in (place / "killed.log").read_text()
    assert weights(place, "killed") == weights(place, "whole"), f"killed {pause} s after the first state"
    assert not list((place / "killed").glob(".part-*"))
    # another seed is another training, so the equality above says something
    assert weights(place, "other")["model_last.pt"] != weights(place, "whole")["model_last.pt"]
