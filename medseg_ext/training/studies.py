"""Whole studies as training patches and as volumes to validate on, read once and kept on disk as pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import Dataset

from medseg_ext.errors import InputError
from medseg_ext.processes import shard_or_all
from medseg_ext.training.patches import LesionPatchDataset
from medseg_ext.training.pieces import Piece, pack_studies, whole_piece
from medseg_ext.workflow.run import one_line_errors

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
    rank: int = 0,
    world_size: int = 1,
    **packing: Any,
) -> Dataset:
    """Whole studies, one an item.

    Args:
        data, transform, folder, packing: see :func:`~medseg_ext.training.pack_studies`.
        rank, world_size: see :func:`piece_volumes`.
    """
    return piece_volumes(pack_studies(data, transform, folder, **packing), rank, world_size)


@one_line_errors
def piece_volumes(pieces: Sequence[Piece], rank: int = 0, world_size: int = 1) -> Dataset:
    """Whole pieces, one an item, as the network is given them at inference (single slices are left out).

    Args:
        pieces: of all processes.
        rank: this process. world_size: processes, see :func:`~medseg_ext.processes.shard_or_all`.

    Raises:
        SystemExit: after one line, where none is left: MONAI would skip the validation with a warning.
    """
    volumes = [piece for piece in pieces if piece.shape[2] > 1]
    if not volumes:
        raise InputError("validation", "no pieces", "a fold of them, or a folder of others")
    return Dataset(shard_or_all(volumes, rank, world_size), whole_piece)
