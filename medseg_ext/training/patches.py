"""Training samples of a 3-D network: patches of whole studies and of parts of studies, lesions moved between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from medseg_ext.errors import InputError
from medseg_ext.layouts.labels import REGIONS
from medseg_ext.training.pieces import Piece
from medseg_ext.transforms.augment_volume import (
    VolumeAugmentation,
    change_intensities,
    cut_patch,
    draw_matrix,
    draw_subset,
    shift_mask,
)
from medseg_ext.transforms.implant import Implantation, implant_lesion
from medseg_ext.transforms.truth import ALL_KNOWN, ANY_INSIDE, BRAIN, HEAD, target_from_truth

Size = tuple[int, int, int]


class LesionPatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Augmented patches, drawn by kind, by patient and by lesion.

    Sample ``i`` is a pure function of ``seed`` and ``i`` (see :class:`~medseg_ext.training.CountingSampler`): first a
    kind of piece, by ``shares``; then a patient, uniformly; then one of the patient's pieces of that kind; then a
    place: with probability ``lesion_share`` in a region of the tumour, each region the piece holds as likely, otherwise
    anywhere in the brain. With a probability by kind, the lesion of another piece is put there.

    A piece smaller than the patch lies somewhere in it; what lies beyond a piece is background where the piece is
    ``complete`` and not known elsewhere. A piece of a single slice is shown as a slab of equal slices.

    Args:
        pieces: from :func:`~medseg_ext.training.read_pieces` or :func:`~medseg_ext.training.pack_studies`.
        augmentation: ranges of the random changes, and the size of the patch.
        shares: how often each kind of piece is drawn; None for all pieces alike. Kinds without a share only donate.
        sizes: other sizes of the patch, by kind: small pieces do not need large patches.
        implants: probability of a lesion put in, by kind of the piece it is put into.
        donors: kinds whose lesions are put into other brains.
        implantation: how.
        in_place: share of the lesions put in that come to the same place of the brain they had, or its mirror image.
        lesion_share: share of samples about a lesion, among pieces that have one.
        slab: thickness in voxels, (least, most), of a single slice.
        group: number of consecutive samples of one kind, and so of one size: the samples of a batch, times processes.
        seed: seed of all samples.

    Samples: ``image`` (C, *size) float32, sequences that are missing 0; ``present`` (C,) bool; ``label`` (3, *size)
    float32 of 0, 1 and -1 (not known), as :class:`~medseg_ext.losses.RegionDiceBCELoss` takes it.

    Raises:
        InputError: no piece of a kind that has a share.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        augmentation: VolumeAugmentation | None = None,
        shares: Mapping[str, float] | None = None,
        sizes: Mapping[str, Sequence[int]] | None = None,
        implants: Mapping[str, float] | None = None,
        donors: Sequence[str] = ("cube",),
        implantation: Implantation | None = None,
        in_place: float = 0.5,
        lesion_share: float = 0.7,
        slab: tuple[int, int] = (3, 12),
        group: int = 1,
        seed: int = 0,
    ) -> None:
        self.augmentation = augmentation or VolumeAugmentation()
        self.sizes = {kind: _as_size(size) for kind, size in (sizes or {}).items()}
        self.implants = dict(implants or {})
        self.implantation = implantation or Implantation()
        self.in_place = in_place
        self.lesion_share = lesion_share
        self.slab = slab
        self.group = group
        self.seed = seed
        by_patient: dict[str, dict[str, list[Piece]]] = {}
        for piece in pieces:
            by_patient.setdefault(piece.kind, {}).setdefault(piece.patient, []).append(piece)
        self.by_kind = {kind: list(patients.values()) for kind, patients in by_patient.items()}
        wanted = {kind: float(len(patients)) for kind, patients in self.by_kind.items()} if shares is None else shares
        missing = sorted(kind for kind, share in wanted.items() if share > 0 and kind not in self.by_kind)
        if missing or not sum(wanted.values()) > 0:
            found = f"no pieces of kind {', '.join(missing)}" if missing else "no share above 0"
            raise InputError("shares", found, f"shares of {', '.join(sorted(self.by_kind)) or 'pieces'}")
        self.kinds = sorted(kind for kind, share in wanted.items() if share > 0)
        self.shares = np.array([wanted[kind] for kind in self.kinds]) / sum(wanted[kind] for kind in self.kinds)
        self.pieces = list(pieces)
        self.donors = [
            with_lesion
            for kind in sorted(set(donors) & set(self.by_kind))
            for patient in self.by_kind[kind]
            if (with_lesion := [piece for piece in patient if len(piece.aims.get("wt", ()))])
        ]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        of_group = np.random.default_rng((self.seed, 1, index // self.group))
        kind = self.kinds[int(of_group.choice(len(self.kinds), p=self.shares))]
        rng = np.random.default_rng((self.seed, 0, index))
        return self._sample(kind, rng)

    def _sample(self, kind: str, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        a = self.augmentation
        size = self.sizes.get(kind, a.size)
        piece = _draw_piece(self.by_kind[kind], rng)
        if piece.shape[2] == 1:
            piece = self._thicken(piece, rng)
            a = replace(a, tilt=0.0)  # of a tilted slab little is seen
        donor = None
        if self.donors and rng.random() < self.implants.get(kind, 0.0):
            donor = _draw_piece(self.donors, rng)
            if donor.patient == piece.patient:
                donor = None
        present = piece.present
        if donor is not None:
            shared = tuple(ours and theirs for ours, theirs in zip(present, donor.present, strict=True))
            present, donor = (shared, donor) if any(shared) else (present, None)
        present = draw_subset(rng, present, a.drop)
        matrix = draw_matrix(rng, a)
        if donor is None:
            centre = self._place(piece, size, rng)
            image, truth = _cut(piece, present, centre, matrix, size)
        else:
            image, truth = self._with_implant(piece, donor, present, matrix, size, rng)
        image, truth = self._skull(piece, present, image, truth, rng)
        image = change_intensities(image, (truth & HEAD) != 0, rng, a)
        full = torch.zeros(len(present), *size)
        full[torch.tensor(present)] = image
        return {"image": full, "present": torch.tensor(present), "label": target_from_truth(truth)}

    def _thicken(self, piece: Piece, rng: np.random.Generator) -> Piece:
        slices = int(rng.integers(self.slab[0], self.slab[1] + 1))
        aims = {name: voxels + np.array([0, 0, slices // 2]) for name, voxels in piece.aims.items()}
        image, truth = (np.repeat(array, slices, -1) for array in (piece.image, piece.truth))
        return replace(piece, image=image, truth=truth, aims=aims)

    def _place(self, piece: Piece, size: Size, rng: np.random.Generator) -> np.ndarray:
        """Voxel of the piece that the middle of the patch shows."""
        regions = [name for name in REGIONS if len(piece.aims.get(name, ()))]
        name = regions[int(rng.integers(len(regions)))] if regions and rng.random() < self.lesion_share else "brain"
        shape, extent = np.array(piece.shape), np.array(size)
        aims = piece.aims.get(name, np.zeros((0, 3), int))
        aim = aims[int(rng.integers(len(aims)))] if len(aims) else (shape - 1) / 2
        middle = np.round(aim + rng.uniform(-0.3, 0.3, 3) * extent)
        half = (extent - 1) / 2
        # of a larger piece the patch shows as much as it can, a smaller one lies anywhere in it
        low, high = np.minimum(half, shape - 1 - half), np.maximum(half, shape - 1 - half)
        anywhere = rng.uniform(low, high)
        centre = np.where(shape > extent, np.clip(middle, low, high), anywhere)
        return _on_voxels(centre, size)

    def _with_implant(
        self,
        piece: Piece,
        donor: Piece,
        present: tuple[bool, ...],
        matrix: np.ndarray,
        size: Size,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.augmentation
        aims = donor.aims["wt"]
        aim = np.mean(aims, 0) if rng.random() < 0.5 else aims[int(rng.integers(len(aims)))]
        target = self._implant_place(piece, donor, aim, rng)
        turn = draw_matrix(rng, a)
        # as large as the donor is, turned and zoomed
        reach = np.ceil(np.abs(np.linalg.inv(turn)) @ (np.array(donor.shape) / 2)).astype(int) * 2 + 2
        extent = _as_size([min(n, m) for n, m in zip(reach.tolist(), size, strict=True)])
        middle = _on_voxels(
            np.clip((np.array(donor.shape) - 1) / 2, aim - 0.4 * np.array(extent), aim + 0.4 * np.array(extent)), extent
        )
        theirs, their_truth = _cut(donor, present, middle, turn, extent)
        shown = np.linalg.inv(turn) @ (aim - middle) + (np.array(extent) - 1) / 2  # the aim in the donor's patch

        spot = (np.array(size) - 1) / 2 + rng.uniform(-0.25, 0.25, 3) * np.array(size)  # and in the patch
        centre = target - matrix @ (spot - (np.array(size) - 1) / 2)
        half, shape = (np.array(size) - 1) / 2, np.array(piece.shape)
        low, high = np.minimum(half, shape - 1 - half), np.maximum(half, shape - 1 - half)
        centre = _on_voxels(np.clip(centre, low, high), size)
        spot = np.linalg.inv(matrix) @ (target - centre) + half
        image, truth = _cut(piece, present, centre, matrix, size)
        corner = np.round(spot - shown).astype(int)
        return implant_lesion(image, truth, theirs, their_truth, tuple(corner.tolist()), rng, self.implantation)

    def _implant_place(self, piece: Piece, donor: Piece, aim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Voxel of the piece that the donor's voxel ``aim`` comes to, away from the piece's own lesion if possible."""
        in_place, mirrored = rng.random() < self.in_place, rng.random() < 0.5
        if in_place and piece.brain_box is not None and donor.brain_box is not None:
            low, high = (np.array(corner) for corner in donor.brain_box)
            share = (aim - low) / np.maximum(high - low, 1.0)
            if mirrored:
                share[1] = 1 - share[1]
            low, high = (np.array(corner) for corner in piece.brain_box)
            return np.clip(low + share * (high - low), 0, np.array(piece.shape) - 1)
        aims = piece.aims.get("brain", ())
        if not len(aims):
            return (np.array(piece.shape) - 1) / 2
        free = [aim for aim in aims if not piece.truth[tuple(aim)] & ANY_INSIDE]
        chosen = free or list(aims)
        return np.asarray(chosen[int(rng.integers(len(chosen)))], float)

    def _skull(
        self,
        piece: Piece,
        present: tuple[bool, ...],
        image: torch.Tensor,
        truth: torch.Tensor,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the skull off, or bring a head with its skull to the values that such heads have at inference."""
        a = self.augmentation
        has_skull = piece.skull_scale is not None
        if rng.random() >= (a.strip if has_skull else a.shave):
            if piece.skull_scale is not None:
                kept = [there for there, had in zip(present, piece.present, strict=True) if had]
                scale = [pair for pair, there in zip(piece.skull_scale, kept, strict=True) if there]
                gain, offset = torch.tensor(scale, dtype=torch.float32).T.reshape(2, -1, 1, 1, 1)
                image = (image * gain + offset) * ((truth & HEAD) != 0)
            return image, truth
        head = shift_mask((truth & BRAIN) != 0, rng, a.strip_shift) & ((truth & HEAD) != 0)
        lost = ~head & ((truth & ANY_INSIDE) != 0)
        truth = torch.where(head, truth, truth & (255 - HEAD - BRAIN))
        # lesion that was cut off is neither to be found nor to be called background
        return image * head, torch.where(lost, truth & (255 - ANY_INSIDE - ALL_KNOWN), truth)


def _as_size(size: Sequence[int]) -> Size:
    rows, columns, slices = (int(n) for n in size)
    return rows, columns, slices


def _draw_piece(patients: Sequence[Sequence[Piece]], rng: np.random.Generator) -> Piece:
    patient = patients[int(rng.integers(len(patients)))]
    return patient[int(rng.integers(len(patient)))]


def _on_voxels(centre: np.ndarray, size: Size) -> np.ndarray:
    """The nearest centre whose patch, unturned, has its voxels on those of the volume."""
    half = (np.array(size) - 1) / 2
    return np.round(centre - half) + half


def _cut(
    piece: Piece, present: tuple[bool, ...], centre: np.ndarray, matrix: np.ndarray, size: Size
) -> tuple[torch.Tensor, torch.Tensor]:
    stored = np.cumsum(piece.present) - 1
    channels = [int(stored[channel]) for channel in np.flatnonzero(present)]
    return cut_patch(
        piece.image, piece.truth, centre, matrix, size, beyond=ALL_KNOWN if piece.complete else 0, channels=channels
    )
