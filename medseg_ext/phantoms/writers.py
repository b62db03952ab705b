"""Phantoms on disk, in the layouts and orientations that data sets use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg_ext.phantoms.noise import FloatArray
from medseg_ext.phantoms.phantom import Phantom

BRATS_SEQUENCES = ("flair", "t1", "t1ce", "t2")
LGG_SEQUENCES = ("t1", "flair", "t1ce")
_BRATS_2023_NAMES = {"t1ce": "t1c", "t1": "t1n", "flair": "t2f", "t2": "t2w"}
_DECATHLON_NAMES = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
_BRATS_ORIENTATION = "LPS"


def case_name(seed: int, layout: str = "kaggle") -> str:
    """The folder or file stem of a phantom: like the data set's own, with a prefix that cannot be mistaken."""
    names = {
        "kaggle": f"PHANTOM_00_{seed:04d}_20000101",
        "brats2020": f"PHANTOM20_{seed:03d}",
        "brats2023": f"PHANTOM-GLI-{seed:05d}-000",
        "decathlon": f"PHANTOM_{seed:03d}",
    }
    return names.get(layout, f"phantom_{seed:04d}")


def to_uint8(image: FloatArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A sequence in 8 bits: scaled over the whole stack, with head room that differs from study to study."""
    top = float(np.percentile(image, 99.9)) * rng.uniform(1.05, 1.7)
    return np.clip(np.rint(image * (255.0 / max(top, 1e-6))), 0, 255).astype(np.uint8)


def _stack(phantom: Phantom, sequences: tuple[str, ...]) -> NDArray[np.uint8]:
    """Three channels ``(H, W, D, 3)``; a study with a sequence missing repeats FLAIR or what it has, as Kaggle's do."""
    rng = np.random.default_rng([phantom.seed, 99])
    done = {name: to_uint8(image, rng) for name, image in phantom.images.items()}
    spare = done.get("flair", next(iter(done.values())))
    return np.stack([done.get(name, spare) for name in sequences], axis=-1)


def write_kaggle(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """``DEST/kaggle_3m/PATIENT/PATIENT_<n>.tif`` (pre-contrast, FLAIR, post-contrast) and ``_mask.tif`` (0/255)."""
    name = name or case_name(phantom.seed, "kaggle")
    folder = Path(dest) / "kaggle_3m" / name
    folder.mkdir(parents=True, exist_ok=True)
    stack, mask = _stack(phantom, LGG_SEQUENCES), phantom.mask * np.uint8(255)
    for k in range(stack.shape[2]):
        Image.fromarray(np.ascontiguousarray(stack[:, :, k])).save(folder / f"{name}_{k + 1}.tif")
        Image.fromarray(np.ascontiguousarray(mask[:, :, k])).save(folder / f"{name}_{k + 1}_mask.tif")
    return folder


def write_slices(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """``DEST/PATIENT/PATIENT_<nnn>.png`` (RGB: pre-contrast, FLAIR, post-contrast) and ``_mask.png`` (0/255)."""
    name = name or case_name(phantom.seed)
    folder = Path(dest) / name
    folder.mkdir(parents=True, exist_ok=True)
    stack, mask = _stack(phantom, LGG_SEQUENCES), phantom.mask * np.uint8(255)
    for k in range(stack.shape[2]):
        Image.fromarray(np.ascontiguousarray(stack[:, :, k])).save(folder / f"{name}_{k + 1:03d}.png")
        Image.fromarray(np.ascontiguousarray(mask[:, :, k])).save(folder / f"{name}_{k + 1:03d}_mask.png")
    return folder


def save_nifti(
    array: NDArray[Any], affine: NDArray[np.float64], path: Path, orientation: str = "RAS", dtype: type = np.int16
) -> None:
    """Write an array whose first three axes ``affine`` describes, turned to ``orientation``."""
    current = nib.orientations.io_orientation(affine)
    wanted = nib.orientations.axcodes2ornt(tuple(orientation))
    turn = nib.orientations.ornt_transform(current, wanted)
    turned = nib.orientations.apply_orientation(array, turn)
    placed = affine @ nib.orientations.inv_ornt_aff(turn, array.shape[:3])
    if np.issubdtype(dtype, np.integer):
        turned = np.clip(np.rint(turned), 0, np.iinfo(dtype).max)
    image = nib.Nifti1Image(np.ascontiguousarray(turned, dtype=dtype), placed)
    image.header.set_xyzt_units("mm")
    image.set_sform(placed, 1)
    image.set_qform(placed, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_nifti(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """One file a sequence: ``DEST/PATIENT/PATIENT_<sequence>.nii.gz`` and ``PATIENT_mask.nii.gz`` (0/1)."""
    name = name or case_name(phantom.seed)
    folder = Path(dest) / name
    for sequence, image in phantom.images.items():
        save_nifti(image, phantom.affine, folder / f"{name}_{sequence}.nii.gz")
    save_nifti(phantom.mask, phantom.affine, folder / f"{name}_mask.nii.gz", dtype=np.uint8)
    return folder


def write_nifti_stack(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """One 4-D file (H, W, slices, channel), ``DEST/PATIENT/PATIENT.nii.gz``, and ``PATIENT_mask.nii.gz`` (0/1).

    The channels lie in the order of the phantom's ``images``; the axes keep the phantom's orientation.
    """
    name = name or case_name(phantom.seed)
    folder = Path(dest) / name
    stack = np.stack(list(phantom.images.values()), axis=-1)
    save_nifti(stack, phantom.affine, folder / f"{name}.nii.gz", orientation="PLS")
    save_nifti(phantom.mask, phantom.affine, folder / f"{name}_mask.nii.gz", orientation="PLS", dtype=np.uint8)
    return folder


def write_nnunet(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """nnU-Net's raw layout: ``imagesTr/CASE_0000.nii.gz`` a channel, ``labelsTr/CASE.nii.gz``, ``dataset.json``."""
    name = name or case_name(phantom.seed)
    dest = Path(dest)
    for channel, image in enumerate(phantom.images.values()):
        save_nifti(image, phantom.affine, dest / "imagesTr" / f"{name}_{channel:04d}.nii.gz")
    save_nifti(phantom.mask, phantom.affine, dest / "labelsTr" / f"{name}.nii.gz", dtype=np.uint8)
    description = {
        "channel_names": {str(i): sequence for i, sequence in enumerate(phantom.images)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(list((dest / "labelsTr").glob("*.nii.gz"))),
        "file_ending": ".nii.gz",
    }
    (dest / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return dest


def write_brats2020(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """BraTS to 2021: ``DEST/CASE/CASE_{flair,t1,t1ce,t2,seg}.nii.gz``, labels 1 core, 2 edema, 4 enhancing."""
    name = name or case_name(phantom.seed, "brats2020")
    folder = Path(dest) / name
    for sequence, image in phantom.images.items():
        save_nifti(image, phantom.affine, folder / f"{name}_{sequence}.nii.gz", _BRATS_ORIENTATION)
    save_nifti(phantom.label, phantom.affine, folder / f"{name}_seg.nii.gz", _BRATS_ORIENTATION, np.uint8)
    return folder


def write_brats2023(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """BraTS from 2023: ``DEST/CASE/CASE-{t1c,t1n,t2f,t2w,seg}.nii.gz``, labels 1 core, 2 edema, 3 enhancing."""
    name = name or case_name(phantom.seed, "brats2023")
    folder = Path(dest) / name
    for sequence, image in phantom.images.items():
        path = folder / f"{name}-{_BRATS_2023_NAMES[sequence]}.nii.gz"
        save_nifti(image, phantom.affine, path, _BRATS_ORIENTATION)
    label = np.array([0, 1, 2, 0, 3], np.uint8)[phantom.label]
    save_nifti(label, phantom.affine, folder / f"{name}-seg.nii.gz", _BRATS_ORIENTATION, np.uint8)
    return folder


def write_nnunet_brats(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """nnU-Net's raw layout with its own numbers for BraTS: 1 edema, 2 core, 3 enhancing, named by region."""
    name = name or case_name(phantom.seed)
    dest = write_nnunet(phantom, dest, name)
    label = np.array([0, 2, 1, 0, 3], np.uint8)[phantom.label]
    save_nifti(label, phantom.affine, dest / "labelsTr" / f"{name}.nii.gz", dtype=np.uint8)
    path = dest / "dataset.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["labels"] = {
        "background": 0,
        "whole tumor": [1, 2, 3],
        "tumor core": [2, 3],
        "enhancing tumor": [3],
    }
    description["regions_class_order"] = [1, 2, 3]
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return dest


def write_decathlon(phantom: Phantom, dest: Path, name: str | None = None) -> Path:
    """Medical Segmentation Decathlon, Task01: 4-D images, labels 1 edema, 2 non-enhancing, 3 enhancing.

    Raises:
        ValueError: when one of the four sequences is missing, for the format has no way to say so.
    """
    missing = [sequence for sequence in BRATS_SEQUENCES if sequence not in phantom.images]
    if missing:
        raise ValueError(
            f"decathlon layout: found no {', '.join(missing)}, allowed all of {', '.join(BRATS_SEQUENCES)}"
        )
    name = name or case_name(phantom.seed, "decathlon")
    folder = Path(dest) / "Task01_BrainTumour"
    stack = np.stack([phantom.images[sequence] for sequence in BRATS_SEQUENCES], axis=-1)
    save_nifti(stack, phantom.affine, folder / "imagesTr" / f"{name}.nii.gz", dtype=np.float32)
    label = np.array([0, 2, 1, 0, 3], np.uint8)[phantom.label]
    save_nifti(label, phantom.affine, folder / "labelsTr" / f"{name}.nii.gz", dtype=np.uint8)
    cases = sorted(path.name for path in (folder / "labelsTr").glob("*.nii.gz"))
    description = {
        "name": "BRATS",
        "description": "Procedural phantoms in the layout of Task01_BrainTumour",
        "tensorImageSize": "4D",
        "modality": {str(i): _DECATHLON_NAMES[sequence] for i, sequence in enumerate(BRATS_SEQUENCES)},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder


Writer = Callable[[Phantom, Path, "str | None"], Path]
WRITERS: dict[str, Writer] = {
    "kaggle": write_kaggle,
    "slices": write_slices,
    "nifti": write_nifti,
    "nifti-stack": write_nifti_stack,
    "nnunet": write_nnunet,
    "nnunet-brats": write_nnunet_brats,
    "brats2020": write_brats2020,
    "brats2023": write_brats2023,
    "decathlon": write_decathlon,
}
VOLUME_LAYOUTS = ("brats2020", "brats2023", "decathlon", "nnunet-brats")
