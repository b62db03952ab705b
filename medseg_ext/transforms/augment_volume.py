"""Augmentation of 3-D patches: one resampling straight out of the stored volume, then cheap intensity changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from medseg_ext.transforms.truth import HEAD
from medseg_ext.transforms.zscore import CLIP

#: Mean of a brain in its own standard deviations above air, about: where multiplication has its zero.
_AIR_LEVEL = 3.0


@dataclass(frozen=True)
class VolumeAugmentation:
    """What may happen to a training patch; every range is symmetric or given as (low, high).

    Attributes:
        size: (rows, columns, slices) of the patch that training sees.
        rotate: degrees about the slice axis, uniform in +-rotate. tilt: the same about the two other axes.
        scale: zoom factor, log-uniform between 1/scale and scale.
        stretch: a further zoom of each axis, log-uniform.
        flip: probability of mirroring, an axis each.
        still: probability of no rotation, tilt or zoom at all, which leaves the voxels as sharp as they are.
        thick: probability of thick slices. thickness: their thickness in voxels, log-uniform.
        thick_axes: how often each axis is the one across the slices.
        blur: probability of a blur in all directions. blur_sigma: its width in voxels.
        gamma: exponent on the 0-1 range of a sequence, log-uniform between 1/gamma and gamma.
        contrast: factor, log-uniform. brightness: additive, uniform in +-brightness (units of the normalised image).
        bias: strength of a multiplicative smooth field, uniform in 0..bias.
        noise: standard deviation, uniform in 0..noise.
        drop: probability that only some of the sequences are left: a subset, each non-empty one as likely.
        strip: probability that a head with its skull loses it. strip_shift: how much is cut off or left too much, in
            voxels, about, changing from place to place.
        shave: probability that the rim of a skull-stripped brain is cut in the same way.
        clip: highest absolute value of the result.
    """

    size: tuple[int, int, int] = (96, 96, 96)
    rotate: float = 15.0
    tilt: float = 8.0
    scale: float = 1.15
    stretch: float = 1.08
    flip: tuple[float, float, float] = (0.0, 0.5, 0.0)
    still: float = 0.2
    thick: float = 0.25
    thickness: tuple[float, float] = (2.0, 7.0)
    thick_axes: tuple[float, float, float] = (0.1, 0.1, 0.8)
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.5, 1.2)
    gamma: float = 1.4
    contrast: float = 1.25
    brightness: float = 0.25
    bias: float = 0.25
    noise: float = 0.15
    drop: float = 0.4
    strip: float = 0.5
    strip_shift: float = 2.0
    shave: float = 0.1
    clip: float = CLIP


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor whose logarithm is uniform between those of ``low`` and ``high``."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def draw_matrix(rng: np.random.Generator, augmentation: VolumeAugmentation) -> np.ndarray:
    """3x3 from an offset in the patch (rows, columns, slices, in voxels) to the offset in the volume it is cut from.

    A zoom shows things larger, so that its inverse is in the matrix.
    """
    a = augmentation
    signs = np.where(rng.random(3) < np.array(a.flip), -1.0, 1.0)
    still = rng.random() < a.still
    angles = np.radians(rng.uniform(-1.0, 1.0, 3) * (a.tilt, a.tilt, a.rotate))
    zooms = log_uniform(rng, 1 / a.scale, a.scale) * np.exp(rng.uniform(-1.0, 1.0, 3) * math.log(a.stretch))
    if still:
        return np.diag(signs)
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (other for other in range(3) if other != axis)
        step = np.eye(3)
        step[i, i] = step[j, j] = math.cos(angle)
        step[i, j], step[j, i] = -math.sin(angle), math.sin(angle)
        turn = turn @ step
    return turn @ np.diag(signs / zooms)


def _source_box(
    centre: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...] | None:
    reach = np.abs(matrix) @ ((np.array(size) - 1) / 2)
    low = np.maximum(np.floor(centre - reach).astype(int), 0)
    high = np.minimum(np.ceil(centre + reach).astype(int) + 1, shape)
    return None if (low >= high).any() else tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _is_plain(centre: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> bool:
    start = centre - (np.array(size) - 1) / 2
    return bool(np.array_equal(np.abs(matrix), np.eye(3)) and np.allclose(start, np.round(start), atol=1e-6))


def _grid(centre: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], box: tuple[slice, ...]) -> torch.Tensor:
    """Grid (1, *size, 3) of ``grid_sample`` from the patch into ``box``."""
    shape = np.array([s.stop - s.start for s in box])
    unit = 2.0 / shape  # voxels to the -1..1 of grid_sample, align_corners=False
    first = unit * (centre - [s.start for s in box] - matrix @ ((np.array(size) - 1) / 2) + 0.5) - 1.0
    # grid_sample wants the last axis first; steps along the patch's axes are added in lines, faster than affine_grid
    steps = (unit[:, None] * matrix)[::-1]
    rows, columns, slices = (
        torch.from_numpy((np.arange(n)[:, None] * steps[:, axis]).astype(np.float32)) for axis, n in enumerate(size)
    )
    line = (slices + torch.from_numpy(first[::-1].astype(np.float32))).flatten()
    plane = columns.repeat(1, size[2]) + line
    return (rows.repeat(1, size[2])[:, None] + plane).view(1, *size, 3)


def cut_patch(
    image: np.ndarray,
    truth: np.ndarray,
    centre: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int, int],
    beyond: int = 0,
    channels: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a patch out of a volume, turned and zoomed; only what it shows is read.

    Voxels are weighted by how much of them is head, so that the rim of a skull-stripped brain is not mixed with the
    zeros around it.

    Args:
        image: (C, H, W, D), any float type, 0 in the air.
        truth: (H, W, D) uint8, see :mod:`medseg_ext.transforms.truth`.
        centre: (row, column, slice) of the volume that the middle of the patch shows, voxels; may be fractions.
        matrix: from :func:`draw_matrix`.
        size: of the patch.
        beyond: truth of what lies beyond the border of the volume.
        channels: which of the image's, in order; None for all.

    Returns:
        image (C, *size) float32 and truth (*size) uint8 (by nearest neighbour).
    """
    chosen = range(len(image)) if channels is None else channels
    box = _source_box(centre, matrix, size, truth.shape)
    if box is None:
        return torch.zeros(len(chosen), *size), torch.full(size, beyond, dtype=torch.uint8)
    source = torch.from_numpy(np.stack([np.asarray(image[channel][box], np.float32) for channel in chosen]))
    bits = torch.from_numpy(np.array(truth[box]))
    if _is_plain(centre, matrix, size):
        return _crop(source, bits, centre, matrix, size, box, beyond)
    grid = _grid(centre, matrix, size, box)
    support = ((bits & HEAD) != 0).float()
    stack = functional.grid_sample(torch.cat([source, support[None]])[None], grid, align_corners=False)[0]
    share = stack[-1]
    head = share > 0.5
    patch = stack[:-1] / share.clamp_min(0.5) * head
    # what lies beyond becomes 0 by padding, so the bits are stored as differences from it
    moved = functional.grid_sample((bits ^ beyond).float()[None, None], grid, mode="nearest", align_corners=False)
    turned = moved[0, 0].to(torch.uint8) ^ beyond
    return patch, torch.where(head, turned | HEAD, turned & (255 - HEAD))


