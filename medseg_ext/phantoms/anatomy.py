"""The head: deformed ellipsoids, folded cortex, ventricles, skull and face, as a tissue class a point."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_ext.phantoms.noise import FloatArray, SmoothNoise


class Tissue(IntEnum):
    """Tissue classes of a phantom."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    MUCOSA = 6
    EYE = 7
    CSF = 8
    GREY = 9
    WHITE = 10
    DEEP_GREY = 11
    VENTRICLE = 12
    CHOROID = 13
    SINUS = 14
    VEIN = 15
    FALX = 16
    CEREBELLUM = 17
    CAP = 18
    CISTERN = 19


BRAIN_TISSUES = (
    Tissue.GREY,
    Tissue.WHITE,
    Tissue.DEEP_GREY,
    Tissue.VENTRICLE,
    Tissue.CHOROID,
    Tissue.CEREBELLUM,
    Tissue.CAP,
)

VERTEX_MM = 84.0  # height of the scalp above the centre of the head


@dataclass(frozen=True)
class HeadGrid:
    """Where the voxels lie: axes in mm, rows towards posterior, columns towards left, slices towards superior."""

    y: FloatArray
    x: FloatArray
    z: FloatArray


@dataclass(frozen=True)
class HeadShape:
    """The numbers that make one head differ from the next; lengths in mm, angles in radians."""

    scale: tuple[float, float, float]  # (y, x, z)
    rotation: tuple[float, float, float]  # pitch, roll, yaw
    shift: tuple[float, float]  # (y, x)
    skull: float
    scalp: float
    csf_gap: float
    sulcus: float
    sulcus_depth: float
    cortex: float
    ventricle: float
    taper: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> HeadShape:
        """A random head."""
        size = rng.normal(1.0, 0.03)
        atrophy = rng.beta(1.5, 2.5)
        return cls(
            scale=(
                float(size * rng.normal(1.0, 0.025)),
                float(size * rng.normal(1.0, 0.025)),
                float(size * rng.normal(1.0, 0.02)),
            ),
            rotation=(float(rng.normal(0, 0.07)), float(rng.normal(0, 0.035)), float(rng.normal(0, 0.06))),
            shift=(float(rng.normal(4, 3)), float(rng.normal(0, 3))),
            skull=float(rng.uniform(5.5, 8.0)),
            scalp=float(rng.uniform(4.5, 8.5)),
            csf_gap=float(1.2 + 2.4 * atrophy),
            sulcus=float(0.35 + 0.75 * atrophy),
            sulcus_depth=float(rng.uniform(14, 20)),
            cortex=float(rng.uniform(2.7, 3.4)),
            ventricle=float(0.85 + 0.6 * atrophy + rng.normal(0, 0.08)),
            taper=float(rng.uniform(0.05, 0.14)),
        )


@dataclass
class Head:
    """A head sampled at the points that lie inside it.

    Args:
        index: flat index of each point in the grid.
        y, x, z: the points' places in head coordinates, mm.
        tissue: `Tissue` of each point.
        brain_depth: depth below the brain's surface, mm (negative outside).
        side: signed distance from the midline where the hemispheres are apart, mm; 0 where they join.
        brain: inside the brain's hull, fluid in the sulci included.
    """

    index: NDArray[np.int64]
    y: FloatArray
    x: FloatArray
    z: FloatArray
    tissue: NDArray[np.uint8]
    brain_depth: FloatArray
    side: FloatArray
    brain: NDArray[np.bool_]


@dataclass(frozen=True)
class Swelling:
    """A mass effect: the anatomy near ``centre`` (y, x, z) is stretched, what lies around is pushed aside."""

    centre: tuple[float, float, float]
    radius: float
    strength: float


