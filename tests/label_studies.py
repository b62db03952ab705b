"""Phantoms as MONAI Label keeps studies: files side by side, labels apart, in the values of the bundle's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from medseg_ext.phantoms import Phantom, make_phantom
from medseg_ext.phantoms.writers import save_nifti

#: Small enough to be drawn within seconds, large enough for the shipped weights.
SIZES: dict[str, dict[str, Any]] = {
    "lgg_2d_segmentation": {"shape": (256, 256, 12), "spacing": (0.9375, 0.9375, 12.0)},
    "brats_3d_segmentation": {
        "shape": (100, 100, 76),
        "spacing": (2.0, 2.0, 2.0),
        "kind": "high",
        "skull_stripped": True,
    },
}


def channels_of(bundle: Path) -> tuple[str, ...]:
    """What the channels of a 4-D file hold for a bundle."""
    return tuple(json.loads((bundle / "configs" / "metadata.json").read_text())["channel_order"])


def draw(bundle: Path, seed: int, **phantom: Any) -> Phantom:
    """A phantom with the bundle's sequences; ``phantom`` changes its size and kind."""
    return make_phantom(seed, **{**SIZES[bundle.name], **phantom, "sequences": channels_of(bundle)})


def write_stack(bundle: Path, phantom: Phantom, path: Path, orientation: str = "RAS") -> Path:
    """One 4-D file."""
    stack = np.stack([phantom.images[name] for name in channels_of(bundle)], axis=-1)
    save_nifti(stack, phantom.affine, path, orientation)
    return path


def write_sequence(phantom: Phantom, name: str, path: Path, orientation: str = "RAS") -> Path:
    """One sequence."""
    save_nifti(phantom.images[name], phantom.affine, path, orientation)
    return path


def write_label(bundle: Path, phantom: Phantom, path: Path, orientation: str = "RAS") -> Path:
    """The truth: 1 for all that is abnormal on FLAIR, or 1, 2 and 3 for the parts of a tumour."""
    labels = np.where(phantom.label == 4, 3, phantom.label) if "brats" in bundle.name else phantom.mask
    save_nifti(labels, phantom.affine, path, orientation, np.uint8)
    return path
