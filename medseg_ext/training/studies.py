"""Whole studies as training patches and as volumes to validate on, read once and kept on disk as pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import Dataset

from medseg_ext.training.patches import LesionPatchDataset
from medseg_ext.training.pieces import Piece, pack_studies, whole_piece

Transform = Callable[[Any], Mapping[str, Any]]


def study_patches(
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    folder: str | Path,
    workers: int = 1,
    progress: bool = True,
    **patches: Any,
) -> LesionPatchDataset:
    """Patches of whole studies.

    Args:
        data, transform, folder, workers, progress: see :func:`~medseg_ext.training.pack_studies`.
        patches: passed on to :class:`~medseg_ext.training.LesionPatchDataset`.
    """
    pieces = pack_studies(data, transform, folder, workers=workers, progress=progress)
    return LesionPatchDataset(pieces, **patches)


def study_volumes(
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    folder: str | Path,
    workers: int = 1,
    progress: bool = True,
) -> Dataset:
    """Whole studies, one an item; see :func:`study_patches`."""
    return piece_volumes(pack_studies(data, transform, folder, workers=workers, progress=progress))


def piece_volumes(pieces: Sequence[Piece]) -> Dataset:
    """Whole pieces, one an item, as the network is given them at inference (single slices are left out)."""
    return Dataset([piece for piece in pieces if piece.shape[2] > 1], whole_piece)
