"""Real patients, where they are at hand: `$MEDSEG_DATA`, by default `../shared/data` beside the repository.

And a real MLflow server, on this machine alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def medseg_data() -> Path:
    """The folder of real patients; skips where there is none."""
    path = Path(os.environ.get("MEDSEG_DATA") or ROOT.parent / "shared" / "data")
    if not (path / "unpack.py").is_file():
        pytest.skip(f"no real patients in {path} (MEDSEG_DATA names their folder)")
    return path


@pytest.fixture(scope="session")
def lgg_dir(medseg_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives ``lgg_dir(split="val", limit=1)``: the folder that holds ``kaggle_3m`` with that many patients."""
    unpacked: dict[tuple[str, int | None], Path] = {}

    def unpack(split: str = "val", limit: int | None = 1) -> Path:
        key = (split, limit)
        if key not in unpacked:
            folder = tmp_path_factory.mktemp(f"lgg_{split}")
            command = [sys.executable, str(medseg_data / "unpack.py"), "lgg", str(folder), "--split", split]
            command += [] if limit is None else ["--limit", str(limit)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            unpacked[key] = folder
        return unpacked[key]

    return unpack


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server with a SQLite store and its own artifacts, one for all tests: to start takes long."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow_server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'store.db'}",
        "--artifacts-destination",
        folder / "artifacts",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                *[sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)],
                *[*places, "--workers", "1"],
            ],
            cwd=folder,
            # scoring of language models, which takes processes of its own
            env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while not _answers(f"{uri}/health"):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield uri
    finally:
        # older releases leave the processes that answer behind
        for process in [*psutil.Process(server.pid).children(recursive=True), server] if server.poll() is None else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
