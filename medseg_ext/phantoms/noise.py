"""Smooth random fields fixed in millimetres, so that a seed draws the same anatomy on any voxel grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]

# The cubic B-spline basis has mean square 151/315 along one axis, so unit lattice noise comes out this much weaker.
_GAIN = float((315.0 / 151.0) ** 1.5)


class SmoothNoise:
    """Stationary noise with mean 0 and variance 1: normal numbers on a periodic lattice under cubic B-splines.

    Zero crossings along a line lie about 2.7 times ``scale`` apart.

    Args:
        rng: where the lattice is drawn from.
        scale: lattice spacing in mm.
        size: lattice points an axis; the field repeats after ``size * scale`` mm.
    """

    def __init__(self, rng: np.random.Generator, scale: float, size: int = 32) -> None:
        self.scale, self.size = float(scale), int(size)
        self.lattice: FloatArray = rng.standard_normal((size, size, size), dtype=np.float32)
        self.lattice *= np.float32(_GAIN)
        self._dense: FloatArray | None = None

    def on_grid(self, y: FloatArray, x: FloatArray, z: FloatArray) -> FloatArray:
        """The field on the grid spanned by three axes in mm, shape ``(len(y), len(x), len(z))``."""
        out = self.lattice
        for axis in (y, x, z):
            out = np.tensordot(out, self._weights(axis), axes=(0, 1))  # each pass moves the next axis to the front
        return np.ascontiguousarray(out, dtype=np.float32)

    def at(self, y: FloatArray, x: FloatArray, z: FloatArray) -> FloatArray:
        """The field at scattered points in mm, the shape of ``y``: linear between half lattice steps."""
        if self._dense is None:
            half = (np.arange(2 * self.size) * (self.scale / 2)).astype(np.float32)
            self._dense = self.on_grid(half, half, half)
        points = np.stack([y, x, z]) * np.float32(2 / self.scale)
        return ndimage.map_coordinates(self._dense, points, order=1, prefilter=False, mode="grid-wrap")

    def _weights(self, position: FloatArray) -> FloatArray:
        """B-spline weights of the lattice points, shape ``(len(position), size)``."""
        t = np.asarray(position, dtype=np.float64) / self.scale
        distance = np.abs((t[:, None] - np.arange(self.size)[None, :] + self.size / 2) % self.size - self.size / 2)
        near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
        far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
        return np.where(distance < 1.0, near, far).astype(np.float32)