def _crop(
    source: torch.Tensor,
    bits: torch.Tensor,
    centre: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int, int],
    box: tuple[slice, ...],
    beyond: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    patch, truth = torch.zeros(len(source), *size), torch.full(size, beyond, dtype=torch.uint8)
    start = np.round(centre - (np.array(size) - 1) / 2).astype(int)
    place = tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, start.tolist(), strict=True))
    truth[place] = bits
    for channel, values in zip(patch, source, strict=True):
        channel[place] = values
    axes = [axis for axis in range(3) if matrix[axis, axis] < 0]
    return patch.flip([axis + 1 for axis in axes]), truth.flip(axes)


def smoothing_matrix(length: int, sigma: float) -> torch.Tensor:
    """(length, length) by which a line of voxels is multiplied to blur it by a gaussian; ends are repeated."""
    place = torch.arange(length, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((place[:, None] - place[None]) / sigma) ** 2)
    return weights / weights.sum(1, keepdim=True)


def thick_slice_matrix(length: int, thickness: float, phase: float) -> torch.Tensor:
    """(length, length) by which a line of voxels is multiplied to look as though slices of that thickness were cut.

    Each slice is the mean of what lies in it; between the middles of slices values are interpolated, as a loader does
    that brings the slices back to small voxels.

    Args:
        length: voxels of the line. thickness: of a slice, voxels, at least 1.
        phase: 0 to 1, share of a slice by which the first one sticks out of the line.
    """
    if length == 1:
        return torch.ones(1, 1)  # two slices that meet in one voxel have one middle, between which nothing lies
    count = math.ceil(length / thickness) + 1
    edges = (torch.arange(count + 1, dtype=torch.float32) - phase) * thickness
    voxels = torch.arange(length, dtype=torch.float32)
    overlap = torch.minimum(edges[1:, None], voxels + 1) - torch.maximum(edges[:-1, None], voxels)
    means = overlap.clamp_min(0)
    means = means[means.sum(1) > 1e-3]
    middles = (means * (voxels + 0.5)).sum(1) / means.sum(1)
    means = means / means.sum(1, keepdim=True)
    place = (voxels + 0.5).clamp(middles[0].item(), middles[-1].item())
    right = torch.searchsorted(middles, place).clamp(1, max(len(middles) - 1, 1))
    if len(middles) == 1:
        return means.expand(length, length)
    left = right - 1
    share = (place - middles[left]) / (middles[right] - middles[left])
    return (1 - share)[:, None] * means[left] + share[:, None] * means[right]


