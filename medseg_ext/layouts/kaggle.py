"""The layout of Kaggle's "LGG MRI Segmentation": ``kaggle_3m/TCGA_x/TCGA_x_<n>.tif`` with ``TCGA_x_<n>_mask.tif``.

It is the layout of numbered slices (see `slices`) with the patient's name in front of the number and RGB TIFFs, so
only what tells it apart is here. M. Buda et al., Computers in Biology and Medicine 109, 2019.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

FOLDER = "kaggle_3m"


def is_kaggle_folder(folder: Path, images: Sequence[Path]) -> bool:
    """Whether the slices of one patient's folder are named as the Kaggle set names them."""
    pattern = re.compile(re.escape(folder.name) + r"_\d+\.tif", re.ASCII)
    return all(pattern.fullmatch(image.name) for image in images)


def data_folder(subfolders: Sequence[Path]) -> Path | None:
    """The set's own folder where a folder was given that holds it; the download holds a second copy deeper down."""
    return next((folder for folder in subfolders if folder.name == FOLDER), None)
