"""Batch-wise Dice plus binary cross-entropy on regions that may overlap and may be unknown."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from medseg_ext.losses.statistics import (
    batch_and_space,
    check_same_shape,
    mean_over,
    reduce,
    region_sums,
    soft_dice,
    sums_over_processes,
    to_safe_precision,
)

CERTAIN_NO = -1e4  # a logit whose sigmoid, and whose cross-entropy with 0, is exactly 0


class RegionDiceBCELoss(_Loss):
    """Soft Dice over the whole batch plus binary cross-entropy, per region (channel), on logits.

    The Dice sums run over the batch and space together, as though the batch were one patient (the "batch Dice" of
    nnU-Net: Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z; soft Dice: Milletari et al. 2016,
    https://doi.org/10.1109/3DV.2016.79). So a slice without lesion costs its false positives and no more, where a Dice
    per slice would cost the full 1. Per channel::

        loss = dice_weight * (1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)) + bce_weight * mean(bce)

    with p the sigmoid of the input, g the target.

    Partial labels: target voxels equal to ``ignore_value`` take no part. A sample in which a region is not annotated
    carries ``ignore_value`` in that whole channel (for TC, WT, ET of which only the whole tumour is known: channels
    TC and ET); padding carries it in all channels. A channel without any known voxel in the batch is left out of the
    mean. For networks with exclusive classes (softmax) see :class:`~medseg_ext.losses.MarginalRegionLoss`.

    Several processes: the batch is that of all of them, so every process has the same value, and the gradient is that
    of one process with the whole batch (:mod:`medseg_ext.losses.processes`). All of them have to compute it.

    Empty masks: with no target voxel in the batch the Dice term is ``sum(p) / (sum(p) + smooth)``, which falls to 0
    as the prediction empties; both empty, or nothing known at all, gives 0 and finite gradients.

    Args:
        dice_weight: factor of the Dice term.
        bce_weight: factor of the cross-entropy term.
        smooth: added to both sides of the Dice quotient, in voxels; larger values soften the Dice of small regions.
        ignore_value: target value of voxels that take no part; None when there are none (a little faster).
        reduction: over channels: ``"mean"`` of those with a known voxel, ``"sum"`` or ``"none"`` (shape (C,)).

    Raises:
        ValueError: when ``smooth`` or a weight is negative.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        bce_weight: float = 1.0,
        smooth: float = 1.0,
        ignore_value: float | None = -1.0,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        for name, value in (("dice_weight", dice_weight), ("bce_weight", bce_weight), ("smooth", smooth)):
            if value < 0:
                raise ValueError(f"{name}: found {value}, allowed 0 or more")
        self.dice_weight, self.bce_weight = float(dice_weight), float(bce_weight)
        self.smooth = float(smooth)
        self.ignore_value = ignore_value

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            input: logits (B, C, spatial...), any float type; computed in float32 (float64 stays).
            target: (B, C, spatial...), 0..1 or ``ignore_value``.

        Raises:
            ValueError: when the shapes differ.
        """
        check_same_shape(input, target)
        logits = to_safe_precision(input)
        truth = target.as_subclass(torch.Tensor).to(logits.dtype)
        axes = batch_and_space(logits)
        if self.ignore_value is None:
            voxels = logits.new_full((logits.shape[1],), logits[:, 0].numel())
        else:
            known = truth != self.ignore_value
            voxels = known.sum(axes)
            # a confident, right "no" adds exactly 0 to every sum; whatever stood there, even NaN, gets no gradient
            logits, truth = torch.where(known, logits, CERTAIN_NO), torch.where(known, truth, 0)

        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(axes)
        sums, (entropy, voxels) = sums_over_processes(region_sums(torch.sigmoid(logits), truth), entropy, voxels)
        dice = soft_dice(sums, self.smooth)
        loss = self.dice_weight * (1 - dice) + self.bce_weight * entropy / voxels.clamp_min(1)

        if self.reduction == LossReduction.MEAN.value:
            return mean_over(loss, voxels > 0)
        return reduce(loss, self.reduction)
