"""Real patients, where they are at hand: `$MEDSEG_DATA`, by default `../shared/data` beside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