def _ellipsoid(y: Any, x: Any, z: Any, centre: Any, radii: Any) -> Any:
    """Nearly the signed distance from an ellipsoid, mm, negative inside."""
    py, px, pz = (y - centre[0]) / radii[0], (x - centre[1]) / radii[1], (z - centre[2]) / radii[2]
    k0 = np.sqrt(py * py + px * px + pz * pz)
    py, px, pz = py / radii[0], px / radii[1], pz / radii[2]
    k1 = np.sqrt(py * py + px * px + pz * pz) + np.float32(1e-6)
    return k0 * (k0 - 1) / k1


def _step(value: Any, low: float, high: float) -> Any:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _smooth_min(a: Any, b: Any, width: float) -> Any:
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return b + (a - b) * h - width * h * (1 - h)


def _rotate(shape: HeadShape, y: Any, x: Any, z: Any) -> tuple[Any, Any, Any]:
    pitch, roll, yaw = shape.rotation
    c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    y, x = c * y - s * x, s * y + c * x
    c, s = np.float32(np.cos(pitch)), np.float32(np.sin(pitch))
    y, z = c * y - s * z, s * y + c * z
    c, s = np.float32(np.cos(roll)), np.float32(np.sin(roll))
    x, z = c * x - s * z, s * x + c * z
    return y, x, z


def cranial_cavity(shape: HeadShape, y: Any, x: Any, z: Any) -> tuple[Any, Any, Any]:
    """Signed distances from the vault and from the posterior fossa, and the height of the tentorium, mm."""
    width = 1 + shape.taper * np.clip((y + 15) / 80, -1, 0.35)
    ax = np.abs(x)
    flat = np.where(z > 0, np.float32(70.0), np.float32(46.0))
    vault = _ellipsoid(y, x / width, z, (0, 0, 0), (87.0, 69.0, flat))
    floor = -7 - 7 * _step(ax, 8, 30) * _step(-y, -80, -50) - 22 * _step(y, 0, 30)
    vault = np.maximum(vault, (floor - z) * 0.9)
    low = np.flatnonzero(z < 20)  # the temporal lobes reach no higher
    ly, lz = y[low], z[low]
    temporal = _ellipsoid(ly, ax[low] - 0.12 * (ly + 8), lz, (-6, 39, -15), (39.0, 25.0, 24.0))
    temporal = np.maximum(temporal, _ellipsoid(ly, x[low] / width[low], lz, (0, 0, 0), (87.0, 69.0, 60.0)))
    vault[low] = _smooth_min(vault[low], temporal, 5.0)
    fossa = _ellipsoid(y, x, z, (42, 0, -24), (41.0, 56.0, 31.0))
    canal = np.maximum(np.hypot(y - 21, x) - 13, z + 35)
    tent = 6 - 0.22 * ax - 0.28 * (y - 25)
    return vault, np.minimum(fossa, canal), tent


def inside_cerebrum(shape: HeadShape, y: float, x: float, z: float) -> float:
    """Depth of one point below the surface of the cerebrum, mm, negative outside."""
    vault, _, tent = cranial_cavity(shape, *(np.array([a], np.float32) for a in (y, x, z)))
    below = tent[0] - z - 1.5 * max(22.0 - y, 0.0)
    return -float(max(vault[0] + shape.csf_gap, below + 1.5))


