"""The bundle's own training in several processes: the curve of one, on two nodes, and what happens when one is lost."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import lgg_training
import psutil
import pytest
import torch

SMALL = lgg_training.SMALL | {
    "samples_per_epoch": 32,
    "max_epochs": 2,
    # every process has a batch of its own, so that batch normalisation is not that of one process
    "network_def::backbone::norm_name": "instance",
    "amp": False,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle without its weights, and five patients of whom three validate, an uneven share each."""
    split = {"train": ["p0", "p1"], "val": ["p2", "p3", "p4"]}
    return lgg_training.prepare(tmp_path_factory.mktemp("torchrun"), 5, split)


def start(place: Path, name: str, launcher: list[str], **options: object) -> subprocess.Popen:
    return lgg_training.start_training(place, name, SMALL | options, launcher)


TWO = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def log(place: Path, name: str) -> str:
    return (place / f"{name}.log").read_text()


def curve(folder: Path, tag: str) -> list[float]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values: dict[int, float] = {}
    for path in folder.glob("events.out.tfevents.*"):
        events = accumulator.EventAccumulator(str(path)).Reload()
        if tag in events.Tags()["scalars"]:
            values |= {event.step: event.value for event in events.Scalars(tag)}
    return [values[step] for step in sorted(values)]


def test_two_nodes_have_the_curve_of_one_process(place: Path) -> None:
    """With half the batch each, and with half of that and two batches a step; the validation is shared, two and one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = ["torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
    processes = [start(place, "alone", [], batch_size=8)]
    for rank in range(2):
        launcher = [*node, f"--master_port={port}", f"--node_rank={rank}"]
        processes.append(start(place, "nodes", launcher, batch_size=4))
    try:
        for process in processes:
            assert process.wait(timeout=500) == 0, log(place, "alone") + log(place, "nodes")
    finally:
        for process in processes:
            process.kill()
    # rounding may put a pixel on the other side of the threshold
    for tag, count, tolerance in (("train_loss", 8, 1e-4), ("val_mean_dice", 2, 5e-3)):
        alone, nodes = (curve(place / name, tag) for name in ("alone", "nodes"))
        assert len(alone) == count
        assert nodes == pytest.approx(alone, rel=tolerance, abs=1e-6), tag
    losses = curve(place / "alone", "train_loss")
    assert max(losses) - min(losses) > 0.01, "a curve, no line"
    states = [torch.load(place / name / "training_state.pt", weights_only=True) for name in ("alone", "nodes")]
    for name, value in states[0]["objects"]["network"].items():
        torch.testing.assert_close(states[1]["objects"]["network"][name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert states[0]["iteration"] == states[1]["iteration"] == 8


def workers(launcher: subprocess.Popen, deadline: float) -> list[psutil.Process]:
    """The processes that torchrun started, by rank."""
    while time.monotonic() < deadline:
        found = psutil.Process(launcher.pid).children()
        if len(found) == 2:
            return sorted(found, key=lambda process: int(process.environ()["RANK"]))
        time.sleep(0.1)
    raise AssertionError("no two processes")


def wait_for(path: Path, launcher: subprocess.Popen, deadline: float) -> None:
    while not path.exists() and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


LONG = {"samples_per_epoch": 96, "batch_size": 4, "max_epochs": 4}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_command_goes_on(place: Path, rank: int) -> None:
    name, whole = f"killed_{rank}", start(place, f"whole_{rank}", TWO, **LONG)
    killed = start(place, name, TWO, **LONG)
    try:
        deadline = time.monotonic() + 300
        pair = workers(killed, deadline)
        wait_for(place / name / "training_state.pt", killed, deadline)
        time.sleep(random.uniform(0, 0.5))
        pair[rank].kill()
        killed.wait(timeout=30)
        assert killed.returncode != 0
        assert not any(process.is_running() for process in pair)
        text = log(place, name)
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, text
        assert lines[0].startswith(f"error: process {1 - rank} of 2: found ")
        assert lines[0].endswith("the same command goes on from what is done")
        assert "ignite" not in text, "no traceback of the one that is left"
        resumed = start(place, name, TWO, **LONG)
        assert resumed.wait(timeout=300) == 0, log(place, name)
        assert whole.wait(timeout=300) == 0, log(place, f"whole_{rank}")
    finally:
        for process in (whole, killed):
            process.kill()
    assert "continuing after epoch" in log(place, name)
    for file in ("model_best.pt", "model_last.pt"):
        assert (place / name / file).read_bytes() == (place / f"whole_{rank}" / file).read_bytes()


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for(place: Path) -> None:
    hanging = start(place, "hanging", TWO, **(LONG | {"max_epochs": 100, "process_timeout": 0.1}))
    pair = []
    try:
        deadline = time.monotonic() + 300
        pair = workers(hanging, deadline)
        wait_for(place / "hanging" / "training_state.pt", hanging, deadline)
        pair[1].send_signal(signal.SIGSTOP)
        hanging.wait(timeout=90)  # torchrun gives the one that hangs half a minute to stop
    finally:
        hanging.kill()
        for process in pair:
            if process.is_running():
                process.kill()
    assert hanging.returncode != 0
    lines = [line for line in log(place, "hanging").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith(
        "error: process 0 of 2: found another one gone, or not there in time ("
    )
