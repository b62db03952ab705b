"""Readers of the partial BraTS sets: lesion cubes, single slices, registered heads, cases of 2013, tumour-free heads.

All but the last lie in the space of BraTS 2020 (240 x 240 x 155 voxels of 1 mm, axes L, P, S; the SRI24 atlas). The
whole label maps have 128 voxels an axis between the same corners, and the cubes are cut from volumes on that grid. What
comes out of here is canonical (axes P, L, S) at 1 mm.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from medseg_ext.errors import InputError
from medseg_ext.layouts.labels import regions_from_labels
from medseg_ext.layouts.orientation import reorient, to_canonical_transform
from medseg_ext.metrics.volumes import bounding_box
from medseg_ext.transforms.augment_volume import cut_patch
from medseg_ext.transforms.truth import HEAD
from medseg_ext.transforms.zscore import ZScoreHead, find_head

Item = dict[str, Any]

ATLAS_SHAPE = (240, 240, 155)  # axes L, P, S, as BraTS stores its volumes
COARSE, CUBE = 128, 32
MARGIN = 4  # coarse voxels that a cube keeps about its lesion
#: mm between neighbouring voxels of the coarse grid
STEP = np.array([(n - 1) / (COARSE - 1) for n in ATLAS_SHAPE])
SEQUENCES = ("t1", "t1ce", "t2", "flair")
SLICE_CHANNELS = ("flair", "t1", "t1ce", "t2")
#: Mean and standard deviation over a slice's brain of the z-scores over the whole brain, where both are known: slices
#: were chosen for their tumours, and the bright rims of CSF count less in them.
SLICE_LEVEL = {"flair": (0.22, 1.02), "t1": (0.11, 0.88), "t1ce": (0.06, 0.88), "t2": (0.14, 0.98)}
SLICE_LABELS = (1, 2, 4)  # label of each plane of a slice's one-hot truth
STACK_CHANNELS = ("t1", "flair", "t1ce")
#: Sites of BraTS 2020 put together into five folds of patients, so that none is scored by a network that knows its
#: scanner; site 1 alone has a third of all patients.
FOLD_OF_SITE = {
    "1": 0,
    **dict.fromkeys(("5", "16"), 1),
    **dict.fromkeys(("6", "10", "11"), 2),
    **dict.fromkeys(("7", "8", "9", "13"), 3),
    **dict.fromkeys(("2", "3", "4", "12", "14", "15", "17"), 4),
}
CASES_2013 = {"0002": "131", "0004": "133", "0005": "134", "0006": "135"}  # number: that in BraTS 2020


def canonical(atlas: np.ndarray) -> np.ndarray:
    """(..., L, P, S) to (..., P, L, S)."""
    return np.swapaxes(atlas, -2, -3)


def interpolation(length: int, places: np.ndarray, degree: int) -> np.ndarray:
    """(places, length) matrix that interpolates a line of values: linear (1) or by cubic splines (3)."""
    degree = min(degree, length - 1)
    if degree < 1:
        return np.ones((len(places), 1))
    return make_interp_spline(np.arange(length), np.eye(length), k=degree)(np.clip(places, 0, length - 1))


def interpolate(volume: np.ndarray, places: list[np.ndarray], degree: int) -> np.ndarray:
    """Values of (..., X, Y, Z) on the grid of the places along each of the last three axes, in voxels."""
    matrices = [interpolation(n, p, degree).astype(np.float32) for n, p in zip(volume.shape[-3:], places, strict=True)]
    return np.einsum("...xyz,ix,jy,kz->...ijk", volume.astype(np.float32), *matrices, optimize=True)


def fine_voxels(low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    """Atlas voxels whose middles lie between two corners of the coarse grid, along each axis."""
    return [
        np.arange(int(np.ceil(a * step - 1e-9)), int(np.floor((b - 1) * step + 1e-9)) + 1)
        for a, b, step in zip(low, high, STEP, strict=True)
    ]


def fine_regions(labels: np.ndarray, voxels: list[np.ndarray]) -> np.ndarray:
    """Regions (3, ...) of a coarse label map at atlas voxels: each interpolated, inside from one half on."""
    places = [v / step for v, step in zip(voxels, STEP, strict=True)]
    windows = [slice(int(p[0]), int(np.ceil(p[-1])) + 2) for p in places]
    part = regions_from_labels(labels[tuple(windows)], "brats2017")
    return interpolate(part, [p - w.start for p, w in zip(places, windows, strict=True)], 1) >= 0.5


@dataclass(frozen=True)
class CubePlace:
    """Where a cube lies on the coarse grid: its first voxel, and the box (low, high) of what it holds."""

    start: np.ndarray
    low: np.ndarray
    high: np.ndarray


def locate_cube(image: np.ndarray, label: np.ndarray, whole: np.ndarray) -> CubePlace | None:
    """Find a cube in its patient's label map.

    A cube is centred on the box of one connected lesion, with zeros beyond ``MARGIN`` voxels around that; lesions that
    touch only by their corners may or may not be one.

    Args:
        image: (4, 32, 32, 32). label: (32, 32, 32). whole: (128, 128, 128) label map.
    """
    content = (image != 0).any(0) | (label > 0)
    filled = [np.flatnonzero(content.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    low, high = np.array([f[0] for f in filled]), np.array([f[-1] + 1 for f in filled])
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    wanted = label[window]
    jitter = sorted(itertools.product(range(-3, 4), repeat=3), key=lambda d: sum(map(abs, d)))
    for connectivity in (3, 1):
        parts, _ = ndimage.label(whole > 0, ndimage.generate_binary_structure(3, connectivity))
        boxes = [b for b in ndimage.find_objects(parts) if b is not None]
        boxes.sort(key=lambda b: -np.prod([s.stop - s.start for s in b]))
        for box in boxes:
            middle = np.array([(s.start + s.stop) // 2 - CUBE // 2 for s in box])
            for shift in jitter:
                start = middle + shift
                first, last = start + low, start + high
                if (first < 0).any() or (last > COARSE).any():
                    continue
                if np.array_equal(whole[tuple(slice(a, b) for a, b in zip(first, last, strict=True))], wanted):
                    lowest = np.array([s.start - MARGIN for s in box])
                    highest = np.array([s.stop + MARGIN for s in box])
                    return CubePlace(
                        start,
                        np.minimum(np.maximum.reduce([lowest, start, np.zeros(3, int)]), first),
                        np.maximum(np.minimum.reduce([highest, start + CUBE, np.full(3, COARSE)]), last),
                    )
    return None


def patient_of(name: str) -> str:
    """``BraTS20_Training_NNN`` of the name of a cube or a slice."""
    return "_".join(name.split()[0].split("_")[:3])


def brain_of_slice(image: np.ndarray) -> np.ndarray:
    """What of a slice (C, H, W) is above its air in any channel, holes filled."""
    return ndimage.binary_fill_holes((image > image.min((1, 2), keepdims=True)).any(0))


def read_canonical(path: Path) -> np.ndarray:
    """A NIfTI volume of 1 mm with its axes flipped and swapped to P, L, S."""
    stored = nibabel.Nifti1Image.from_filename(path)
    return reorient(np.asarray(stored.dataobj, np.float32), to_canonical_transform(stored.affine))


def zscore(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 inside, 0 outside."""
    brain = values[inside].astype(np.float64)
    return np.where(inside, (values - brain.mean()) / brain.std(), 0).astype(np.float32)