def make_head(shape: HeadShape, grid: HeadGrid, rng: np.random.Generator, swelling: Swelling | None = None) -> Head:
    """Sample a head on a grid.

    Args:
        shape: the head's numbers.
        grid: where to sample.
        rng: drives the surfaces' noise.
        swelling: the mass effect of a lesion, in head coordinates.

    Returns:
        The points inside the head and their tissues.
    """
    bend = [SmoothNoise(rng, 48.0, 10) for _ in range(3)]
    ripple = SmoothNoise(rng, 11.0, 28)
    folds = SmoothNoise(rng, 5.6, 48)
    folds_fine = SmoothNoise(rng, 3.4, 64)
    depths = SmoothNoise(rng, 13.0, 24)
    patches = SmoothNoise(rng, 6.0, 40)
    lumps = SmoothNoise(rng, 12.0, 24)
    vein_noise = SmoothNoise(rng, 2.1, 64)

    index, y, x, z, bump = _points(shape, grid, bend, ripple)
    vault, fossa, tent = cranial_cavity(shape, y, x, z)
    cavity = np.minimum(vault, fossa)
    tissue, inside = _outside_brain(shape, y, x, z, cavity, bump, patches, lumps)
    keep = np.flatnonzero(inside)
    index, tissue = index[keep], tissue[keep]
    y, x, z, bump, cavity, vault, fossa, tent = (a[keep] for a in (y, x, z, bump, cavity, vault, fossa, tent))

    depth = np.full(len(index), -99, np.float32)
    side = np.zeros(len(index), np.float32)
    hull = np.zeros(len(index), bool)
    inner = np.flatnonzero(cavity < 0)
    part = _brain(
        shape,
        y[inner],
        x[inner],
        z[inner],
        vault[inner],
        fossa[inner],
        tent[inner],
        bump[inner],
        (folds, folds_fine, depths, patches, vein_noise),
        swelling,
    )
    tissue[inner], depth[inner], side[inner], hull[inner] = part
    return Head(index, y, x, z, tissue, depth, side, hull)


def _points(
    shape: HeadShape, grid: HeadGrid, bend: list[SmoothNoise], ripple: SmoothNoise
) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray, FloatArray]:
    """Head coordinates of the grid's points in a box around the head."""
    y, x, z = np.meshgrid(grid.y - shape.shift[0], grid.x - shape.shift[1], grid.z, indexing="ij", sparse=True)
    near = ((y + 6) / 116) ** 2 + (x / 96) ** 2 < 1.25
    index = np.flatnonzero(np.broadcast_to(near, (len(grid.y), len(grid.x), len(grid.z))))
    full = [np.broadcast_to(a, (len(grid.y), len(grid.x), len(grid.z))).reshape(-1)[index] for a in (y, x, z)]
    fields = [n.on_grid(grid.y, grid.x, grid.z).reshape(-1)[index] for n in (*bend, ripple)]
    py, px, pz = _rotate(shape, *full)
    py = py / np.float32(shape.scale[0]) + 2.2 * fields[0]
    px = px / np.float32(shape.scale[1]) + 2.0 * fields[1]
    pz = pz / np.float32(shape.scale[2]) + 1.8 * fields[2]
    return index, py, px, pz, fields[3]


