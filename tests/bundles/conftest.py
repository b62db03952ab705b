"""What the tests of all bundles share: the folders, phantoms for them, and settings that make a run take seconds."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_weights import write_random_weights

from medseg_ext.layouts import BRATS_CHANNELS, BRATS_RULES, LGG_RULES, StudyRules
from medseg_ext.phantoms import WRITERS, make_phantom
from medseg_ext.training import make_piece, write_piece

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parent.parent for path in (ROOT / "bundles").glob("*/configs/metadata.json"))


@dataclass(frozen=True)
class Small:
    """How to run a bundle within seconds.

    Args:
        layout: the writer of its phantoms. phantom: what :func:`~medseg_ext.phantoms.make_phantom` is given.
        rules: what makes its files a study. masks: pattern of the names of what it writes, one or more a study.
        network: ids that make the network small, for training and inference alike.
        training: further ids of a short training.
    """

    layout: str
    phantom: dict[str, Any]
    masks: str
    rules: StudyRules = LGG_RULES
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


SMALL = {
    "lgg_2d_segmentation": Small(
        layout="kaggle",
        phantom={"shape": (64, 64, 6)},
        masks="*_mask.*",
        network={"features": [4, 8, 16]},
        training={
            "max_epochs": 2,
            "samples_per_epoch": 16,
            "batch_size": 4,
            "crop_size": [64, 64],
            "val_interval": 1,
            "loader_workers": 0,
        },
    ),
    "brats_3d_segmentation": Small(
        layout="brats2020",
        # a head at a quarter of its size: what BraTS has, 1 mm, is not interpolated
        phantom={
            "shape": (60, 60, 40),
            "spacing": (1.0, 1.0, 1.0),
            "sequences": BRATS_CHANNELS,
            "kind": "high",
            "skull_stripped": True,
        },
        masks="*_seg.nii.gz",
        rules=BRATS_RULES,
        network={"features": [4, 8, 16]},
        training={
            "max_epochs": 2,
            "samples_per_epoch": 4,
            "batch_size": 1,
            "patch_size": [24, 24, 24],
            "val_interval": 1,
            "loader_workers": 0,
        },
    ),
}


@dataclass(frozen=True)
class Patients:
    """Phantoms on disk: two to train, one to validate, one to test."""

    folder: Path
    split_file: Path


@pytest.fixture(scope="session", params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    """Every folder of ``bundles/``."""
    return Path(request.param)


@pytest.fixture(scope="session")
def small(bundle: Path) -> Small:
    """Settings for a short run of the bundle."""
    assert bundle.name in SMALL, f"give {bundle.name} its small settings in {__file__}"
    return SMALL[bundle.name]


@pytest.fixture(scope="session")
def patients(bundle: Path, small: Small, tmp_path_factory: pytest.TempPathFactory) -> Patients:
    """Four phantoms in the bundle's layout, with a split file beside them."""
    root = tmp_path_factory.mktemp(f"phantoms_{bundle.name}")
    folder = root / "studies"
    names = [WRITERS[small.layout](make_phantom(seed, **small.phantom), folder).name for seed in range(4)]
    split = root / "split.json"
    split.write_text(json.dumps({"train": names[:2], "val": names[2:3], "test": names[3:]}))
    return Patients(folder, split)


@pytest.fixture(scope="session")
def small_weights(bundle: Path, small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small network."""
    path = tmp_path_factory.mktemp(f"weights_{bundle.name}") / "model.pt"
    return write_random_weights(bundle, small.network, path)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient of each kind and fold, of noise with a block of tumour."""
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(0)
    shapes = {"cube": (20, 20, 18), "slice": (40, 36, 1), "head": (40, 36, 30), "case": (40, 36, 30)}
    shapes["healthy"] = shapes["case"]
    for fold in (0, 1):
        for kind, shape in shapes.items():
            label = np.zeros((3, *shape), np.uint8)
            if kind != "healthy":
                label[1, 5:14, 5:14, :14] = 1
                label[0, 7:12, 7:12, :10] = 1
                label[2, 8:11, 8:11, :8] = 1
            image = rng.standard_normal((4, *shape)) + label.sum(0)
            name = f"{kind}_{fold}"
            facts = {"name": name, "patient": name, "fold": None if kind == "healthy" else fold}
            if kind == "head":
                image[2] = 0
                facts["skull_scale"] = [(1.0, 0.1)] * 3
                facts["brain"] = np.pad(np.ones((34, 30, 26), bool), 3)[:, :, 1:-1]
            write_piece(folder, make_piece({"image": image, "label": label, **facts}, kind))
    return folder


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """A bundle's ``logging.conf`` is for its own process: give the tests theirs back."""
    loggers = [logging.getLogger(name) for name in ("", "ignite", "monai.bundle")]
    before = [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


Runner = Callable[..., subprocess.CompletedProcess[str]]


def as_options(ids: dict[str, Any]) -> list[str]:
    """Ids and values as a command line has them."""
    return [part for name, value in ids.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def run_in() -> Runner:
    """Gives ``run_in(folder, program, *arguments)``: a program of this Python in a process of its own."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run
