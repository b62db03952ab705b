"""Writes one small random patient in each of the layouts."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

ORDER = ("t1", "flair", "t1ce")
#: Canonical voxels to right-anterior-superior mm: rows go back, columns go left, slices go up.
PLS_AFFINE = np.array([[0.0, -0.9, 0.0, 31.0], [-0.8, 0.0, 0.0, 40.0], [0.0, 0.0, 5.0, -12.0], [0.0, 0.0, 0.0, 1.0]])


def random_patient(
    seed: int = 0, bits: int = 8, shape: tuple[int, int, int] = (6, 5, 4)
) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, H, W, D) and mask (H, W, D)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 2**bits, (3, *shape)).astype(np.uint8 if bits == 8 else np.uint16)
    return image, (rng.random(shape) < 0.4).astype(np.uint8)


def write_png16(path: Path, picture: np.ndarray) -> None:
    """A 16-bit RGB PNG, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = picture.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in picture)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def write_picture(path: Path, picture: np.ndarray) -> None:
    if picture.dtype == np.uint16 and picture.ndim == 3:
        if path.suffix == ".png":
            write_png16(path, picture)
        else:
            tifffile.imwrite(path, picture, photometric="rgb")
    else:
        Image.fromarray(picture).save(path)


def write_slices(
    folder: Path, image: np.ndarray, mask: np.ndarray | None, suffix: str = ".tif", first: int = 1, stem: str = ""
) -> Path:
    """RGB slices ``<stem>_<n>`` in a folder; Kaggle's layout with the defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(image.shape[-1]):
        name = f"{stem or folder.name}_{first + i}"
        write_picture(folder / f"{name}{suffix}", np.ascontiguousarray(np.moveaxis(image[..., i], 0, -1)))
        if mask is not None:
            Image.fromarray(np.ascontiguousarray(mask[..., i]) * np.uint8(255)).save(folder / f"{name}_mask{suffix}")
    return folder


def write_grey_slices(folder: Path, image: np.ndarray, names: Sequence[str] = ORDER, suffix: str = ".png") -> Path:
    """One grey file a slice and sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(image.shape[-1]):
        for name, channel in zip(names, image, strict=True):
            write_picture(folder / f"{folder.name}_{i}_{name}{suffix}", np.ascontiguousarray(channel[..., i]))
    return folder


def store(array: np.ndarray, axcodes: str, affine: np.ndarray = PLS_AFFINE) -> tuple[np.ndarray, np.ndarray]:
    """A canonical array (H, W, D, ...) as another orientation stores it, with its affine."""
    transform = ornt_transform(axcodes2ornt("PLS"), axcodes2ornt(axcodes))
    return apply_orientation(array, transform), affine @ inv_ornt_aff(transform, array.shape[:3])


def save(path: Path, array: np.ndarray, affine: np.ndarray | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), affine), path)
    return path


def write_stack(path: Path, image: np.ndarray, affine: np.ndarray | None = None, axcodes: str = "") -> Path:
    """One 4-D file, channels last; as stored with ``np.eye(4)`` unless an orientation is named."""
    data = np.moveaxis(image, 0, -1)
    if axcodes:
        data, affine = store(data, axcodes)
    return save(path, data, np.eye(4) if affine is None else affine)


def write_sequences(
    folder: Path,
    image: np.ndarray,
    mask: np.ndarray | None = None,
    axcodes: str = "PLS",
    names: Sequence[str] = ORDER,
    affine: np.ndarray = PLS_AFFINE,
    case: str = "",
) -> Path:
    case = case or folder.name
    for name, channel in zip(names, image, strict=True):
        save(folder / f"{case}_{name}.nii.gz", *store(channel, axcodes, affine))
    if mask is not None:
        save(folder / f"{case}_seg.nii.gz", *store(mask, axcodes, affine))
    return folder


def write_nnunet(root: Path, image: np.ndarray, mask: np.ndarray | None, case: str = "case_001") -> Path:
    for i, channel in enumerate(image):
        save(root / "imagesTr" / f"{case}_{i:04d}.nii.gz", *store(channel, "LPS"))
    if mask is not None:
        save(root / "labelsTr" / f"{case}.nii.gz", *store(mask, "LPS"))
    names = {"channel_names": {"0": "T1", "1": "FLAIR", "2": "T1Gd"}, "labels": {"background": 0, "tumour": 1}}
    (root / "dataset.json").write_text(json.dumps({**names, "file_ending": ".nii.gz", "numTraining": 1}))
    return root
