"""The LGG bundle's own training on tiny patients, in processes of its own that can be killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tiny_patients import write_kaggle

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "lgg_2d_segmentation"
SMALL = {
    "features": "[4,8,8]",
    "crop_size": "[64,64]",
    "val_interval": 1,
    "loader_workers": 0,
    "warmup_iterations": 2,
}


def prepare(place: Path, patients: int, split: Mapping[str, Sequence[str]]) -> Path:
    """Put a copy of the bundle without its weights into a folder, patients ``p0`` and so on, and their split."""
    shutil.copytree(BUNDLE, place / "bundle", ignore=shutil.ignore_patterns("*.pt", "results", "data"))
    for seed in range(patients):
        write_kaggle(place, f"p{seed}", seed)
    (place / "split.json").write_text(json.dumps(split))
    return place


def start_training(
    place: Path, name: str, options: Mapping[str, object], launcher: Sequence[str] = ()
) -> subprocess.Popen:
    """Train into ``PLACE/NAME``, with what is printed in ``PLACE/NAME.log``; by a launcher in several processes."""
    given = {"dataset_dir": place / "kaggle_3m", "split_file": place / "split.json", "output_dir": place / name}
    arguments = [text for key, value in (given | dict(options)).items() for text in (f"--{key}", str(value))]
    files = ["configs/train.json"] + (["configs/multi_gpu.yaml"] if launcher else [])
    command = [sys.executable, "-m", *launcher, *(["-m"] if launcher else []), "monai.bundle", "run", "training"]
    with (place / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--config_file", str(files), *arguments],
            cwd=place / "bundle",
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