def _outside_brain(
    shape: HeadShape, y: Any, x: Any, z: Any, cavity: Any, bump: Any, patches: SmoothNoise, lumps: SmoothNoise
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Skull, scalp and face; and which points lie inside the head."""
    ax = np.abs(x)
    temporal = _step(ax, 34, 62) * _step(-z, -40, 0) * _step(-np.abs(y + 20), -52, -12)
    skull = shape.skull * (1 + 0.05 * bump) + 3.5 * _step(-z, 2, 25)
    scalp = shape.scalp * (1 + 0.03 * bump) * (1 + 0.35 * _step(y, 20, 90)) * (1 - 0.35 * temporal)
    outer = cavity - skull - scalp - 5 * temporal
    low = np.flatnonzero(z < 6)
    ly, lx, lax, lz = y[low], x[low], ax[low], z[low]
    face = _ellipsoid(ly, lx, lz, (-8, 0, -62), (86.0, 75.0, 74.0))
    nose = _ellipsoid(ly, lx, lz, (-98, 0, -46), (20.0, 15.0, 24.0))
    neck = np.maximum(_ellipsoid(ly, lx, 0 * lz, (26, 0, 0), (68.0, 72.0, 99.0)), lz + 34)
    ear = _ellipsoid(ly, lax, lz, (14, 76, -30), (14.0, 9.0, 22.0))
    outer[low] = _smooth_min(_smooth_min(outer[low], np.minimum(face, neck), 10.0), np.minimum(nose, ear), 5.0)
    inside = outer < 0

    tissue = np.full(y.shape, Tissue.AIR, np.uint8)
    skin = -outer
    tissue[inside] = Tissue.FAT
    tissue[inside & (skin < 1.3)] = Tissue.SKIN
    deep = inside & (skin > scalp) & (cavity > 0)
    tissue[deep] = Tissue.MUSCLE
    bone = (cavity > 0) & (cavity < skull) & inside
    tissue[bone] = Tissue.BONE
    tissue[bone & (cavity > 0.28 * skull) & (cavity < 0.72 * skull + 0.6 * bump)] = Tissue.MARROW
    base = np.flatnonzero(inside & (cavity > 0) & (z < 20))
    tissue[base] = _face(tissue[base], y[base], ax[base], z[base], cavity[base], skin[base], bump[base], patches, lumps)
    return tissue, inside


def _face(
    tissue: NDArray[np.uint8],
    y: Any,
    ax: Any,
    z: Any,
    cavity: Any,
    skin: Any,
    bump: Any,
    patches: SmoothNoise,
    lumps: SmoothNoise,
) -> NDArray[np.uint8]:
    """Muscle and fat below the skull, the air-filled spaces and the orbits, the same on both sides."""
    texture, clumps = patches.at(y, ax, z * np.float32(0.7)), lumps.at(y, ax, z)
    soft = (tissue == Tissue.MUSCLE) & (z < 8)
    tissue[soft & ((np.abs(texture) < 0.28) | (clumps > 1.0))] = Tissue.FAT
    tissue[soft & ((clumps < -1.2) | (texture < -1.7))] = Tissue.BONE
    tissue[(tissue == Tissue.MARROW) & (z < -4) & (clumps < -0.2)] = Tissue.BONE

    # Air: frontal, sphenoid and maxillary sinus, nose, mastoid; mucosa where the noise leaves septa.
    nasal = np.maximum(np.maximum(ax - 15 - 3 * clumps, np.abs(y + 58) - 36), np.abs(z + 38) - 27)
    sphenoid = _ellipsoid(y, ax, z, (-22, 7, -24), (15.0, 13.0, 11.0))
    maxilla = _ellipsoid(y, ax, z, (-58, 29, -46), (17.0, 13.0, 17.0)) + 2 * clumps
    frontal = _ellipsoid(y, ax, z, (-90, 10, 2), (6.0, 17.0, 14.0)) + 3 * bump
    mastoid = np.maximum(_ellipsoid(y, ax, z, (22, 54, -34), (17.0, 11.0, 15.0)), -0.6 - texture)
    throat = np.maximum(np.hypot((y + 12) / 1.2, ax) - 9, z + 48)
    cells = np.minimum.reduce([nasal, sphenoid, maxilla, frontal, mastoid, throat])
    cells = np.where((cavity > 1.5) & (skin > 3), cells, 9.0)
    tissue[(cells < 2.0) & (cells >= 0)] = Tissue.BONE
    tissue[cells < 0] = Tissue.AIR
    tissue[(cells < 0) & (nasal < 0) & (texture > 0.35)] = Tissue.MUCOSA
    tissue[(cells < 0) & (cells > -1.6) & (texture > 0)] = Tissue.MUCOSA

    orbit = _ellipsoid(y, ax, z, (-58, 29, -20), (27.0, 16.0, 15.0))
    orbit = np.where(cavity > 2, orbit, 9.0)
    tissue[(orbit < 2) & (orbit >= 0)] = Tissue.BONE
    tissue[orbit < 0] = Tissue.FAT
    strip = np.abs(ax - 29 + 0.30 * (y + 72))  # optic nerve towards the chiasm
    muscles = (np.abs(strip - 9 - 0.12 * (y + 60)) < 1.6) & (np.abs(z + 20) < 7)
    tissue[(orbit < 0) & (((strip < 2) & (np.abs(z + 19) < 2.5)) | muscles)] = Tissue.MUSCLE
    globe = np.sqrt((y + 74) ** 2 + (ax - 31) ** 2 + (z + 20) ** 2) - 12.0
    tissue[globe < 0.9] = Tissue.MUSCLE
    tissue[globe < -0.5] = Tissue.EYE
    return tissue


def _brain(
    shape: HeadShape,
    y: Any,
    x: Any,
    z: Any,
    vault: Any,
    fossa: Any,
    tent: Any,
    bump: Any,
    noises: tuple[SmoothNoise, SmoothNoise, SmoothNoise, SmoothNoise, SmoothNoise],
    swelling: Swelling | None,
) -> tuple[NDArray[np.uint8], FloatArray, FloatArray, NDArray[np.bool_]]:
    """Tissues inside the cranial cavity, depth below the brain's surface, side of the midline, the brain's hull."""
    folds, folds_fine, depths, patches, vein_noise = noises
    gap = shape.csf_gap * (1 + 0.25 * bump)
    below = tent - z - 1.5 * np.clip(22 - y, 0, None)
    cerebrum = np.maximum(vault + gap, below + 1.2)
    cerebellum = np.maximum(fossa + 3.0, z - tent + 1.2) + 2.5 * _step(-np.abs(x), -5, 0) * _step(y, 30, 60)
    cerebellum = np.maximum(cerebellum, 16 - y)
    stem = np.minimum(
        np.maximum(np.hypot((y - 9 + 0.22 * z) / 0.85, x * 0.9) - 10.5, np.abs(z + 28) - 34),
        _ellipsoid(y, x, z, (8, 0, -20), (13.0, 16.0, 13.0)),
    )
    hull = (cerebrum < 0.5) | (cerebellum < 0.5) | (stem < 0)
    tissue = np.full(y.shape, Tissue.CSF, np.uint8)
    tissue[(z < 4) & (cerebrum > 0) & (y < 24) & (y > -26) & (np.abs(x) < 24)] = Tissue.CISTERN

    wy, wx, wz = _swell(y, x, z, swelling)
    ax = np.abs(wx)

    # The hemispheres' inner faces: a sheet at the midline, open where the corpus callosum and the thalami join them.
    middle = wx + 0.9 * bump
    bridge = _ellipsoid(wy, 0 * wx, wz, (3, 0, 2), (38.0, 99.0, 23.0))
    fissure = np.hypot(middle, np.clip(-bridge, 0, None))
    side = np.where(bridge > 0, middle, np.float32(0)).astype(np.float32)

    depth = -cerebrum
    outer = np.minimum(depth, fissure - 0.7 - 0.4 * shape.sulcus)
    # Sampling the folds along rays makes the sulci stand upright on the surface, as they do.
    reach = np.sqrt((wy / 85) ** 2 + (wx / 67) ** 2 + (wz / 66) ** 2) + np.float32(0.05)
    pull = np.clip(reach, 0.55, 1.2) ** np.float32(-0.75)
    ribbon = np.flatnonzero((depth > -1) & (outer < 30))
    qy, qx, qz = (a[ribbon] * pull[ribbon] for a in (wy, wx, wz))
    wave = folds.at(qy, qx, qz) + np.float32(0.45) * folds_fine.at(qy, qx, qz)
    sheet = np.abs(wave) * np.float32(3.0)
    ceiling = shape.sulcus_depth + 4.5 * depths.at(wy[ribbon], wx[ribbon], wz[ribbon])
    medial = fissure[ribbon] < depth[ribbon]
    ceiling = ceiling * (0.65 + 0.35 * _step(wz[ribbon], 0, 25))
    ceiling = np.where(medial, 0.4 * ceiling, ceiling)
    below_sheet = np.clip(outer[ribbon] - ceiling, 0, None)
    width = shape.sulcus * np.clip(1.25 - 0.6 * outer[ribbon] / np.clip(ceiling, 6, None), 0.35, 1.25)
    sylvian = np.hypot(
        wz[ribbon] - 2 - 0.3 * (wy[ribbon] + 10) + 2 * bump[ribbon],
        np.clip(np.abs(wy[ribbon] - 0) - 28, 0, None) + np.clip(39 - ax[ribbon], 0, None),
    )
    insula = np.hypot(
        ax[ribbon] - 39 + 0.008 * (wy[ribbon] + 2) ** 2 - 1.2 * bump[ribbon],
        np.clip(np.abs(wy[ribbon] + 2) - 21, 0, None) + np.clip(np.abs(wz[ribbon] - 1 - 0.3 * wy[ribbon]) - 8, 0, None),
    )
    pial = np.minimum(np.hypot(sheet, below_sheet) - width, np.minimum(sylvian, insula) - 0.5 - 0.8 * shape.sulcus)
    pial = np.minimum(pial, outer[ribbon])

    white = depth > 0
    tissue[white] = Tissue.WHITE
    cortex = shape.cortex * (1 + 0.12 * bump[ribbon])
    local = np.where(pial < 0, Tissue.CSF, np.where(pial < cortex, Tissue.GREY, Tissue.WHITE)).astype(np.uint8)
    vein = vein_noise.at(y[ribbon], x[ribbon], z[ribbon] * np.float32(0.6))
    local[(pial < 0.6) & (vein > 1.7)] = Tissue.VEIN
    local[(depth[ribbon] <= 0) & (local != Tissue.VEIN)] = Tissue.CSF
    tissue[ribbon] = local
    turned = ax - 0.28 * (wy + 6)
    for centre, radii in (
        ((8, 11, 7), (14.0, 8.5, 9.0)),
        ((-6, 25, 4), (18.0, 6.0, 11.0)),
        ((-24, 14, 9), (10.0, 5.5, 12.0)),
        ((-2, 17, 2), (11.0, 3.5, 7.0)),
        ((-2, 26, -22), (14.0, 6.0, 5.0)),
    ):
        tissue[white & (_ellipsoid(wy, turned, wz, centre, radii) < 0.6 * bump)] = Tissue.DEEP_GREY
    _ventricles(shape, tissue, wy, ax, wz, bump)

    _hindbrain(tissue, cerebellum, stem, y, x, z, patches, bump)
    tissue[(np.abs(z - tent) < 0.9) & (y > 22) & (ax > 4) & (vault < -2) & (fossa < 4)] = Tissue.FALX
    tissue[(np.abs(middle) < 0.55) & (bridge > 6) & (vault < 0) & ((wz > 0) | (wy < -20)) & (depth < 40)] = Tissue.FALX
    crest = np.maximum(np.abs(middle) - 0.5 * (8.5 + vault), -vault - 8.5)
    sagittal = (crest < 0) & ((z > 25) | (y > 40)) & (z > -5)
    tissue[sagittal & (vault < -0.3)] = Tissue.SINUS
    transverse = (np.abs(z + 11 + 2 * bump) < 4.0) & (fossa > -5.5) & (y > 30) & (fossa < 0) & (ax > 6)
    tissue[transverse] = Tissue.SINUS
    straight = (np.hypot(x, z - tent + 1) < 2.2) & (y > 28)
    galen = np.hypot(np.hypot(x, wy - 26), wz - 9) < 3
    carotid = np.hypot(ax - 11, y + 8) < 2.4
    basilar = np.hypot(x, y + 6 - 0.1 * z) < 1.8
    tissue[straight | galen | ((carotid | basilar) & (z < -3) & (tissue == Tissue.CISTERN))] = Tissue.SINUS
    return tissue, np.maximum(np.maximum(depth, -cerebellum), -stem).astype(np.float32), side, hull


def _swell(y: Any, x: Any, z: Any, swelling: Swelling | None) -> tuple[Any, Any, Any]:
    if swelling is None:
        return y, x, z
    cy, cx, cz = swelling.centre
    dy, dx, dz = y - cy, x - cx, z - cz
    pull = 1 - np.float32(swelling.strength) * np.exp(-(dy * dy + dx * dx + dz * dz) / (2 * swelling.radius**2))
    return cy + dy * pull, cx + dx * pull, cz + dz * pull


def _ventricles(shape: HeadShape, tissue: NDArray[np.uint8], y: Any, ax: Any, z: Any, bump: Any) -> None:
    """Lateral and third ventricles with choroid plexus and the bright caps around the horns, painted in place."""
    box = np.flatnonzero((ax < 48) & (np.abs(y - 4) < 66) & (z > -30) & (z < 45))
    y, ax, z, bump = y[box], ax[box], z[box], bump[box]
    v = shape.ventricle
    lateral = np.full(y.shape, 99, np.float32)
    for centre, radii in (
        ((-25, 8.5 + 1.5 * v, 13), (13.0, 3.2 * v, 7.5)),
        ((-4, 7.0 + 2.5 * v, 19), (25.0, 3.8 * v, 5.0)),
        ((22, 15 + 2 * v, 18), (15.0, 4.6 * v, 6.5)),
        ((36, 23 + v, 8), (13.0, 4.2 * v, 8.0)),
        ((54, 22, 4), (10.0, 2.0 * v, 4.0)),
        ((18, 32, -8), (17.0, 2.2 * v, 4.0)),
    ):
        lateral = _smooth_min(lateral, _ellipsoid(y, ax, z, centre, radii), 3.0)
    lateral = lateral + 0.4 * bump
    third = _ellipsoid(y, ax, z, (0, 0, 2), (14.0, 1.3 + 1.2 * v, 10.0))
    out = tissue[box]
    tips = np.minimum(np.hypot(y + 36, ax - 11), np.hypot(y - 48, ax - 24))
    solid = (out == Tissue.WHITE) | (out == Tissue.GREY)
    out[solid & (lateral < np.clip(2.8 - 0.12 * tips, 0.9, None) + 0.5 * bump)] = Tissue.CAP
    out[(lateral < 0) | (third < 0)] = Tissue.VENTRICLE
    plexus = _ellipsoid(y, ax, z, (34, 22 + v, 8), (8.0, 2.0, 4.5)) + 0.7 * bump
    body = np.maximum(np.hypot(ax - 6 - v, (z - 15)) - 1.5, np.abs(y - 6) - 12)
    out[(lateral < 0.3) & (np.minimum(plexus, body) < 0)] = Tissue.CHOROID
    tissue[box] = out


def _hindbrain(
    tissue: NDArray[np.uint8], cerebellum: Any, stem: Any, y: Any, x: Any, z: Any, patches: SmoothNoise, bump: Any
) -> None:
    """Cerebellum with folia, brainstem and fourth ventricle, painted in place."""
    box = np.flatnonzero((cerebellum < 1) | (stem < 1))
    y, x, z, bump = y[box], x[box], z[box], bump[box]
    cb, st = cerebellum[box], stem[box]
    out = tissue[box]
    radius = np.sqrt((y - 18) ** 2 + (0.75 * x) ** 2 + (1.2 * (z + 24)) ** 2)
    folia = np.cos(2 * np.pi * radius / 5.5 + 1.6 * patches.at(y, x, z))
    inside = cb < 0
    out[inside] = Tissue.CEREBELLUM
    out[inside & (cb > -9) & (folia > 0.93)] = Tissue.CSF
    core = _ellipsoid(y, np.abs(x), z, (36, 20, -30), (13.0, 15.0, 9.0)) + 2.5 * bump + 1.5 * folia
    out[inside & (core < 0)] = Tissue.WHITE
    out[st < 0] = Tissue.WHITE
    out[_ellipsoid(y, x, z, (25, 0, -26), (5.0, 7.0, 10.0)) < 0.5 * bump] = Tissue.VENTRICLE
    tissue[box] = out
