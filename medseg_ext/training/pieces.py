"""Patients and parts of patients on disk, in one form that patches are cut from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_ext.errors import InputError
from medseg_ext.files import write_atomically, write_beside
from medseg_ext.layouts.labels import REGIONS
from medseg_ext.layouts.splits import patient_group, share_of_patients
from medseg_ext.metrics.volumes import bounding_box
from medseg_ext.processes import gather_objects, process_count, process_rank, shard
from medseg_ext.training.patients import read_patients
from medseg_ext.transforms.truth import BRAIN, HEAD, IGNORE, INSIDE, encode_truth, target_from_truth
from medseg_ext.transforms.zscore import CLIP
from medseg_ext.workflow.patients import patient_of
from medseg_ext.workflow.run import one_line_errors

_VERSION = 1
_AIMS = 256


@dataclass(frozen=True)
class Piece:
    """A whole study or a part of one, on a 1 mm grid in canonical orientation (axes P, L, S), normalised.

    Args:
        name: of its files. patient: who it is of. kind: what it is (``study``, ``cube``, ``slice``, ...).
        image: (present channels, H, W, D) float16, air exactly 0; sequences that are missing are left out.
        truth: (H, W, D) uint8, see :func:`~medseg_ext.transforms.truth.encode_truth`.
        present: whether each channel of the network is there.
        site: where it was scanned. fold: of the cross-validation, None for none. split: ``val`` or ``test`` for what
            trains nothing, else empty.
        complete: beyond its border there is nothing but air; otherwise what lies there is not known.
        brain_box: corners of the brain's box in the piece's voxels, ((row, column, slice), (row, column, slice)): by
            it places in different brains are told. May lie outside of the piece; None where it is not known.
        skull_scale: (gain, offset) a present channel, which turn the stored values, normalised by the brain, into those
            that the network is given when the head comes with its skull; None for skull-stripped data.
        aims: voxels to put a patch about: up to a few hundred of each region and of the brain, (n, 3) each.
    """

    name: str
    patient: str
    kind: str
    image: np.ndarray
    truth: np.ndarray
    present: tuple[bool, ...]
    site: str = ""
    fold: int | None = None
    split: str = ""
    complete: bool = True
    brain_box: tuple[tuple[float, ...], ...] | None = None
    skull_scale: tuple[tuple[float, float], ...] | None = None
    aims: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, slices."""
        rows, columns, slices = self.truth.shape
        return rows, columns, slices


def draw_aims(truth: np.ndarray, seed: int = 0, most: int = _AIMS) -> dict[str, np.ndarray]:
    """Voxels of each region and of the brain, evenly drawn: (n, 3) int32 each, n at most ``most``.

    Args:
        truth: uint8 (H, W, D).
        seed: of the draw.
        most: voxels a region.
    """
    rng = np.random.default_rng(seed)
    aims = {}
    for name, flag in zip((*REGIONS, "brain"), (*INSIDE, BRAIN), strict=True):
        where = np.flatnonzero(truth & flag)
        chosen = np.sort(rng.choice(where, min(most, where.size), replace=False)) if where.size else where
        aims[name] = np.stack(np.unravel_index(chosen, truth.shape), 1).astype(np.int32)
    return aims


