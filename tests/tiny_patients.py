"""Tiny random heads on disk and in memory, for tests that need patients and no anatomy."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


def tiny_head(seed: int = 0, shape: tuple[int, int, int] = (64, 64, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, H, W, D) uint8 of an ellipse in black air, and mask (H, W, D) of a blob that is bright in channel 1."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    head = ((rows - shape[0] / 2) / (0.4 * shape[0])) ** 2 + ((columns - shape[1] / 2) / (0.35 * shape[1])) ** 2 < 1
    centre = np.array(shape[:2]) / 2 + rng.uniform(-0.1, 0.1, 2) * shape[:2]
    blob = np.hypot(rows - centre[0], columns - centre[1]) < shape[0] / 9
    image = rng.integers(80, 121, (3, *shape)) * head[None, :, :, None]
    mask = np.zeros(shape, np.uint8)
    mask[..., shape[2] // 2] = blob
    image[1] += 90 * mask
    return image.astype(np.uint8), mask


def write_kaggle(root: Path, name: str, seed: int = 0, shape: tuple[int, int, int] = (64, 64, 4)) -> Path:
    """``ROOT/kaggle_3m/NAME/NAME_<n>.tif`` with masks."""
    image, mask = tiny_head(seed, shape)
    folder = root / "kaggle_3m" / name
    folder.mkdir(parents=True)
    for i in range(shape[2]):
        Image.fromarray(np.ascontiguousarray(np.moveaxis(image[..., i], 0, -1))).save(folder / f"{name}_{i + 1}.tif")
        Image.fromarray(mask[..., i] * np.uint8(255)).save(folder / f"{name}_{i + 1}_mask.tif")
    return folder


def write_stack(path: Path, image: np.ndarray) -> Path:
    """Image (C, H, W, D) as one NIfTI file (H, W, D, C) that lies the way the slices do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]], float)
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(image, 0, -1), affine), path)
    return path