@dataclass
class BratsSets:
    """The partial sets in their folders, and the items for :func:`medseg_ext.training.make_piece` made of them.

    Args:
        data: holds ``brats/patients.csv``, ``brats/lgg_pairs.json``, ``brats/cases`` and ``ms``.
        unpacked: holds ``lesions.npz``, ``labels128.npz``, ``slices.npz``.
        heads: holds the folders ``TCGA_*`` of the registered heads.
    """

    data: Path
    unpacked: Path
    heads: Path

    @cached_property
    def patients(self) -> dict[str, dict[str, str]]:
        """Rows of ``patients.csv`` by patient."""
        with (self.data / "brats" / "patients.csv").open(newline="") as stream:
            return {row["brats2020"]: row for row in csv.DictReader(stream)}

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Whole coarse label maps by patient."""
        with np.load(self.unpacked / "labels128.npz") as stored:
            return dict(zip(stored["id"].tolist(), stored["label"], strict=True))

    @cached_property
    def held_out_labels(self) -> dict[str, np.ndarray]:
        """The same of the patients that train nothing."""
        stem = self.data / "brats" / "labels128_val_test_"
        maps = np.load(io.BytesIO(lzma.decompress(Path(f"{stem}uint8.npy.xz").read_bytes())))
        return dict(zip(Path(f"{stem}ids.txt").read_text().split(), maps, strict=True))

    @cached_property
    def cubes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Images (4, 32, 32, 32) and labels of the cubes, by name."""
        return self._pairs_of("lesions.npz")

    @cached_property
    def slices(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Images (4, 240, 240) and one-hot labels (3, 240, 240), by name (``PATIENT slice K``)."""
        return self._pairs_of("slices.npz")

    def _pairs_of(self, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        with np.load(self.unpacked / name) as stored:
            names, images, labels = (stored[key] for key in ("id", "image", "label"))
        return {str(key): (image, label) for key, image, label in zip(names, images, labels, strict=True)}

    def facts(self, patient: str) -> Item:
        """Patient, site and fold of a patient of BraTS 2020."""
        site = self.patients[patient]["site"]
        return {"patient": patient, "site": site, "fold": FOLD_OF_SITE[site]}

    @cached_property
    def places(self) -> dict[str, CubePlace]:
        """Where the cubes lie; those that cannot be found are left out."""
        found = {
            name: locate_cube(image, label, self.labels[patient_of(name)])
            for name, (image, label) in self.cubes.items()
        }
        return {name: place for name, place in found.items() if place is not None}

    @cached_property
    def brain_share(self) -> np.ndarray:
        """Share of the patients in whom an atlas voxel is brain, canonical (240, 240, 155).

        From the brain masks of 2013, and from what of the cubes and the slices is not 0: a head without a mask of its
        own has its brain where most others have it.
        """
        near = [np.round(np.arange(COARSE) * step).astype(int) for step in STEP]
        brains = np.zeros((COARSE,) * 3, np.float32)
        looked = np.zeros_like(brains)
        for number in CASES_2013:
            mask = np.asarray(nibabel.Nifti1Image.from_filename(self.case(number) / "brainmask.nii.gz").dataobj)
            brains += mask[np.ix_(*near)] > 0
            looked += 1
        for name, place in self.places.items():
            brains[box_slices(place.low, place.high)] += (self.cubes[name][0] != 0).any(0)[
                box_slices(place.low - place.start, place.high - place.start)
            ]
            looked[box_slices(place.low, place.high)] += 1
        for name, (image, _) in self.slices.items():
            plane = round(int(name.split()[-1]) / STEP[2])
            brains[:, :, plane] += brain_of_slice(image)[np.ix_(near[0], near[1])]
            looked[:, :, plane] += 1
        share = ndimage.gaussian_filter(brains, 0.7) / np.maximum(ndimage.gaussian_filter(looked, 0.7), 1e-6)
        return canonical(interpolate(share, [np.arange(n) / s for n, s in zip(ATLAS_SHAPE, STEP, strict=True)], 1))

    @cached_property
    def brain(self) -> np.ndarray:
        """Where most patients have brain: bool, canonical (240, 240, 155)."""
        return self.brain_share >= 0.5

    def brain_box(self, corner: tuple[int, int, int]) -> tuple[list[float], list[float]]:
        """The box of :attr:`brain` in the voxels of a piece whose first voxel is ``corner`` (canonical)."""
        box = bounding_box(self.brain)
        return (
            [float(s.start - c) for s, c in zip(box, corner, strict=True)],
            [float(s.stop - 1 - c) for s, c in zip(box, corner, strict=True)],
        )

    def case(self, number: str) -> Path:
        """Folder of a case of 2013."""
        return self.data / "brats" / "cases" / f"brats_2013_pat{number}_1"

    def cube_items(self) -> Iterator[Item]:
        """Lesion cubes at 1 mm, each with the truth of its patient's whole label map."""
        for name, place in self.places.items():
            rows, columns, slices = box_slices(place.low - place.start, place.high - place.start)
            image = self.cubes[name][0][:, rows, columns, slices]
            voxels = fine_voxels(place.low, place.high)
            places = [v / step - low for v, step, low in zip(voxels, STEP, place.low, strict=True)]
            brain = (image != 0).any(0)
            inside = interpolate(brain, places, 1) >= 0.5
            # splines ring at edges: beyond the brain its nearest voxel goes on while they are laid
            nearest = ndimage.distance_transform_edt(~brain, return_distances=False, return_indices=True)
            fine = interpolate(image[:, nearest[0], nearest[1], nearest[2]], places, 3) * inside
            fine = np.clip(
                fine, *[bound.reshape(-1, 1, 1, 1) for bound in (image.min((1, 2, 3)), image.max((1, 2, 3)))]
            )
            patient = patient_of(name)
            first = voxels[1][0], voxels[0][0], voxels[2][0]
            yield {
                **self.facts(patient),
                "name": f"cube_{name}",
                "image": canonical(fine * inside),
                "label": canonical(fine_regions(self.labels[patient], voxels)),
                "brain": canonical(inside),
                "brain_box": self.brain_box(first),
                "complete": False,
            }

    def slice_scale(self, name: str) -> list[tuple[float, float] | None]:
        """(gain, offset) from each channel of a slice to z-scores over the whole brain, by the patient's cubes.

        None where no cube shows enough of the slice.
        """
        image, _ = self.slices[name]
        plane = int(name.split()[-1]) / STEP[2]
        ours, theirs = [], []
        for cube, place in self.places.items():
            depth = plane - place.start[2]
            if patient_of(cube) != patient_of(name) or not place.low[2] <= plane <= place.high[2] - 1:
                continue
            volume = self.cubes[cube][0]
            seen = interpolate(volume, [np.arange(CUBE), np.arange(CUBE), np.array([depth])], 1)[..., 0]
            whole = (volume[..., int(depth)] != 0).all(0) & (volume[..., int(np.ceil(depth))] != 0).all(0)
            rows, columns = np.nonzero(whole)
            theirs.append(seen[[SEQUENCES.index(c) for c in SLICE_CHANNELS]][:, rows, columns])
            where = [(r + s) * step for r, s, step in zip((rows, columns), place.start[:2], STEP[:2], strict=True)]
            ours.append(np.stack([ndimage.map_coordinates(channel, where, order=1) for channel in image]))
        if not ours:
            return [None] * len(image)
        scales: list[tuple[float, float] | None] = []
        for x, y in zip(np.concatenate(ours, 1), np.concatenate(theirs, 1), strict=True):
            with np.errstate(all="ignore"):
                alike = x.size >= 200 and np.corrcoef(x, y)[0, 1] > 0.9
            if not alike:
                scales.append(None)
                continue
            gain = float(y.std() / x.std())
            scales.append((gain, float(y.mean() - gain * x.mean())))
        return scales

    def slice_items(self) -> Iterator[Item]:
        """Single slices, z-scored as though the rest of the brain were there."""
        for name, (image, planes) in self.slices.items():
            brain = brain_of_slice(image)
            scaled = {}
            for sequence, channel, scale in zip(SLICE_CHANNELS, image, self.slice_scale(name), strict=True):
                if scale is None:
                    channel, (offset, gain) = zscore(channel, brain), SLICE_LEVEL[sequence]
                else:
                    gain, offset = scale
                scaled[sequence] = (channel * gain + offset) * brain
            ordered = np.stack([scaled[sequence] for sequence in SEQUENCES])
            label = np.tensordot(SLICE_LABELS, planes, 1).astype(np.uint8)
            yield {
                **self.facts(patient_of(name)),
                "name": "slice_" + name.replace(" slice ", "_"),
                "image": canonical(ordered[..., None]),
                "label": canonical(regions_from_labels(label[..., None], "brats2017")),
                "brain": canonical(brain[..., None]),
                "brain_box": self.brain_box((0, 0, int(name.split()[-1]))),
                "complete": False,
            }

    def head_items(self, split: str = "train") -> Iterator[Item]:
        """Heads with their skull on the grid of BraTS, normalised by their brain; those poorly registered are left out.

        Args:
            split: of the list of pairs; what is not ``train`` has no fold.
        """
        labels = self.labels if split == "train" else self.held_out_labels
        for pair in json.loads((self.data / "brats" / "lgg_pairs.json").read_text()):
            if pair["split"] != split or pair["poor"]:
                continue
            # a sequence that is a copy of FLAIR was not correlated with anything
            there = [name for name in STACK_CHANNELS if name in pair["ncc"]]
            stack = read_stack(self.heads / pair["lgg_folder"])[[STACK_CHANNELS.index(name) for name in there]]
            raw, reached = on_atlas(stack, np.array(pair["matrix"]))
            head = find_head(raw * reached) & reached
            brain = self.brain & head
            scale = ZScoreHead(stripped=False).scale_of(raw * head)
            image = np.zeros((len(SEQUENCES), *head.shape), np.float32)
            skull_scale = []
            for name in sorted(there, key=SEQUENCES.index):
                channel, k = raw[there.index(name)], there.index(name)
                centre, spread = channel[brain].mean(dtype=float), channel[brain].std(dtype=float)
                image[SEQUENCES.index(name)] = (channel - centre) / spread * head
                skull_scale.append((spread / scale.spread[k], (centre - scale.centre[k]) / scale.spread[k]))
            patient = pair["brats2020"]
            known = self.facts(patient) if patient in self.patients else {"patient": patient}
            fine = [np.arange(n) for n in ATLAS_SHAPE]
            yield {
                **known,
                "name": f"head_{patient}",
                "split": "" if split == "train" else split,
                "image": image,
                "present": np.array([name in there for name in SEQUENCES]),
                "label": canonical(fine_regions(labels[patient], fine)),
                "known": reached[None],
                "brain": brain,
                "brain_box": self.brain_box((0, 0, 0)),
                "skull_scale": skull_scale,
                "complete": False,
            }

    def case_items(self) -> Iterator[Item]:
        """The cases of 2013: FLAIR and T1ce, whole brains."""
        for number, patient in CASES_2013.items():
            folder = self.case(number)
            brain = read_canonical(folder / "brainmask.nii.gz") > 0
            image = np.zeros((len(SEQUENCES), *brain.shape), np.float32)
            for name, file in (("flair", "Flair"), ("t1ce", "T1c")):
                volume = read_canonical(folder / f"{file}_subtrMeanDivStd.nii.gz")
                image[SEQUENCES.index(name)] = zscore(volume, brain)
            yield {
                **self.facts(f"BraTS20_Training_{patient}"),
                "name": f"case_{number}",
                "image": image,
                "label": regions_from_labels(read_canonical(folder / "OTMultiClass.nii.gz"), "brats2013"),
                "brain": brain,
            }

    def healthy_items(self, patients: tuple[str, ...] = ("patient07",)) -> Iterator[Item]:
        """Brains without a tumour, all four sequences; what else is wrong with them is background."""
        for patient in patients:
            volumes = [read_canonical(self.data / "ms" / patient / f"{name}.nii.gz") for name in SEQUENCES]
            brain = np.any([volume != 0 for volume in volumes], 0)
            yield {
                "patient": f"ms_{patient}",
                "name": f"healthy_{patient}",
                "image": np.stack([zscore(volume, brain) for volume in volumes]),
                "label": np.zeros((3, *brain.shape), np.uint8),
                "brain": brain,
            }


def box_slices(low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
    """Slices between two corners."""
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def read_stack(folder: Path) -> np.ndarray:
    """The slices of a patient in the Kaggle layout, (3, slices, rows, columns) float32."""
    files = [path for path in folder.glob("*.tif") if "_mask" not in path.stem]
    if not files:
        raise InputError(folder, "no slices", "NAME_<number>.tif")
    files.sort(key=lambda path: int(path.stem.rsplit("_", 1)[1]))
    return np.moveaxis(np.stack([np.asarray(Image.open(path), np.float32) for path in files]), -1, 0)


def on_atlas(stack: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring a stack to the canonical atlas grid.

    Args:
        stack: (C, slices, rows, columns).
        matrix: 3x4 from an atlas voxel (L, P, S) to (slice, row, column).

    Returns:
        (C, 240, 240, 155) float32 and, bool, where the stack reaches.
    """
    size = ATLAS_SHAPE[1], ATLAS_SHAPE[0], ATLAS_SHAPE[2]
    turn = matrix[:, [1, 0, 2]]
    centre = turn @ ((np.array(size) - 1) / 2) + matrix[:, 3]
    everywhere = np.full(stack.shape[1:], HEAD, np.uint8)
    image, reached = cut_patch(stack, everywhere, centre, turn, size)
    return image.numpy(), (reached != 0).numpy()
