"""A head with a lesion as a scanner would show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg_ext.phantoms.anatomy import VERTEX_MM, Head, HeadGrid, HeadShape, Tissue, make_head
from medseg_ext.phantoms.contrast import SEQUENCES, lesion_table, tissue_table
from medseg_ext.phantoms.lesion import EDEMA, ENHANCING, NECROTIC, Lesion, LesionPlan, grow_lesion, plan_lesion
from medseg_ext.phantoms.noise import FloatArray, SmoothNoise

_FIELD_OF_VIEW_MM, _COVERAGE_MM = 240.0, 144.0
_SUBSLICE_MM = 3.2
_LABELS = (EDEMA, NECROTIC, ENHANCING)


@dataclass
class Phantom:
    """A procedural head-MRI study with its ground truth.

    Args:
        images: sequence name to float32 ``(H, W, D)`` in arbitrary scanner units; rows run anterior to posterior,
            columns right to left, slices inferior to superior.
        label: uint8 ``(H, W, D)``: 0 background, 1 necrotic or non-enhancing core, 2 edema, 4 enhancing.
        tissue: uint8 ``(H, W, D)``: the `Tissue` at the middle of each voxel, without the lesion.
        brain: bool ``(H, W, D)``: inside the brain's hull.
        affine: 4x4 voxel to patient (RAS+) in mm, orientation ``("P", "L", "S")``.
        spacing: voxel size (row, column, slice) in mm.
        seed: the seed that gives it again.
        kind: ``"low"``, ``"high"``, or ``"none"`` without a lesion.
    """

    images: dict[str, FloatArray]
    label: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    seed: int
    kind: str

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The whole lesion, uint8 0/1: what is abnormal on FLAIR."""
        return (self.label > 0).astype(np.uint8)

    @property
    def volume_ml(self) -> float:
        """Volume of the lesion in ml."""
        return float(self.mask.sum() * np.prod(self.spacing) / 1000.0)


