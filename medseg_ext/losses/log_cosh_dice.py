"""Log-cosh Dice loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.losses import DiceLoss
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from medseg_ext.losses.processes import gather_batch
from medseg_ext.losses.statistics import reduce, to_safe_precision


class LogCoshDiceLoss(_Loss):
    """Logarithm of the hyperbolic cosine of the Dice loss: quadratic near a perfect overlap, linear far from it.

    Jadon 2020, "A survey of loss functions for semantic segmentation"
    (https://doi.org/10.1109/CIBCB48159.2020.9277638), here on MONAI's :class:`monai.losses.DiceLoss`. Per sample and
    channel (with ``batch=True`` per channel)::

        loss = log(cosh(1 - (2 * TP + smooth) / (2 * TP + FP + FN + smooth)))

    between 0 at the perfect prediction and log(cosh(1)) = 0.434 without any overlap; its slope, the hyperbolic tangent
    of the Dice loss, fades to 0 as the overlap becomes perfect.

    Empty masks: without a target voxel the Dice loss is ``sum(p) / (sum(p) + smooth)``, so the loss is 0 for an empty
    prediction; use ``batch=True`` or a larger ``smooth`` where many samples are empty.

    Several processes: with ``batch=True`` they send each other their samples, and every one computes the loss of all
    (:mod:`medseg_ext.losses.processes`); otherwise each has the mean over its own samples, of which all have as many.

    Args:
        include_background: whether channel 0 takes part.
        to_onehot_y: whether the target holds class numbers (B, 1, spatial...) to be made one-hot.
        sigmoid: apply a sigmoid to the input first.
        softmax: apply a softmax over the channels first.
        other_act: another activation to apply first. Without any of the three the input holds probabilities.
        reduction: over samples and channels: ``"mean"``, ``"sum"`` or ``"none"`` (shape (B, C), or (C,)).
        smooth: added to both sides of the quotient, in voxels.
        batch: whether to sum over the batch before dividing.
        ignore_index: as in MONAI: the class number, or the value in a one-channel target, whose voxels take no part.
            (In a target of several channels MONAI takes a value that is no class number for "all channels 0"; for
            regions unknown in part see :class:`~medseg_ext.losses.RegionDiceBCELoss`.)

    Raises:
        ValueError: when ``smooth`` is not positive, or more than one activation is asked for.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable | None = None,
        reduction: LossReduction | str = LossReduction.MEAN,
        smooth: float = 1e-5,
        batch: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        if not smooth > 0:
            raise ValueError(f"smooth: found {smooth}, allowed more than 0")
        super().__init__(reduction=LossReduction(reduction).value)
        self.dice = DiceLoss(
            include_background=include_background,
            to_onehot_y=to_onehot_y,
            sigmoid=sigmoid,
            softmax=softmax,
            other_act=other_act,
            reduction=LossReduction.NONE,
            smooth_nr=smooth,
            smooth_dr=smooth,
            batch=batch,
            ignore_index=ignore_index,
        )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            input: (B, C, spatial...), any float type; computed in float32 (float64 stays).
            target: (B, C, spatial...) of 0..1, or (B, 1, spatial...) with ``to_onehot_y``.
        """
        input, target = to_safe_precision(input), to_safe_precision(target)
        if self.dice.batch:
            input, target = gather_batch(input), gather_batch(target)
        dice = self.dice(input, target)
        # unreduced, MONAI keeps axes of length 1 for space, and one for the batch it summed over
        dice = dice.flatten() if self.dice.batch else dice.flatten(1)
        # log(cosh(x)) without the cancellation of cosh(x) - 1 near a perfect overlap
        return reduce(torch.log1p(2 * torch.sinh(dice / 2) ** 2), self.reduction)
