"""What the losses share: checked arguments in a safe precision, and soft region sums over a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.utils import LossReduction

from medseg_ext.losses.processes import sum_over_processes


class RegionSums(NamedTuple):
    """Soft sums per channel over batch and space, each of shape (C,).

    Args:
        intersection: sum of probability times target.
        predicted: sum of probability.
        true: sum of target.
    """

    intersection: torch.Tensor
    predicted: torch.Tensor
    true: torch.Tensor


def to_safe_precision(tensor: torch.Tensor) -> torch.Tensor:
    """A plain tensor in float32, or in float64 where it was so; half and bfloat16 are too coarse to sum voxels in.

    Args:
        tensor: any dtype; a subclass such as MONAI's ``MetaTensor`` loses its metadata, not its gradient.
    """
    tensor = tensor.as_subclass(torch.Tensor)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_same_shape(input: torch.Tensor, target: torch.Tensor) -> None:
    """Refuse a target whose shape would only broadcast.

    Args:
        input: network output, (B, C, spatial...).
        target: annotation, to be of the same shape.

    Raises:
        ValueError: when the shapes differ or a spatial axis is missing.
    """
    if input.ndim < 3:
        raise ValueError(f"input: found shape {tuple(input.shape)}, allowed (batch, channel, one or more spatial axes)")
    if input.shape != target.shape:
        raise ValueError(f"target: found shape {tuple(target.shape)}, allowed that of input, {tuple(input.shape)}")


def region_sums(probability: torch.Tensor, target: torch.Tensor) -> RegionSums:
    """Sum what a soft Dice needs, per channel, over the batch of this process and space.

    Args:
        probability: (B, C, spatial...), 0..1; 0 in voxels that take no part.
        target: (B, C, spatial...), 0..1; 0 in voxels that take no part.
    """
    axes = batch_and_space(probability)
    return RegionSums((probability * target).sum(axes), probability.sum(axes), target.sum(axes))


def sums_over_processes(sums: RegionSums, *others: torch.Tensor) -> tuple[RegionSums, tuple[torch.Tensor, ...]]:
    """Make the sums of this process's batch those of the batch of all processes, and likewise other sums.

    Every loss that works on the batch as a whole calls this once, so that its Dice is that of the global batch; see
    :mod:`medseg_ext.losses.processes` for the gradient.

    Args:
        sums: from :func:`region_sums`.
        others: further sums or counts, of the same shapes on every process.
    """
    intersection, predicted, true, *totals = sum_over_processes(*sums, *others)
    return RegionSums(intersection, predicted, true), tuple(totals)


def batch_and_space(tensor: torch.Tensor) -> tuple[int, ...]:
    """All axes of a (B, C, spatial...) tensor but the channels."""
    return (0, *range(2, tensor.ndim))


def soft_dice(sums: RegionSums, smooth: float) -> torch.Tensor:
    """Soft Dice per channel, ``(2 I + smooth) / (P + T + smooth)``, shape (C,); 1 where both are empty.

    Args:
        sums: from :func:`region_sums`.
        smooth: added above and below; in voxels.
    """
    # without smoothing 0/0 stands for two empty regions, which agree
    agree = (sums.predicted + sums.true == 0) if smooth == 0 else torch.zeros_like(sums.true, dtype=torch.bool)
    below = (sums.predicted + sums.true + smooth).masked_fill(agree, 1)
    return ((2 * sums.intersection + smooth) / below).masked_fill(agree, 1)


def mean_over(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean of the counted values, 0 (with a gradient of 0) when none is counted.

    Args:
        values: (N,) finite.
        counted: (N,) bool.
    """
    return (values * counted).sum() / counted.sum().clamp_min(1)


def reduce(values: torch.Tensor, reduction: str) -> torch.Tensor:
    """Mean, sum, or the values themselves.

    Args:
        values: any shape.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """
    if reduction == LossReduction.MEAN.value:
        return values.mean()
    return values.sum() if reduction == LossReduction.SUM.value else values