def make_phantom(
    seed: int,
    shape: tuple[int, int, int] = (256, 256, 24),
    spacing: tuple[float, float, float] | None = None,
    sequences: Iterable[str] = ("t1", "flair", "t1ce"),
    lesion: bool = True,
    *,
    kind: str | None = None,
    volume_ml: float | None = None,
    skull_stripped: bool = False,
    noise: float | None = None,
    bias: float | None = None,
) -> Phantom:
    """Draw a head-MRI study.

    The anatomy is fixed in mm: the same seed shows the same head on another grid, and a sequence looks the same
    whichever others are asked for.

    Args:
        seed: what shape, site, size, contrast and field depend on.
        shape: rows, columns, slices.
        spacing: voxel size (row, column, slice) in mm; None spreads 240 x 240 x 144 mm over ``shape``
            (0.94 x 0.94 x 6 mm by default).
        sequences: any of ``t1 t1ce t2 flair``.
        lesion: whether there is one.
        kind: ``"low"`` (no enhancement) or ``"high"`` (necrotic core, enhancing rim, edema); None draws it.
        volume_ml: volume of the lesion in ml; None draws it, most between 5 and 60.
        skull_stripped: zero what lies outside the brain, as the BraTS sets do.
        noise: standard deviation of the noise before the magnitude is taken (Rician), relative to white matter;
            None draws it.
        bias: half the range of the receive field, relative; None draws it, up to 0.4.

    Raises:
        ValueError: on an unknown sequence or kind, or a shape or spacing that is not three positive numbers.
    """
    names = tuple(sequences)
    _check(names, shape, spacing, kind)
    h, w, d = shape
    if spacing is None:
        spacing = (_FIELD_OF_VIEW_MM / h, _FIELD_OF_VIEW_MM / w, _COVERAGE_MM / d)
    head_shape = HeadShape.draw(_rng(seed, 0))
    sub = max(1, int(np.ceil(spacing[2] / _SUBSLICE_MM)))
    grid, origin = _grid(shape, spacing, sub, head_shape, _rng(seed, 1))

    plan, swelling = None, None
    if lesion:
        rng = _rng(seed, 2)
        plan = plan_lesion(rng, head_shape, kind, volume_ml)
        swelling = plan.swelling(float(rng.uniform(0.05, 0.3)))
    head = make_head(head_shape, grid, _rng(seed, 3), swelling)
    found = None
    if plan is not None:
        found = grow_lesion(plan, head, float(np.prod(spacing)) / sub / 1000.0, _rng(seed, 4))

    fine = (h, w, d * sub)
    label = _label_volume(head, found, fine, sub)
    tissue = np.zeros(fine, np.uint8)
    tissue.reshape(-1)[head.index] = head.tissue
    hull = np.zeros(fine, np.float32)
    hull.reshape(-1)[head.index] = head.brain
    brain = hull.reshape(h, w, d, sub).mean(-1) >= 0.5
    structure = _structure(head, _rng(seed, 5))
    unit = np.exp(_rng(seed, 6).uniform(np.log(150), np.log(900)))
    images: dict[str, FloatArray] = {}
    for name in names:
        rng = _rng(seed, 10 + SEQUENCES.index(name))
        signal = _signal(name, head, found, plan, structure, rng, _rng(seed, 7))
        volume = np.zeros(fine, np.float32)
        volume.reshape(-1)[head.index] = signal
        image = volume.reshape(h, w, d, sub).mean(-1)
        image = _scan(image, grid, sub, spacing, rng, noise, bias)
        if skull_stripped:
            image[~brain] = 0
        images[name] = np.ascontiguousarray(image * np.float32(unit * rng.uniform(0.7, 1.4)), dtype=np.float32)
    affine = np.array(
        [
            [0, -spacing[1], 0, -origin[1]],
            [-spacing[0], 0, 0, -origin[0]],
            [0, 0, spacing[2], origin[2]],
            [0, 0, 0, 1],
        ],
        np.float64,
    )
    return Phantom(
        images, label, tissue[..., sub // 2 :: sub].copy(), brain, affine, spacing, seed, plan.kind if plan else "none"
    )


def best_threshold_dice(image: NDArray[np.floating], mask: NDArray[np.integer | np.bool_]) -> tuple[float, float]:
    """The best Dice that any single threshold ``image >= t`` reaches on a volume, and that threshold."""
    # The best threshold is the value of some lesion voxel: lowering it further would only add background.
    inside = np.sort(image[mask > 0])
    if not len(inside):
        return 0.0, float(image.max())
    hits = len(inside) - np.searchsorted(inside, inside)
    taken = image.size - np.searchsorted(np.sort(image, axis=None), inside)
    dice = 2.0 * hits / (taken + len(inside))
    best = int(np.argmax(dice))
    return float(dice[best]), float(inside[best])


def _check(
    names: tuple[str, ...], shape: tuple[int, int, int], spacing: tuple[float, float, float] | None, kind: str | None
) -> None:
    unknown = [name for name in names if name not in SEQUENCES]
    if unknown or not names:
        raise ValueError(f"sequences: found {', '.join(unknown) or 'none'}, allowed any of {', '.join(SEQUENCES)}")
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape: found {shape}, allowed three positive sizes (rows, columns, slices)")
    if spacing is not None and (len(spacing) != 3 or min(spacing) <= 0):
        raise ValueError(f"spacing: found {spacing}, allowed three positive lengths in mm")
    if kind not in {None, "low", "high"}:
        raise ValueError(f"kind: found {kind!r}, allowed 'low', 'high' or None")


def _rng(seed: int, concept: int) -> np.random.Generator:
    """An own stream a concept, so that what one draws leaves the others as they are."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, concept])))


def _grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    sub: int,
    head: HeadShape,
    rng: np.random.Generator,
) -> tuple[HeadGrid, tuple[float, float, float]]:
    """Axes in mm with the slices cut into ``sub``, and the place (posterior, left, superior) of the first voxel."""
    h, w, d = shape
    y0, x0 = -(h - 1) / 2 * spacing[0], -(w - 1) / 2 * spacing[1]
    extent = d * spacing[2]
    vertex = VERTEX_MM * head.scale[2]
    # A whole head ends at the vertex or a little above; a shorter slab is centred on the hemispheres.
    spare = rng.uniform(0.0, min(10.0, max(extent - 125.0, 1.0)))
    top = vertex + spare if extent >= 120 else 22.0 + extent / 2
    z0 = top - extent + spacing[2] / 2
    step = spacing[2] / sub
    return HeadGrid(
        (y0 + spacing[0] * np.arange(h)).astype(np.float32),
        (x0 + spacing[1] * np.arange(w)).astype(np.float32),
        (z0 - spacing[2] / 2 + step * (np.arange(d * sub) + 0.5)).astype(np.float32),
    ), (y0, x0, z0)


def _label_volume(head: Head, lesion: Lesion | None, fine: tuple[int, int, int], sub: int) -> NDArray[np.uint8]:
    """Labels at slice thickness: lesion where it fills half of a voxel, there the part with the largest share."""
    h, w, ds = fine
    out = np.zeros((h, w, ds // sub), np.uint8)
    if lesion is None:
        return out
    where = head.index[lesion.point]
    shares = []
    for value in _LABELS:
        part = np.zeros(fine, np.float32)
        part.reshape(-1)[where] = lesion.label == value
        shares.append(part.reshape(h, w, ds // sub, sub).mean(-1))
    stacked = np.stack(shares)
    # A reader's outline runs smoothly across single voxels.
    whole = ndimage.gaussian_filter(stacked.sum(0), (0.8, 0.8, 0)) >= 0.5
    whole &= stacked.sum(0) > 0
    # Specks of a voxel or two are no finding a reader would outline.
    pieces, count = ndimage.label(whole)
    if count > 1:
        sizes = np.bincount(pieces.reshape(-1))
        sizes[0] = 0
        whole = (sizes >= 0.02 * sizes.max())[pieces] & whole
    out[whole] = np.array(_LABELS, np.uint8)[stacked.argmax(0)[whole]]
    return out


def _structure(head: Head, rng: np.random.Generator) -> FloatArray:
    """Relative texture that all sequences share, 1 on average."""
    small, large = SmoothNoise(rng, 2.4, 64), SmoothNoise(rng, 9.0, 32)
    field = 0.03 * small.at(head.y, head.x, head.z) + 0.025 * large.at(head.y, head.x, head.z)
    outside = head.tissue < Tissue.CSF
    return (1 + field * np.where(outside, np.float32(2.5), np.float32(1))).astype(np.float32)


def _signal(
    name: str,
    head: Head,
    lesion: Lesion | None,
    plan: LesionPlan | None,
    structure: FloatArray,
    rng: np.random.Generator,
    shared: np.random.Generator,
) -> FloatArray:
    """Signal at each point of the head, white matter = 1."""
    signal = tissue_table(name, rng)[head.tissue] * structure
    if lesion is None or plan is None:
        return signal
    table = lesion_table(name, plan.kind, rng)
    mottle = SmoothNoise(shared, 5.0, 24)
    p = lesion.point
    texture = 1 + np.float32(0.07) * mottle.at(head.y[p], head.x[p], head.z[p])
    value = np.where(lesion.label > 0, table[lesion.label], table[EDEMA]) * texture * structure[p]
    # Infiltrated cortex keeps some of its own contrast.
    own = tissue_table(name, np.random.Generator(np.random.PCG64(0)))[head.tissue[p]]
    keep = np.where((lesion.label == EDEMA) & (head.tissue[p] == Tissue.GREY), np.float32(0.25), np.float32(0))
    value = value * (1 - keep) + keep * own * value.mean()
    signal[p] = signal[p] * (1 - lesion.weight) + value * lesion.weight
    return signal


def _scan(
    image: FloatArray,
    grid: HeadGrid,
    sub: int,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
    noise: float | None,
    bias: float | None,
) -> FloatArray:
    """In-plane blur, receive field, slice gain, and the magnitude of signal plus complex noise (Rician)."""
    blur = rng.uniform(0.5, 0.85)
    level = float(rng.uniform(0.015, 0.045)) if noise is None else noise
    half = float(rng.uniform(0.08, 0.38)) if bias is None else bias
    field_noise = SmoothNoise(rng, 70.0, 8)
    falloff = rng.uniform(0.0, 0.3)
    gain = 1 + 0.015 * rng.standard_normal(image.shape[2])
    image = ndimage.gaussian_filter(image, (blur * 0.94 / spacing[0], blur * 0.94 / spacing[1], 0), truncate=3.0)
    z = grid.z[sub // 2 :: sub]
    field = field_noise.on_grid(grid.y, grid.x, z)
    field *= np.float32(half / max(float(np.abs(field).max()), 1e-6))
    # The coil ends below the brain.
    along = 1 - falloff * np.clip((-z - 25) / 45, 0, 1) ** 2
    image *= (1 + field) * (along * gain).astype(np.float32)
    real = rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(image + np.float32(level) * real, np.float32(level) * imaginary)
