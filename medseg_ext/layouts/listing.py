"""What lies in a folder, by kind of file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from medseg_ext.errors import InputError
from medseg_ext.layouts.sequences import NIFTI_SUFFIXES, PICTURE_SUFFIXES, split_suffix

ALLOWED_FOLDER = (
    "patients' folders of numbered PNG or TIFF slices, NIfTI files (a 4-D stack, or one a sequence), or an nnU-Net set"
)


@dataclass
class Listing:
    """Entries of one folder, sorted by name."""

    pictures: list[Path] = field(default_factory=list)
    niftis: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def list_folder(folder: Path, allowed: str = ALLOWED_FOLDER) -> Listing:
    """List a folder; hidden files, such as the ``._*`` of macOS, and half-written ``*.part`` are no data.

    Args:
        folder: what to list.
        allowed: what it should hold, for the error where it is missing.

    Raises:
        InputError: for a folder that is missing, unreadable or no folder.
    """
    listing = Listing()
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except FileNotFoundError as error:
        raise InputError(folder, "no such folder", allowed) from error
    except NotADirectoryError as error:
        raise InputError(folder, "a file", "a folder") from error
    except OSError as error:
        raise InputError(folder, f"an unreadable folder ({error.strerror or error})", "a readable folder") from error
    for name, is_folder in found:
        if name.startswith(".") or name == "__MACOSX" or name.endswith(".part"):
            continue
        suffix = split_suffix(name)[1]
        if suffix in NIFTI_SUFFIXES:  # a folder of such a name is a file that is not right
            listing.niftis.append(folder / name)
        elif is_folder:
            listing.folders.append(folder / name)
        elif suffix in PICTURE_SUFFIXES:
            listing.pictures.append(folder / name)
        else:
            listing.others.append(folder / name)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