def make_piece(item: Mapping[str, Any], kind: str = "study") -> Piece:
    """A piece of the dictionary that a pipeline ends with, cut to the box of its head.

    Args:
        item: ``image`` (C, H, W, D), normalised, air exactly 0; ``label`` (3, H, W, D) of tumour core, whole tumour,
            enhancing tumour. Optional: ``present`` (C,), by default the channels that are not 0 throughout; ``known``,
            broadcast to the label, by default all; ``brain`` (H, W, D), by default whatever is not air; ``name``,
            ``patient``, ``site``, ``fold``, ``split``, ``complete``, ``skull_scale`` and ``brain_box`` (in the image's
            voxels), by default that of ``brain``.
        kind: of the piece.

    Raises:
        InputError: a head without a voxel, or a label that does not fit the image.
    """
    name = str(item.get("name") or item.get("patient") or kind)
    image, label = (np.asarray(torch.as_tensor(item[key])) for key in ("image", "label"))
    if label.shape != (len(REGIONS), *image.shape[1:]):
        raise InputError(name, f"a label of shape {label.shape}", f"{(len(REGIONS), *image.shape[1:])}")
    head = (image != 0).any(0)
    if not head.any():
        raise InputError(name, "no voxel of a head", "an image that is not 0 throughout")
    present = np.asarray(item["present"], bool) if "present" in item else (image != 0).any((1, 2, 3))
    brain = np.asarray(item["brain"], bool) if "brain" in item else head
    known = np.asarray(item.get("known", True), bool)
    truth = encode_truth(label, known, brain, head)
    box = bounding_box(head | brain)
    inner = bounding_box(brain)
    low, high = item.get("brain_box") or ([s.start for s in inner], [s.stop - 1 for s in inner])
    scale = item.get("skull_scale")
    fold = item.get("fold")
    truth = np.ascontiguousarray(truth[box])
    return Piece(
        name=name,
        patient=str(item.get("patient") or name),
        kind=kind,
        image=np.stack([channel[box] for channel in image[present]]).astype(np.float16),
        truth=truth,
        present=tuple(bool(p) for p in present),
        site=str(item.get("site", "")),
        fold=None if fold is None else int(fold),
        split=str(item.get("split", "")),
        complete=bool(item.get("complete", True)),
        brain_box=tuple(
            tuple(float(place - edge.start) for place, edge in zip(corner, box, strict=True)) for corner in (low, high)
        ),
        skull_scale=None if scale is None else tuple((float(gain), float(offset)) for gain, offset in scale),
        aims=draw_aims(truth),
    )


