"""Augmentation of 2-D slices with neighbours: one resampling, then cheap intensity changes, seeded by the caller."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True)
class SliceAugmentation:
    """What may happen to a training slice; every range is symmetric or given as (low, high).

    Attributes:
        size: (rows, columns) of the crop that training sees.
        rotate: degrees, uniform in +-rotate.
        scale: zoom factor, log-uniform between 1/scale and scale.
        stretch: a further zoom of one axis against the other, log-uniform.
        shear: uniform in +-shear.
        shift: pixels, uniform in +-shift, about the centre of the head.
        flip: probability of mirroring left and right.
        flip_slices: probability of exchanging the neighbours above and below.
        gamma: exponent on the 0-1 range of a channel, log-uniform between 1/gamma and gamma.
        contrast: factor, log-uniform. brightness: additive, uniform in +-brightness (units of the normalised image).
        bias: strength of a multiplicative smooth field, uniform in 0..bias.
        noise: standard deviation, uniform in 0..noise. blur: probability of a low-resolution copy.
        drop: probability that one sequence is replaced by a copy of FLAIR, as the data set does where one is missing.
    """

    size: tuple[int, int] = (192, 192)
    rotate: float = 20.0
    scale: float = 1.2
    stretch: float = 1.08
    shear: float = 0.06
    shift: float = 12.0
    flip: float = 0.5
    flip_slices: float = 0.5
    gamma: float = 1.5
    contrast: float = 1.25
    brightness: float = 0.15
    bias: float = 0.35
    noise: float = 0.12
    blur: float = 0.15
    drop: float = 0.08


def _log_uniform(rng: np.random.Generator, factor: float) -> float:
    return math.exp(rng.uniform(-1.0, 1.0) * math.log(factor))


def _sampling_grid(
    rng: np.random.Generator, a: SliceAugmentation, shape: tuple[int, int], centre: tuple[float, float]
) -> torch.Tensor:
    """Grid (1, rows, columns, 2) of ``grid_sample`` from the crop into a slice of ``shape`` about ``centre``."""
    angle = math.radians(rng.uniform(-a.rotate, a.rotate))
    zoom, stretch = _log_uniform(rng, a.scale), _log_uniform(rng, a.stretch)
    shear = rng.uniform(-a.shear, a.shear)
    mirror = -1.0 if rng.random() < a.flip else 1.0
    cos, sin = math.cos(angle), math.sin(angle)
    # (column, row) of the crop in pixels from its centre -> (column, row) of the slice in pixels from the head's centre
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]])
    matrix = matrix @ np.diag([mirror * zoom * stretch, zoom / stretch])
    offset = np.array([centre[1], centre[0]]) + rng.uniform(-a.shift, a.shift, 2)
    rows, columns = shape
    to_unit = np.array([2.0 / columns, 2.0 / rows])  # pixels to the -1..1 of grid_sample, align_corners=False
    theta = np.zeros((2, 3))
    theta[:, :2] = to_unit[:, None] * matrix @ np.diag([a.size[1] / 2.0, a.size[0] / 2.0])
    theta[:, 2] = to_unit * (offset + 0.5) - 1.0
    return functional.affine_grid(
        torch.from_numpy(theta[None].astype(np.float32)), [1, 1, *a.size], align_corners=False
    )


def _smooth_field(rng: np.random.Generator, size: tuple[int, int]) -> torch.Tensor:
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 4, 4)).astype(np.float32))
    return functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)[0, 0]


def augment_slice(
    image: torch.Tensor,
    label: torch.Tensor,
    centre: tuple[float, float],
    air: torch.Tensor,
    rng: np.random.Generator,
    augmentation: SliceAugmentation,
    flair: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one augmented crop.

    Args:
        image: (neighbours, C, H, W) float32, normalised; the middle neighbour is the slice itself.
        label: (1, H, W) float32 of 0 and 1.
        centre: (row, column) of the head, pixels.
        air: (C,) value of the air of each channel: what lies outside the slice, and the floor of the result.
        rng: source of every random choice: the same state gives the same crop.
        augmentation: ranges.
        flair: index of FLAIR among the C channels.

    Returns:
        image (neighbours * C, rows, columns) and label (1, rows, columns).
    """
    a = augmentation
    neighbours, channels, height, width = image.shape
    grid = _sampling_grid(rng, a, (height, width), centre)
    if rng.random() < a.flip_slices:
        image = image.flip(0)
    if channels > 1 and rng.random() < a.drop:
        image = image.clone()
        image[:, rng.choice([c for c in range(channels) if c != flair])] = image[:, flair]
        air = air[flair].expand(channels)
    floor = air.view(1, channels, 1, 1)
    # zero is what grid_sample pads with, so air has to be zero while it works
    stack = (image - floor).flatten(0, 1)[None]
    stack = functional.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    label = functional.grid_sample(label[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    label = (label > 0.5).float()
    stack = stack.view(neighbours, channels, *a.size)

    top = stack.amax(dim=(0, 2, 3)).clamp_min(1e-3)
    gammas = torch.tensor([_log_uniform(rng, a.gamma) for _ in range(channels)])
    gains = torch.tensor([_log_uniform(rng, a.contrast) for _ in range(channels)], dtype=torch.float32)
    lifts = torch.tensor(rng.uniform(-a.brightness, a.brightness, channels), dtype=torch.float32)
    head = stack > 1e-3
    if a.gamma > 1.0 and rng.random() < 0.7:
        unit = stack / top.view(1, -1, 1, 1)
        stack = unit.clamp_min(0).pow(gammas.view(1, -1, 1, 1).to(unit.dtype)) * top.view(1, -1, 1, 1)
    stack = stack * gains.view(1, -1, 1, 1)
    if a.bias and rng.random() < 0.5:
        field = torch.exp(rng.uniform(0.0, a.bias) * _smooth_field(rng, a.size))
        stack = stack * field
    if rng.random() < a.blur:
        factor = rng.uniform(1.3, 2.5)
        small = [max(8, round(n / factor)) for n in a.size]
        stack = functional.interpolate(stack, size=small, mode="bilinear", align_corners=False)
        stack = functional.interpolate(stack, size=a.size, mode="bilinear", align_corners=False)
        head = stack > 1e-3
    if a.brightness:
        stack = stack + lifts.view(1, -1, 1, 1) * head
    if a.noise and rng.random() < 0.5:
        sigma = rng.uniform(0.0, a.noise)
        # float32 noise from one 64-bit seed: torch's generator is several times faster than numpy's here
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(stack.shape, generator=generator) * sigma
        # normalisation sets air to a constant, but lets noise above its threshold through: train on both
        stack = stack + (noise if rng.random() < 0.3 else noise * head)
    stack = stack.clamp_min(0.0) + floor
    return stack.flatten(0, 1), label