def along_axis(volumes: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """Multiply every line of (C, H, W, D) along spatial axis 0, 1 or 2 by (length, length)."""
    if axis == 2:
        return volumes @ matrix.T
    if axis == 1:
        return matrix @ volumes
    flat = volumes.flatten(2)
    return (matrix @ flat).view_as(volumes)


def smooth(volumes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (C, H, W, D)."""
    for axis in range(3):
        volumes = along_axis(volumes, smoothing_matrix(volumes.shape[axis + 1], sigma), axis)
    return volumes


def smooth_field(rng: np.random.Generator, size: tuple[int, ...], knots: int = 4) -> torch.Tensor:
    """A random field of mean 0 and a standard deviation of about 1 at its knots, smooth between them."""
    field = torch.from_numpy(rng.standard_normal((knots,) * 3).astype(np.float32))
    for axis, length in enumerate(size):
        place = torch.linspace(0, knots - 1, length)[:, None] - torch.arange(knots)
        weights = (1 - place.abs()).clamp_min(0)
        weights = weights * weights * (3 - 2 * weights)  # no kinks at the knots
        field = torch.tensordot(weights, field, dims=([1], [axis])).movedim(0, axis)
    return field


def shift_mask(mask: torch.Tensor, rng: np.random.Generator, shift: float) -> torch.Tensor:
    """Move the border of a mask in or out by up to about ``shift`` voxels, differently from place to place.

    Args:
        mask: (H, W, D) bool.
        rng: source of the choices.
        shift: voxels.
    """
    if shift <= 0 or not mask.any():
        return mask
    sigma = 1.5 * shift
    soft = smooth(mask[None].float(), sigma)[0]
    # at the border of a half space the blurred mask is .5, and falls by 1 / (sigma sqrt(2 pi)) a voxel
    slope = 1 / (sigma * math.sqrt(2 * math.pi))
    move = rng.uniform(-0.6, 0.6) + 0.4 * smooth_field(rng, tuple(mask.shape), 6).clamp(-1.5, 1.5)
    return soft > 0.5 - (move * shift * slope).clamp(-0.45, 0.45)


def draw_subset(rng: np.random.Generator, present: tuple[bool, ...], drop: float) -> tuple[bool, ...]:
    """Which sequences are left: with probability ``drop`` any non-empty subset of those present, each as likely.

    Args:
        rng: source of the choices.
        present: whether each sequence is there, at least one.
        drop: probability.
    """
    indices = np.flatnonzero(present)
    chosen = int(rng.integers(1, 2 ** len(indices)))
    if rng.random() >= drop:
        return tuple(bool(p) for p in present)
    kept = {int(index) for place, index in enumerate(indices) if chosen >> place & 1}
    return tuple(index in kept for index in range(len(present)))


def change_intensities(
    image: torch.Tensor, head: torch.Tensor, rng: np.random.Generator, augmentation: VolumeAugmentation
) -> torch.Tensor:
    """Thick slices, blur, gamma, contrast, bias field and noise, each a sequence for itself but the field.

    Args:
        image: (C, H, W, D) float32, normalised, 0 in the air.
        head: (H, W, D) bool, anything but air.
        rng: source of the choices.
        augmentation: ranges.

    Returns:
        (C, H, W, D), 0 in the air.
    """
    a = augmentation
    channels, size = len(image), image.shape[1:]
    inside = head.float()
    image = image.clamp(-a.clip, a.clip)
    matrices: list[tuple[int, torch.Tensor]] = []
    if rng.random() < a.thick:
        axis = int(rng.choice(3, p=np.array(a.thick_axes) / sum(a.thick_axes)))
        matrices.append((axis, thick_slice_matrix(size[axis], log_uniform(rng, *a.thickness), rng.random())))
    if rng.random() < a.blur:
        sigma = rng.uniform(*a.blur_sigma)
        matrices += [(axis, smoothing_matrix(size[axis], sigma)) for axis in range(3)]
    if matrices:
        stack = torch.cat([image, inside[None]])
        for axis, matrix in matrices:
            stack = along_axis(stack, matrix, axis)
        image = stack[:-1] / stack[-1].clamp_min(0.05)
    gammas = np.array([log_uniform(rng, 1 / a.gamma, a.gamma) for _ in range(channels)])
    gains = torch.tensor([log_uniform(rng, 1 / a.contrast, a.contrast) for _ in range(channels)], dtype=torch.float32)
    lifts = torch.tensor(rng.uniform(-a.brightness, a.brightness, channels), dtype=torch.float32)
    bend = rng.random() < 0.5
    biased = rng.random() < 0.5
    noisy = rng.random() < 0.5
    if bend and a.gamma > 1:
        low = image.amin((1, 2, 3), keepdim=True)
        width = (image.amax((1, 2, 3), keepdim=True) - low).clamp_min(1e-3)
        unit = ((image - low) / width).clamp_(0, 1)
        image = unit.pow_(torch.from_numpy(gammas.astype(np.float32)).view(-1, 1, 1, 1)) * width + low
    image = image * gains.view(-1, 1, 1, 1) + lifts.view(-1, 1, 1, 1)
    if biased and a.bias:
        field = torch.exp(rng.uniform(0, a.bias) * smooth_field(rng, tuple(size)))
        image = (image + _AIR_LEVEL) * field - _AIR_LEVEL
    if noisy and a.noise:
        # float32 noise from one 64-bit seed: torch's generator is several times faster than numpy's here
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        image = image.add_(torch.randn(image.shape, generator=generator), alpha=rng.uniform(0, a.noise))
    return image.clamp_(-a.clip, a.clip).mul_(inside)
