"""Weights of overlapping windows that sum to one, so that nothing has to be counted and divided afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_LEAST = 1e-6  # keeps a voxel that only the rim of a window reaches from 0 / 0


def profile(window: int, mode: str, sigma: float = 0.125) -> torch.Tensor:
    """Weight of a window's voxels along one axis, before normalisation: (window,) float64.

    Args:
        window: voxels.
        mode: "constant", or "gaussian" around the middle.
        sigma: standard deviation of the gaussian as a share of the window.
    """
    if mode == "constant":
        return torch.ones(window, dtype=torch.float64)
    if mode != "gaussian":
        raise ValueError(f"weights: found {mode!r}, allowed 'gaussian' or 'constant'")
    place = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    return torch.exp(-0.5 * (place / (sigma * window)) ** 2).clamp_min(_LEAST)


def axis_weights(starts: Sequence[int], window: int, mode: str, sigma: float = 0.125) -> torch.Tensor:
    """Weights of windows along one axis.

    A gaussian is a product over the axes and windows lie on a regular grid, so the sum over all windows is a product
    too, and each axis can be normalised by itself.

    Args:
        starts: where windows begin; together they cover the axis without a gap.
        window: voxels of each.
        mode: see :func:`profile`.
        sigma: see :func:`profile`.

    Returns:
        (windows, window) float32; at every voxel of the axis the weights of the windows over it sum to one.
    """
    own = profile(window, mode, sigma)
    total = torch.zeros(max(starts) + window, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += own
    return torch.stack([own / total[start : start + window] for start in starts]).float()