def write_piece(folder: str | Path, piece: Piece, source: str = "") -> Path:
    """Write ``NAME.image.npy``, ``NAME.truth.npy`` and, when these are whole, ``NAME.json``.

    Args:
        folder: made when missing.
        piece: what to write.
        source: what it was made from, by which a later run knows it again.

    Returns:
        the path of the JSON.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, array in (("image", piece.image), ("truth", piece.truth)):
            with write_beside(folder / f"{piece.name}.{part}.npy") as path:
                np.save(path, array)
    except OSError as error:
        raise InputError(folder, error.strerror or str(error), "a writable folder with room left") from error
    facts = {key: getattr(piece, key) for key in ("patient", "kind", "present", "site", "fold", "split", "complete")}
    facts |= {"brain_box": piece.brain_box, "skull_scale": piece.skull_scale, "version": _VERSION, "source": source}
    facts["aims"] = {name: voxels.tolist() for name, voxels in piece.aims.items()}
    return write_atomically(folder / f"{piece.name}.json", json.dumps(facts))


def read_piece(path: str | Path) -> Piece:
    """Read what :func:`write_piece` wrote; the arrays stay on disk and are paged in as they are used.

    Raises:
        InputError: a part is missing, damaged, or of another version.
    """
    path = Path(path)
    try:
        facts = json.loads(path.read_text())
        if facts["version"] != _VERSION:
            raise InputError(path, f"version {facts['version']}", f"version {_VERSION}: pack it anew")
        image, truth = (np.load(path.with_suffix(f".{part}.npy"), mmap_mode="r") for part in ("image", "truth"))
        if image.shape != (sum(facts["present"]), *truth.shape):
            raise InputError(path, f"arrays of shape {image.shape} and {truth.shape}", "those of one piece")
        box, scale = facts["brain_box"], facts["skull_scale"]
        return Piece(
            name=path.stem,
            patient=facts["patient"],
            kind=facts["kind"],
            image=image,
            truth=truth,
            present=tuple(facts["present"]),
            site=facts["site"],
            fold=facts["fold"],
            split=facts.get("split", ""),
            complete=facts["complete"],
            brain_box=None if box is None else (tuple(box[0]), tuple(box[1])),
            skull_scale=None if scale is None else tuple((gain, offset) for gain, offset in scale),
            aims={name: np.array(voxels, np.int32).reshape(-1, 3) for name, voxels in facts["aims"].items()},
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(path, f"no piece ({' '.join(str(reason).split())})", "a piece as it was packed") from error


def read_pieces(
    folder: str | Path,
    kinds: Collection[str] | None = None,
) -> list[Piece]:
    """All pieces of a folder, by name.

    Args:
        folder: holds the files of :func:`write_piece`.
        kinds: keep these only.

    Raises:
        InputError: a piece is damaged, or none is left.
    """
    pieces = [
        piece
        for piece in (read_piece(path) for path in sorted(Path(folder).glob("*.json")))
        if kinds is None or piece.kind in kinds
    ]
    if not pieces:
        raise InputError(folder, "no pieces that were asked for", "packed pieces (NAME.json with its arrays)")
    return pieces


def whole_piece(piece: Piece, with_skull: bool = True) -> dict[str, Any]:
    """A piece as the item of a validation, every voxel as the network is given it at inference.

    Args:
        piece: any but a single slice.
        with_skull: leave the skull of a head on, normalised as such heads are; otherwise the brain alone is shown.

    Returns:
        ``image`` (C, H, W, D) float32, ``label`` (3, H, W, D) float32 of 0 and 1 (0 where it is not known), ``known``
        (3, H, W, D) bool, ``brain`` (1, H, W, D) bool, ``present`` (C,) bool, ``patient`` and ``name``.
    """
    truth = torch.from_numpy(np.array(piece.truth))
    target = target_from_truth(truth)
    brain = (truth & BRAIN) != 0
    shown = torch.from_numpy(np.array(piece.image, np.float32))
    if piece.skull_scale is None or not with_skull:
        shown = shown * brain
    else:
        gain, offset = torch.tensor(piece.skull_scale, dtype=torch.float32).T.reshape(2, -1, 1, 1, 1)
        shown = (shown * gain + offset) * ((truth & HEAD) != 0)
    present = torch.tensor(piece.present)
    image = torch.zeros(len(present), *piece.shape)
    image[present] = shown.clamp(-CLIP, CLIP)
    return {
        "image": image,
        "label": target.clamp_min(0),
        "known": target != IGNORE,
        "brain": brain[None],
        "present": present,
        "patient": piece.patient,
        "name": piece.name,
    }


class TrainingPieces:
    """The pieces of a folder that train, and those that validate.

    Args:
        folder: see :func:`read_pieces`.
        fold: the one that trains nothing, None for none.
        kinds: kinds of pieces to read, None for all.
        validation_folder: pieces that validate beside those of the fold; empty for none.
        validation_kinds: kinds that validate, None for all.
        excluded: patients that neither train nor validate.
        patients_share: of the patients that train, drawn by ``seed``: a smaller share is part of a larger one. Patients
            of whom there are the same kinds of pieces are shared out among themselves, so that no kind gets lost.
        seed: of that draw.

    Attributes:
        train: pieces of all other folds, and of none. held_out: all pieces of the fold. validation: those that
            validate. names: patients by side.

    Raises:
        SystemExit: after one line, when the folder cannot be used, or holds pieces of a split on the wrong side.
    """

    @one_line_errors
    def __init__(
        self,
        folder: str | Path,
        fold: int | None = None,
        kinds: Collection[str] | None = None,
        validation_folder: str | Path = "",
        validation_kinds: Collection[str] | None = None,
        excluded: Collection[str] = (),
        patients_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        pieces = [piece for piece in read_pieces(folder, kinds) if piece.patient not in excluded]
        self.held_out = [piece for piece in pieces if fold is not None and piece.fold == fold]
        self.train = [piece for piece in pieces if fold is None or piece.fold != fold]
        if not self.train or (fold is not None and not self.held_out):
            folds = sorted({piece.fold for piece in pieces if piece.fold is not None})
            raise InputError(folder, f"no pieces of or beside fold {fold}", f"folds {', '.join(map(str, folds))}")
        if patients_share != 1:
            self.train = share_of_pieces(self.train, patients_share, seed)
        others = read_pieces(validation_folder, validation_kinds) if validation_folder else []
        chosen = [piece for piece in self.held_out if validation_kinds is None or piece.kind in validation_kinds]
        self.validation = chosen + others
        _refuse_splits(folder, self.train, {"val", "test"})
        _refuse_splits(validation_folder, others, {"test"})
        self.names = {
            side: sorted({piece.patient for piece in members})
            for side, members in (("train", self.train), ("val", self.validation))
        }
        both = sorted(set(self.names["train"]) & set(self.names["val"]))
        if both:
            raise InputError(
                validation_folder or folder,
                f"patients that train and validate ({', '.join(both)})",
                "one side for each",
            )


def _refuse_splits(folder: str | Path, pieces: Sequence[Piece], splits: Collection[str]) -> None:
    """Whatever folders were mixed up: what is held back neither trains nor, in the case of a test set, validates."""
    wrong = [piece for piece in pieces if piece.split in splits]
    if wrong:
        found = f"pieces of the split {wrong[0].split} ({', '.join(piece.name for piece in wrong)})"
        raise InputError(folder, found, f"none of {' and '.join(sorted(splits))}")


def share_of_pieces(pieces: Sequence[Piece], share: float, seed: int = 0) -> list[Piece]:
    """The pieces of a share of the patients, see :class:`TrainingPieces`.

    Raises:
        InputError: for a share that is none.
    """
    kinds: dict[str, set[str]] = {}
    for piece in pieces:
        kinds.setdefault(patient_group(piece.patient), set()).add(piece.kind)
    alike: dict[tuple[str, ...], list[str]] = {}
    for person, of_person in kinds.items():
        alike.setdefault(tuple(sorted(of_person)), []).append(person)
    kept = {person for persons in alike.values() for person in share_of_patients(persons, share, seed)}
    return [piece for piece in pieces if patient_group(piece.patient) in kept]


def pack_studies(
    data: Sequence[Mapping[str, Any]],
    transform: Callable[[Any], Mapping[str, Any]],
    folder: str | Path,
    kind: str = "study",
    workers: int = 1,
    progress: bool = True,
) -> list[Piece]:
    """Read whole studies once, keep them as pieces on disk, and find them there ever after.

    It does for patches what MONAI's ``PersistentDataset`` does for whole items: a patch is then cut from the page
    cache, without reading its study again, and the set may be larger than the memory. Several processes share the
    reading.

    Args:
        data: a dictionary a study, with a ``patient`` by which its files are named, or by its ``image``'s path.
        transform: maps it to what :func:`make_piece` takes.
        folder: where the pieces are kept; a piece made of another description of the same study is made again, one
            made with another ``transform`` is not.
        kind: of the pieces.
        workers: threads that read. progress: show a bar meanwhile.

    Raises:
        SystemExit: after a line for each study that cannot be used.
    """

    def pack(item: Mapping[str, Any]) -> Piece:
        patient = patient_of(item)
        path, source = Path(folder) / f"{patient}.json", f"{kind}: {item!r}"
        if not (path.exists() and json.loads(path.read_text()).get("source") == source):
            made = transform(item)
            write_piece(folder, make_piece({**made, "name": patient, "patient": patient}, kind), source)
        return read_piece(path)

    if process_count() > 1:
        # each process its share, then what it still lacks, as on a node with a disk of its own; what fails here fails
        # below too, where all processes tell it alike
        def try_to_pack(item: Mapping[str, Any]) -> None:
            with contextlib.suppress(Exception):
                pack(item)

        read_patients(shard(data, process_rank(), process_count()), try_to_pack, workers, progress, "packing studies")
        gather_objects(None)
    return read_patients(data, pack, workers, progress, "packing studies")
