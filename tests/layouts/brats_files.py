"""A small study with four sequences and all labels in every layout of brain tumour data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dicom_files import write_series
from study_files import save, store

FOUR = ("t1", "t1ce", "t2", "flair")
#: Canonical voxels to right-anterior-superior mm, cubes of 1 mm that need no interpolation.
AFFINE = np.array([[0.0, -1, 0, 31], [-1, 0, 0, 40], [0, 0, 1, -12], [0, 0, 0, 1]])
NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}


def patient(seed: int = 0, shape: tuple[int, int, int] = (8, 7, 6)) -> tuple[np.ndarray, np.ndarray]:
    """Image (4, H, W, D) uint16 in the order `FOUR`, air of 0 around it, and labels of 2017."""
    rng = np.random.default_rng(seed)
    image = np.zeros((4, *shape), np.uint16)
    image[:, 1:-1, 1:-1, 1:-1] = rng.integers(50, 900, (4, *(n - 2 for n in shape)))
    return image, rng.choice(np.array([0, 0, 1, 2, 4], np.uint8), shape)


def renumber(labels: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Labels of 2017 (core 1, edema 2, enhancing 4) as (core, edema, enhancing) of another set."""
    table = np.zeros(5, np.uint8)
    table[[1, 2, 4]] = numbers
    return table[labels]


def write_2020(
    root: Path,
    image: np.ndarray,
    labels: np.ndarray | None,
    case: str = "BraTS20_Training_001",
    names: Sequence[str] = FOUR,
    axcodes: str = "LPS",
    suffix: str = ".nii.gz",
) -> Path:
    for name, channel in zip(names, image, strict=True):
        save(root / case / f"{case}_{name}{suffix}", *store(channel, axcodes, AFFINE))
    if labels is not None:
        save(root / case / f"{case}_seg{suffix}", *store(labels, axcodes, AFFINE))
    return root / case


def write_2023(root: Path, image: np.ndarray, labels: np.ndarray, case: str = "BraTS-GLI-00001-000") -> Path:
    for name, channel in zip(FOUR, image, strict=True):
        save(root / case / f"{case}-{NAMES_2023[name]}.nii.gz", *store(channel, "LPS", AFFINE))
    save(root / case / f"{case}-seg.nii.gz", *store(labels, "LPS", AFFINE))
    return root / case


def write_2013(root: Path, image: np.ndarray, labels: np.ndarray, case: str = "brats_2013_pat0002_1") -> Path:
    """FLAIR and T1c only, z-scored with the air, labels as floats, a brain mask beside them."""
    for name, channel in (("T1c", image[1]), ("Flair", image[3])):
        scored = ((channel - channel.mean()) / channel.std()).astype(np.float32)
        save(root / case / f"{name}_subtrMeanDivStd.nii.gz", *store(scored, "LPS", AFFINE))
    save(root / case / "OTMultiClass.nii.gz", *store(labels.astype(np.float32), "LPS", AFFINE))
    save(root / case / "brainmask.nii.gz", *store((image[1] > 0).astype(np.int32), "LPS", AFFINE))
    return root / case


def write_decathlon(root: Path, image: np.ndarray, labels: np.ndarray, case: str = "BRATS_001") -> Path:
    folder = root / "Task01_BrainTumour"
    order = [FOUR.index(name) for name in ("flair", "t1", "t1ce", "t2")]
    save(folder / "imagesTr" / f"{case}.nii.gz", *store(np.moveaxis(image[order], 0, -1), "LPS", AFFINE))
    save(folder / "labelsTr" / f"{case}.nii.gz", *store(labels, "LPS", AFFINE))
    (folder / "imagesTr" / f"._{case}.nii.gz").write_bytes(b"what macOS leaves behind")
    described = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def write_nnunet(root: Path, image: np.ndarray, labels: np.ndarray, case: str = "case_001") -> Path:
    for i, channel in enumerate(image):
        save(root / "Dataset137" / "imagesTr" / f"{case}_{i:04d}.nii.gz", *store(channel, "RAS", AFFINE))
    save(root / "Dataset137" / "labelsTr" / f"{case}.nii.gz", *store(labels, "RAS", AFFINE))
    described = {
        "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
        "file_ending": ".nii.gz",
    }
    (root / "Dataset137" / "dataset.json").write_text(json.dumps(described))
    return root / "Dataset137"


def write_dicom(folder: Path, image: np.ndarray, names: Sequence[str] = FOUR, affine: np.ndarray = AFFINE) -> Path:
    """A folder a series, numbered as scanners number them; what they hold is in the descriptions."""
    descriptions = {"t1": "AX T1 SE", "t1ce": "AX T1 POST GAD", "t2": "AX T2 TSE", "flair": "AX T2 FLAIR"}
    shutil.rmtree(folder, ignore_errors=True)
    for i, (name, channel) in enumerate(zip(names, image, strict=True)):
        write_series(folder / f"{i + 3}", channel, affine, description=descriptions[name], series=f"1.2.3.{i + 3}")
    return folder
