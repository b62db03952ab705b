"""The bundle's own training, killed and continued, bit for bit the uninterrupted one."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import lgg_training
import pytest

SMALL = lgg_training.SMALL | {"samples_per_epoch": 16, "batch_size": 8, "max_epochs": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle without its weights, three patients and their split."""
    split = {"train": ["p0", "p1"], "val": ["p2"], "test": ["absent"]}
    return lgg_training.prepare(tmp_path_factory.mktemp("kill"), 3, split)


def start(place: Path, name: str, **options: object) -> subprocess.Popen:
    return lgg_training.start_training(place, name, SMALL | options)


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
