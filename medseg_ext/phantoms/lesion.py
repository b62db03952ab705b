"""A glioma: site, size and shape, fingers along the white matter, core, rim and edema."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg_ext.phantoms.anatomy import Head, HeadShape, Swelling, Tissue, inside_cerebrum
from medseg_ext.phantoms.noise import FloatArray, SmoothNoise

NECROTIC, EDEMA, ENHANCING = 1, 2, 4

# Penalties in mm: how much later the lesion's front arrives in a tissue than it would by distance alone.
_FORBIDDEN = (Tissue.VENTRICLE, Tissue.CHOROID, Tissue.SINUS, Tissue.FALX, Tissue.CEREBELLUM, Tissue.CISTERN)


@dataclass(frozen=True)
class LesionPlan:
    """What a lesion shall be before the head around it exists.

    Args:
        kind: ``"high"`` (necrotic core, enhancing rim, edema) or ``"low"`` (no enhancement).
        volume: wanted volume in ml.
        centre: (y, x, z) in head coordinates, mm.
    """

    kind: str
    volume: float
    centre: tuple[float, float, float]

    @property
    def radius(self) -> float:
        """Radius of the ball of the same volume, mm."""
        return float((3000.0 * self.volume / (4.0 * np.pi)) ** (1.0 / 3.0))

    def swelling(self, strength: float) -> Swelling:
        """The lesion's mass effect."""
        return Swelling(self.centre, 1.1 * self.radius + 8.0, strength)


@dataclass
class Lesion:
    """A lesion sampled at the points of a head that it reaches.

    Args:
        point: positions in the head's arrays.
        label: 1 necrotic or non-enhancing core, 2 edema, 4 enhancing, 0 outside.
        weight: share of lesion in the signal, 0 to 1, soft at the border.
        depth: depth below the border, mm.
    """

    point: NDArray[np.int64]
    label: NDArray[np.uint8]
    weight: FloatArray
    depth: FloatArray


def plan_lesion(rng: np.random.Generator, shape: HeadShape, kind: str | None, volume: float | None) -> LesionPlan:
    """Choose kind, volume and site; the site lies in the cerebrum at a depth that suits the size."""
    kind_drawn = "low" if rng.random() < 0.55 else "high"
    volume_drawn = float(np.clip(np.exp(rng.normal(np.log(24.0), 0.75)), 2.5, 100.0))
    plan = LesionPlan(kind or kind_drawn, volume or volume_drawn, (0.0, 0.0, 0.0))
    reach = 5.0 + 0.55 * plan.radius
    centre = (0.0, 30.0, 25.0)
    for _ in range(2000):
        y, x, z = rng.uniform(-68, 62), rng.uniform(9, 56) * rng.choice([-1, 1]), rng.uniform(-16, 52)
        if reach < inside_cerebrum(shape, y, x, z) < reach + 22 and abs(x) > 0.6 * plan.radius:
            centre = (float(y), float(x), float(z))
            break
    return LesionPlan(plan.kind, plan.volume, centre)


def grow_lesion(plan: LesionPlan, head: Head, voxel_ml: float, rng: np.random.Generator) -> Lesion:
    """Grow the planned lesion in a head.

    Args:
        plan: kind, volume and site.
        head: the sampled head.
        voxel_ml: volume of one sampled point, ml.
        rng: drives shape and noise.
    """
    r = plan.radius
    cy, cx, cz = plan.centre
    coarse, fine = SmoothNoise(rng, max(0.45 * r, 4.0), 24), SmoothNoise(rng, 3.0, 40)
    blobs = int(rng.integers(1, 5))
    offsets = rng.normal(0, 0.42 * r, (blobs, 3))
    offsets[0] = 0
    radii = r * rng.uniform(0.45, 0.95, (blobs, 3))
    rough, ragged = rng.uniform(0.14, 0.3), rng.uniform(0.6, 1.6)
    grey_cost, edge = rng.uniform(0.5, 5.0), rng.uniform(0.9, 2.2)
    core_radii, core_shift = rng.uniform(0.75, 1.2, 3).tolist(), rng.normal(0, 0.12 * r, 3).tolist()
    core_share, rim = rng.uniform(0.2, 0.5), rng.uniform(3.5, 6.5)
    rim_rough = rng.uniform(0.1, 0.4)

    box = np.flatnonzero(
        (np.abs(head.y - cy) < 2.4 * r + 8)
        & (np.abs(head.x - cx) < 2.4 * r + 8)
        & (np.abs(head.z - cz) < 2.4 * r + 8)
        & (head.brain_depth > -0.5)
    )
    y, x, z, tissue = head.y[box], head.x[box], head.z[box], head.tissue[box]
    front = np.full(len(box), 1e3, np.float32)
    for offset, radius in zip(offsets.tolist(), radii.tolist(), strict=True):
        p = [(a - c - o) / s for a, c, o, s in zip((y, x, z), plan.centre, offset, radius, strict=True)]
        distance = (np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2) - 1) * (sum(radius) / 3)
        h = np.clip(0.5 + (distance - front) / (0.5 * r), 0, 1)
        front = distance + (front - distance) * h - 0.25 * r * h * (1 - h)
    warp, grain = coarse.at(y, x, z), fine.at(y, x, z)
    front = front + rough * r * warp + ragged * grain

    cost = np.zeros(len(box), np.float32)
    cost[tissue == Tissue.GREY] = grey_cost
    cost[tissue == Tissue.DEEP_GREY] = 0.6 * grey_cost + 1
    cost[(tissue == Tissue.CSF) | (tissue == Tissue.VEIN)] = grey_cost + 2.5
    other_side = head.side[box] * np.sign(cx) < -0.3
    allowed = ~other_side & ~np.isin(tissue, _FORBIDDEN)
    # Only fluid that the swelling closes counts: sulci inside the lesion, not the layer on the brain's surface.
    allowed &= ~(((tissue == Tissue.CSF) | (tissue == Tissue.VEIN)) & (head.brain_depth[box] < 3))
    front = np.where(allowed, front + cost, np.float32(1e3)).astype(np.float32)

    wanted = min(max(round(plan.volume / voxel_ml), 1), max(int(allowed.sum()) - 1, 1))
    border = float(np.partition(front, wanted)[wanted])
    depth = border - front
    inside = depth > 0
    label = np.where(inside, EDEMA, 0).astype(np.uint8)
    t = np.clip(0.5 + depth / (2 * edge), 0, 1)
    weight = np.where(allowed, t * t * (3 - 2 * t), 0).astype(np.float32)

    p = [(a - c - o) / s for a, c, o, s in zip((y, x, z), plan.centre, core_shift, core_radii, strict=True)]
    core = np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2) + 0.16 * r * warp + 0.5 * grain
    core = np.where(depth > 1.0, core, np.float32(1e3))
    count = max(int(core_share * wanted), 1)
    edge_of_core = float(np.partition(core, count)[count])
    solid = inside & (core < edge_of_core)
    label[solid] = NECROTIC
    if plan.kind == "high":
        below = np.minimum(edge_of_core - core, 0.8 * depth)
        width = min(rim, 0.42 * edge_of_core) * (1 + rim_rough * grain)
        label[solid & (below < width)] = ENHANCING
    return Lesion(box, label, weight, depth.astype(np.float32))
